"""What a data set is made of and made from: files, labels, transforms, sources. Knows no torch and no GAN."""
