"""The INR decoder on StyleGAN2's skeleton: w -> image, point by point (INR-GAN, appendix A, 'additional ablations').

Blocks are named by resolution as StyleGAN2's are. Blocks up to the input grid all run on that grid; every later block doubles features
and RGB, and its first layer sees the coordinate features of its own grid beside them. A layer is y = act(up(W_x x) + W_e e + b): the
product with the features from below is taken before they are upsampled, nothing is concatenated.

Legend: N images, C channels, E coordinate features, H and W rows and columns of points.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from inr import grid
from inr.fourier import CoordinateFeatures, FeatureSpec
from torch_utils.ops import bias_act
from training.networks import FullyConnectedLayer


@dataclass(frozen=True)
class BlockSpec:
    """Shape of one block: name (its resolution in StyleGAN2's pyramid), grid it runs on, width, layers, coordinate features or None."""

    name: int
    grid: int
    in_channels: int
    channels: int
    layers: int
    features: FeatureSpec | None
    upsamples: bool


def read_below(x, points, bilinear=False):
    """Values [N, C, h, w] at the points of the grid below, read at `points`: [N, C, H, W]."""
    if points.doubled:
        return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True) if bilinear else F.interpolate(x, scale_factor=2)
    rows, cols = points.below
    return rows(cols(x, dim=3), dim=2)


def point_product(weight, x):
    """A 1x1 layer with a weight for each image: weight [N, C_out, C_in], x [N or 1, C_in, H, W] -> [N, C_out, H, W]."""
    return torch.matmul(weight, x.flatten(2)).unflatten(2, x.shape[2:])


class SynthesisLayer(nn.Module):
    """One layer of the INR: act(up(W_x x) + W_e e + b) with image-specific W = [W_x, W_e] (fmm.Modulation).

    in_channels: channels from below plus coordinate features
    conv_clamp: limit of |output|, or None
    """

    def __init__(self, in_channels, out_channels, w_dim, modulation, conv_clamp=None):
        super().__init__()
        self.modulation, self.conv_clamp = modulation, conv_clamp
        self.affine = FullyConnectedLayer(w_dim, modulation.num_styles(in_channels, out_channels), bias_init=modulation.initial_style)
        self.weight = nn.Parameter(torch.randn([out_channels, in_channels, 1, 1]))
        self.bias = nn.Parameter(torch.zeros([out_channels]))

    def forward(self, x, w, features=None, read=None):
        """x [N, C, h, w] or None, w [N, w_dim], features [N or 1, E, H, W] or None, read: how values below reach the points, or None."""
        dtype = (features if x is None else x).dtype
        weight = self.modulation.weight(self.weight[:, :, 0, 0], self.affine(w)).to(dtype)  # [N, C_out, C_in]
        below = 0 if x is None else x.shape[1]
        y = None
        if x is not None:
            y = point_product(weight[:, :, :below], x)
            y = y if read is None else read(y)
        if features is not None:
            placed = point_product(weight[:, :, below:], features)
            y = placed if y is None else y + placed
        return bias_act.bias_act(y, self.bias.to(dtype), act='lrelu', clamp=self.conv_clamp)


class ToRGBLayer(nn.Module):
    """Features to image channels: plain style modulation, no demodulation."""

    def __init__(self, in_channels, out_channels, w_dim, conv_clamp=None):
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn([out_channels, in_channels, 1, 1]))
        self.bias = nn.Parameter(torch.zeros([out_channels]))

    def forward(self, x, w):
        styles = self.affine(w) / math.sqrt(x.shape[1])
        weight = (self.weight[:, :, 0, 0] * styles.unsqueeze(1)).to(x.dtype)  # [N, C_out, C_in]
        return bias_act.bias_act(point_product(weight, x), self.bias.to(x.dtype), clamp=self.conv_clamp).float()


def scale_to_unit_deviation(x):
    """x [N, C, H, W] divided by the standard deviation of each image and channel; the mean stays. One point alone is left as it is."""
    return x / (x.std(dim=[2, 3], keepdim=True) + 1e-8) if x.shape[2] * x.shape[3] > 1 else x


