"""What is done with a trained network: opening it, latents, painting, projection, sheets."""
