"""The room behind viewer.py: what a page may ask for, drawing it in turn, the server, and the page itself in static/."""

PLANE = (-8.0, -8.0, 16.0)  # left, top and side of what can be looked at, in units of the trained image
TILE = 256  # pixels a side, and MARGIN more all around, which neighbours share, so that no seam shows
MARGIN = 1
MIN_LEVEL, MAX_LEVEL = 2, 19  # a level has 2^level tiles a side; at the last one neighbours are 2^-23 of the image apart, float32's end
MAX_SAVED = 2**26  # pixels of a saved view
MAX_QUERY = 4000  # characters
