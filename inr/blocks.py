"""Generator B's blocks: the INR decoder on StyleGAN2's skeleton (INR-GAN, appendix A, 'additional ablations').

Blocks up to the input grid all run on that grid; every later block doubles features and RGB, and its first layer uses the coordinate
features of its own grid beside them. A layer is y = act(up(W_x x) + W_e e + b): the product with the parent's features is taken before they
are upsampled, nothing is concatenated (ops.dispatch).

Legend: N images, C channels, E coordinate features, h and w rows and columns of the parent grid, H and W of a block's own points.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from inr.fmm import Weights
from inr.fourier import CoordinateFeatures, FeatureSpec, read_cells
from inr.ops import block_cpu, dispatch
from inr.ops.layer import product
from inr.synthesis import ParentUpsample, no_axis_phases
from torch_utils.ops import bias_act
from training.networks import FullyConnectedLayer

SLOPE, GAIN = 0.2, math.sqrt(2)  # of leaky ReLU


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


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of a decoder share.

    upsampling: how a point reads the grid below, one of refinement.UPSAMPLINGS; instance_norm: see scale_to_unit_deviation
    noise: spatial noise in every layer; coord_skips: every layer of a block with coordinate features uses them, not only the first
    conv_clamp: limit of |output| of a layer, or None; periodic: see grid.Convention
    """

    upsampling: str = 'nearest'
    instance_norm: bool = False
    noise: bool = False
    coord_skips: bool = False
    conv_clamp: float | None = None
    periodic: tuple = (False, False)

    @property
    def by_layers(self):
        """Why layers of a block must be computed one by one, or None."""
        return 'deviations are normalized' if self.instance_norm else 'it has spatial noise' if self.noise else None


class SpatialNoise(nn.Module):
    """StyleGAN2's noise injection: one image of learned strength. The paper finds that the strengths of an INR are learned to be 0.

    forward(points, noise_mode, images) -> [images or 1, 1, H, W], to be added, or None. 'const' reads the stored map of the R x R cells.
    """

    def __init__(self, resolution):
        super().__init__()
        self.register_buffer('noise_const', torch.randn([resolution, resolution]))
        self.noise_strength = nn.Parameter(torch.zeros([]))

    def forward(self, points, noise_mode, images):
        if noise_mode == 'none':
            return None
        if noise_mode == 'random':
            noise = torch.randn([images, 1, *points.shape], device=self.noise_const.device)
        else:
            noise = read_cells(self.noise_const[None, None], points)
        return noise * self.noise_strength


class SynthesisLayer(nn.Module):
    """One layer of the INR: act(up(W_x x) + W_e e + b) with image-specific W = [W_x, W_e] (fmm.Modulation).

    in_channels: channels from below plus coordinate features
    noise_resolution: of the grid, where there is spatial noise; None where there is none
    conv_clamp: limit of |output|, or None
    """

    def __init__(self, in_channels, out_channels, w_dim, modulation, noise_resolution=None, conv_clamp=None):
        super().__init__()
        self.modulation, self.conv_clamp = modulation, conv_clamp
        self.affine = FullyConnectedLayer(w_dim, modulation.num_styles(in_channels, out_channels), bias_init=modulation.initial_style)
        if modulation.spread != 1:
            self.affine.weight.data.mul_(modulation.spread)
        self.weight = nn.Parameter(torch.randn([out_channels, in_channels, 1, 1]))
        self.bias = nn.Parameter(torch.zeros([out_channels]))
        self.noise = None if noise_resolution is None else SpatialNoise(noise_resolution)

    def weights(self, w, affine=lambda layer, w: layer(w)):
        """Image-specific fmm.Weights for w [N, w_dim]; affine: what applies the affine layer."""
        return self.modulation.weights(self.weight[:, :, 0, 0], affine(self.affine, w))

    def materialized_weight(self, w, dtype=torch.float32, impl='ref'):
        """The same put together: [N, C_out, C_in] in dtype."""
        return dispatch.materialize(self.weights(w), dtype, impl)

    def block_layer(self, w, uses_coords, affine):
        """The same layer as a block_cpu.BlockLayer."""
        return block_cpu.BlockLayer(self.weights(w, affine), self.bias[None], uses_coords, SLOPE, GAIN, self.conv_clamp)

    def forward(self, x, w, features=None, upsample=None, noise=lambda module: None, impl='auto'):
        """x, features, upsample, impl: as in ops.dispatch.layer; w [N, w_dim]; noise: what calls the layer's SpatialNoise."""
        dtype = (features if x is None else x).dtype
        noise = None if self.noise is None else noise(self.noise)
        return dispatch.layer(
            self.materialized_weight(w, dtype, impl), self.bias, x, features, upsample, noise, SLOPE, GAIN,
            self.conv_clamp, impl,
        )  # fmt: skip