class SynthesisBlock(nn.Module):
    """A block of layers on one grid and its to-RGB. The first layer of an upsampling block reads from the grid below."""

    def __init__(self, spec, w_dim, img_channels, modulation, conv_clamp, bilinear, instance_norm, dtype):
        super().__init__()
        self.spec, self.bilinear, self.dtype = spec, bilinear, dtype
        self.instance_norm = instance_norm
        self.coords = None if spec.features is None else CoordinateFeatures(spec.features, spec.grid, w_dim)
        seen = spec.in_channels + (0 if self.coords is None else self.coords.num_features)
        widths = [seen] + [spec.channels] * (spec.layers - 1)
        self.layers = nn.ModuleList(SynthesisLayer(c, spec.channels, w_dim, modulation, conv_clamp) for c in widths)
        self.torgb = ToRGBLayer(spec.channels, img_channels, w_dim, conv_clamp)

    def forward(self, x, img, ws, points, force_fp32=False):
        """x [N, C, h, w] or None, img likewise, ws [N, layers + 1, w_dim] -> (x [N, C, H, W], img [N, channels, H, W])."""
        dtype = torch.float32 if force_fp32 else self.dtype
        x = None if x is None else x.to(dtype)
        w = ws.unbind(1)
        features = None if self.coords is None else self.coords(points, w[0]).to(dtype)

        def read(values):
            return read_below(values, points, self.bilinear)

        for index, layer in enumerate(self.layers):
            if index and self.instance_norm:
                x = scale_to_unit_deviation(x)
            first = index == 0
            x = layer(x, w[index], features if first else None, read if first and self.spec.upsamples else None)
        rgb = self.torgb(x, w[len(self.layers)])
        if img is None:
            return x, rgb
        return x, (read(img) if self.spec.upsamples else img) + rgb


class SynthesisNetwork(nn.Module):
    """w -> image. `forward` draws the trained grid; `draw` draws any points (refinement.plan says which; render.py is the way for users).

    blocks: list of BlockSpec, coarse to fine
    """

    def __init__(
        self, w_dim, img_resolution, img_channels, blocks, modulation, conv_clamp, bilinear, instance_norm, half_blocks, half_dtype
    ):  # fmt: skip
        super().__init__()
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.num_ws = sum(b.layers for b in blocks) + 1
        self.grids = sorted({b.grid for b in blocks})
        self.convention = grid.GENERATOR_B
        self.bilinear = bilinear
        self.pointwise = not (bilinear or instance_norm)  # each pixel is a function of its own point alone
        self.block_names = [f'b{b.name}' for b in blocks]
        lowest_half = max(2 * img_resolution >> half_blocks, 8)  # StyleGAN2 keeps the first block in float32 too
        for spec in blocks:
            dtype = half_dtype if spec.name >= lowest_half else torch.float32
            block = SynthesisBlock(spec, w_dim, img_channels, modulation, conv_clamp, bilinear, instance_norm, dtype)
            self.add_module(f'b{spec.name}', block)

    def forward(self, ws, noise_mode='random', force_fp32=False):
        """ws [N, num_ws, w_dim] -> image [N, img_channels, R, R], float32 in about [-1, 1]. There is no noise, whatever noise_mode says.

        Raises ValueError for ws of another shape or a noise_mode that is not random, const or none.
        """
        if noise_mode not in ('random', 'const', 'none'):
            raise ValueError(f"unknown noise_mode '{noise_mode}'; choose random, const or none")
        return self.draw(ws, grid.training_points(self.grids, self.convention, ws.device), force_fp32)

    def draw(self, ws, levels, force_fp32=False):
        """ws [N, num_ws, w_dim], levels: grid.Points of every grid, coarse to fine -> image [N, img_channels, H, W] at the last ones."""
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f'ws of shape {list(ws.shape)}; this network takes [N, {self.num_ws}, {self.w_dim}]')
        x = img = None
        ws = ws.to(torch.float32)
        first = 0
        for name in self.block_names:
            block = getattr(self, name)
            points = levels[self.grids.index(block.spec.grid)]
            x, img = block(x, img, ws[:, first : first + block.spec.layers + 1], points, force_fp32)
            first += block.spec.layers
        return img
