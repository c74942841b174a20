"""What a data set is made of and made from: files, labels, transforms, sources. Knows no torch and no GAN; this file imports nothing."""

RESOLUTIONS = (16, 32, 64, 128, 256, 512, 1024)  # sizes that training takes: the discriminator halves down to 4x4
TRANSFORMS = ('center-crop', 'center-crop-wide', 'letterbox', 'stretch', 'pad')  # how images become square
FILTERS = ('lanczos', 'box', 'bilinear', 'bicubic', 'hamming')  # how they are resized; all average where they shrink (no aliasing)
