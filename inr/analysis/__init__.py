"""Numbers and pictures out of a generator: the figures of the paper."""
