"""Helpers that know torch and nothing of GANs."""
