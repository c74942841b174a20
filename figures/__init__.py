"""The figures of analyze.py: each a command that asks training, inr and metrics for what it shows, and writes a picture and its numbers."""
