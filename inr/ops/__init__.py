"""FMM layers computed fast: the plain oracle, what is faster, and who chooses (fmm.py). Travels with the package: own loader, own cache."""
