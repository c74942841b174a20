"""What is done with a trained network: opening it, latents, painting, projection, sheets, videos. This file imports no torch."""

from dnnlib.util import optional

REFINEMENTS = optional('inr', 'REFINEMENTS', ())  # of pictures larger than the trained one, see inr/refinement.py
FUNCTION_FORMATS = ('function', 'html', 'onnx', 'onnx-w')  # that inference/export.py writes
PYRAMIDS = ('tiff', 'dzi')  # that inference/pyramid.py writes: a large tiff, any dzi
VIDEO_FORMATS = ('mp4', 'webp', 'gif')  # that inference/video.py writes
WHOLE = (0.0, 0.0, 1.0, 1.0)  # the window of the trained image
