"""What the ablations of the paper, and of the public implementation, put into generator B or take out of it.

Legend: N images, C channels, R resolution of a grid, H and W rows and columns of points.
"""

import math
from dataclasses import replace

import torch
from torch import nn

from inr.fourier import read_cells


class SpatialNoise(nn.Module):
    """StyleGAN2's noise injection: one image of learned strength. The paper finds that the strengths of an INR are learned to be 0.

    shape: (rows, columns) of the grid
    forward(points, noise_mode, images) -> [images or 1, 1, H, W], to be added, or None. 'const' reads the stored map of the grid's cells.
    """

    def __init__(self, shape):
        super().__init__()
        self.register_buffer('noise_const', torch.randn(shape))
        self.noise_strength = nn.Parameter(torch.zeros([]))

    def forward(self, points, noise_mode, images):
        if noise_mode == 'none':
            return None
        if noise_mode == 'random':
            noise = torch.randn([images, 1, *points.shape], device=self.noise_const.device)
        else:
            noise = read_cells(self.noise_const[None, None], points)
        return noise * self.noise_strength


def scale_to_unit_deviation(x):
    """x [N, C, H, W] divided by the standard deviation of each image and channel; the mean stays. One point alone is left as it is."""
    return x / (x.std(dim=[2, 3], keepdim=True) + 1e-8) if x.shape[2] * x.shape[3] > 1 else x


def plain_learning_rates(module):
    """Ends equalized learning rates: every weight is stored as large as it is used, so that Adam moves it that much faster or slower."""
    for part in module.modules():
        if hasattr(part, 'weight_gain'):
            part.weight.data *= part.weight_gain
            part.weight_gain = 1
        if getattr(part, 'bias_gain', 1) != 1 and part.bias is not None:
            part.bias.data *= part.bias_gain
            part.bias_gain = 1
        if hasattr(part, 'modulation'):
            part.weight.data /= math.sqrt(part.weight.shape[1])
            part.modulation = replace(part.modulation, equalized=False)
