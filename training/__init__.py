"""Training: data, StyleGAN2 networks, loss, loop, checkpoints."""