class ToRGBLayer(nn.Module):
    """Features to image channels: plain style modulation, no demodulation."""

    def __init__(self, in_channels, out_channels, w_dim, conv_clamp=None):
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn([out_channels, in_channels, 1, 1]))
        self.weight_gain = 1 / math.sqrt(in_channels)
        self.bias = nn.Parameter(torch.zeros([out_channels]))

    def weights(self, w, affine=lambda layer, w: layer(w)):
        """fmm.Weights for w [N, w_dim]."""
        return Weights(self.weight[:, :, 0, 0] * (affine(self.affine, w) * self.weight_gain).unsqueeze(1))

    def block_layer(self, w, affine):
        """The same layer as a block_cpu.BlockLayer."""
        return block_cpu.BlockLayer(self.weights(w, affine), self.bias[None], False, 1.0, 1.0, self.conv_clamp)

    def forward(self, x, w):
        weight = self.weights(w).materialize().to(x.dtype)
        return bias_act.bias_act(product(weight, x), self.bias.to(x.dtype), clamp=self.conv_clamp).float()


def scale_to_unit_deviation(x):
    """x [N, C, H, W] divided by the standard deviation of each image and channel; the mean stays. One point alone is left as it is."""
    return x / (x.std(dim=[2, 3], keepdim=True) + 1e-8) if x.shape[2] * x.shape[3] > 1 else x


class SynthesisBlock(nn.Module):
    """A block of layers on one grid and its to-RGB. The first layer of an upsampling block reads from the grid below.

    options: BlockOptions; dtype: of its computation
    """

    def __init__(self, spec, w_dim, img_channels, modulation, options, dtype):
        super().__init__()
        self.spec, self.options, self.dtype = spec, options, dtype
        self.coords = None if spec.features is None else CoordinateFeatures(spec.features, spec.grid, w_dim, options.periodic)
        self.uses_coords = [self.coords is not None and (i == 0 or options.coord_skips) for i in range(spec.layers)]
        widths = [spec.in_channels] + [spec.channels] * (spec.layers - 1)
        self.layers = nn.ModuleList(
            SynthesisLayer(
                channels + (self.coords.num_features if uses_coords else 0), spec.channels, w_dim, modulation,
                spec.grid if options.noise else None, options.conv_clamp,
            ) for channels, uses_coords in zip(widths, self.uses_coords, strict=True)
        )  # fmt: skip
        self.torgb = ToRGBLayer(spec.channels, img_channels, w_dim, options.conv_clamp)

    def forward(self, x, img, ws, points, noise_mode='const', force_fp32=False, impl='auto', keep=True):
        """x [N, C, h, w] or None, img likewise, ws [N, layers + 1, w_dim] -> (x [N, C, H, W], img [N, channels, H, W]).

        impl: see ops.dispatch; keep: False where x is not needed any more (it may come back as None)
        """
        dtype = torch.float32 if force_fp32 else self.dtype
        return dispatch.compute(
            impl, self, (ws, x, img), points, dtype, self.options.by_layers or no_axis_phases(self.coords),
            lambda: self._drawn(x, img, ws.unbind(1), points, dtype, keep),
            lambda: self._by_layers(x, img, ws, points, noise_mode, dtype, impl),
        )  # fmt: skip

    def chain(self, w, affine=lambda layer, w: layer(w)):
        """(list of block_cpu.BlockLayer, that of to-RGB), without noise; w: of every layer and to-RGB; affine: applies affine layers."""
        layers = [layer.block_layer(w[i], self.uses_coords[i], affine) for i, layer in enumerate(self.layers)]
        return layers, self.torgb.block_layer(w[len(layers)], affine)

    def _drawn(self, x, img, w, points, dtype, keep):
        """All layers at once, by ops.block_cpu."""
        layers, to_rgb = self.chain(w, block_cpu.affine)
        features = None if self.coords is None else self.coords.axis_phases(points, w[0])
        upsample = ParentUpsample(points, self.options.upsampling).axes if self.spec.upsamples else None
        return block_cpu.draw(x, img, layers, to_rgb, features, points, upsample, dtype, keep)

    def _by_layers(self, x, img, ws, points, noise_mode, dtype, impl):
        """Layer by layer."""
        w = ws.unbind(1)
        x = None if x is None else x.to(dtype)
        features = None if self.coords is None else self.coords(points, w[0]).to(dtype)

        upsample = ParentUpsample(points, self.options.upsampling)

        def noise(module):
            return module(points, noise_mode, len(ws))

        for index, (layer, uses_coords) in enumerate(zip(self.layers, self.uses_coords, strict=True)):
            if index and self.options.instance_norm:
                x = scale_to_unit_deviation(x)
            x = layer(x, w[index], features if uses_coords else None, upsample if index == 0 and self.spec.upsamples else None, noise, impl)
        rgb = self.torgb(x, w[len(self.layers)])
        if img is None:
            return x, rgb
        return x, (upsample(img) if self.spec.upsamples else img) + rgb
