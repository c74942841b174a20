"""What a data set is made of and made from: files, labels, transforms, sources. Knows no torch and no GAN."""

RESOLUTIONS = (16, 32, 64, 128, 256, 512, 1024)  # of training: the discriminator halves down to 4x4
