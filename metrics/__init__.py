"""How good images are and how far apart: scores and perceptual distances."""
