"""What every part of the project shares and none of which needs torch: errors, names, files, command lines."""
