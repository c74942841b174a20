"""Generator B's blocks: the INR decoder on StyleGAN2's skeleton (INR-GAN, appendix A, 'additional ablations').

Blocks up to the input grid all run on that grid; every later block doubles features and RGB, and its first layer uses the coordinate
features of its own grid beside them. A layer is y = act(up(W_x x) + W_e e + b): the product with the parent's features is taken before they
are upsampled, nothing is concatenated (ops.dispatch).

Legend: N images, C channels, E coordinate features, L layers, h and w rows and columns of the parent grid, H and W of a block's own points.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from inr.ablations import SpatialNoise, scale_to_unit_deviation
from inr.fmm import Weights
from inr.fourier import CoordinateFeatures, FeatureSpec
from inr.grid import shape_of
from inr.ops import dispatch
from inr.ops.block_cpu import BlockLayer
from inr.ops.layer import product
from inr.refinement import ParentUpsample
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


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of a decoder share.

    upsampling: how a point reads the grid below, one of refinement.UPSAMPLINGS; instance_norm: see ablations.scale_to_unit_deviation
    noise: spatial noise in every layer; coord_skips: every layer of a block with coordinate features uses them, not only the first
    conv_clamp: limit of |output| of a layer, or None; periodic, extent: see grid.Convention
    """

    upsampling: str = 'nearest'
    instance_norm: bool = False
    noise: bool = False
    coord_skips: bool = False
    conv_clamp: float | None = None
    periodic: tuple = (False, False)
    extent: tuple = (1, 1)

    @property
    def by_layers(self):
        """Why layers of a block must be computed one by one, or None."""
        return 'deviations are normalized' if self.instance_norm else 'it has spatial noise' if self.noise else None


class SynthesisLayer(nn.Module):
    """One layer of the INR: act(up(W_x x) + W_e e + b) with image-specific W = [W_x, W_e] (fmm.Modulation).

    in_channels: channels from below plus coordinate features
    noise_shape: (rows, columns) of the grid, where there is spatial noise; None where there is none
    conv_clamp: limit of |output|, or None
    """

    slope, gain = 0.2, math.sqrt(2)  # of leaky ReLU

    def __init__(self, in_channels, out_channels, w_dim, modulation, noise_shape=None, conv_clamp=None):
        super().__init__()
        self.modulation, self.conv_clamp = modulation, conv_clamp
        self.affine = FullyConnectedLayer(w_dim, modulation.num_styles(in_channels, out_channels), bias_init=modulation.initial_style)
        if modulation.spread != 1:
            self.affine.weight.data.mul_(modulation.spread)
        self.weight = nn.Parameter(torch.randn([out_channels, in_channels, 1, 1]))
        self.bias = nn.Parameter(torch.zeros([out_channels]))
        self.noise = None if noise_shape is None else SpatialNoise(noise_shape)

    def weights(self, w, affine=lambda layer, w: layer(w)):
        """Image-specific fmm.Weights for w [N, w_dim]; affine: what applies the affine layer."""
        return self.modulation.weights(self.weight[:, :, 0, 0], affine(self.affine, w))

    def materialized_weight(self, w, dtype=torch.float32, impl='ref'):
        """The same put together: [N, C_out, C_in] in dtype."""
        return dispatch.materialize(self.weights(w), dtype, impl)

    def forward(self, x, w, features=None, upsample=None, noise=None, impl='auto', remake=None):
        """y [N, C_out, H, W] of x [N, C, h, w] or None, w [N, w_dim]; the others are those of ops.dispatch.layer."""
        weight = self.materialized_weight(w, (features if x is None else x).dtype, impl)  # [N, C_out, C + E]
        return dispatch.layer(weight, self.bias, x, features, upsample, noise, self.slope, self.gain, self.conv_clamp, impl, remake)


class ToRGBLayer(nn.Module):
    """Features to image channels: plain style modulation, no demodulation."""

    slope = gain = 1.0

    def __init__(self, in_channels, out_channels, w_dim, conv_clamp=None):
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn([out_channels, in_channels, 1, 1]))
        self.weight_gain = 1 / math.sqrt(in_channels)
        self.bias = nn.Parameter(torch.zeros([out_channels]))

    def weights(self, w, affine=lambda layer, w: layer(w)):
        """fmm.Weights for w [N, w_dim]."""
        styles = affine(self.affine, w) * self.weight_gain  # [N, C]
        return Weights(self.weight[:, :, 0, 0] * styles.unsqueeze(1))  # [N, C_out, C]

    def forward(self, x, w):
        """Image channels [N, C_out, H, W], float32, of x [N, C, H, W]."""
        weight = self.weights(w).materialize().to(x.dtype)  # [N, C_out, C]
        return bias_act.bias_act(product(weight, x), self.bias.to(x.dtype), clamp=self.conv_clamp).float()


class SynthesisBlock(nn.Module):
    """A block of layers on one grid and its to-RGB. The first layer of an upsampling block reads from the grid below.

    options: BlockOptions; dtype: of its computation
    """

    def __init__(self, spec, w_dim, img_channels, modulation, options, dtype):
        super().__init__()
        self.spec, self.options, self.dtype = spec, options, dtype
        self.coords = None if spec.features is None else CoordinateFeatures(
            spec.features, spec.grid, w_dim, options.periodic, options.extent
        )  # fmt: skip
        self.uses_coords = [self.coords is not None and (i == 0 or options.coord_skips) for i in range(spec.layers)]
        widths = [spec.in_channels] + [spec.channels] * (spec.layers - 1)
        self.layers = nn.ModuleList(
            SynthesisLayer(
                channels + (self.coords.num_features if uses_coords else 0), spec.channels, w_dim, modulation,
                shape_of(spec.grid, options.extent) if options.noise else None, options.conv_clamp,
            ) for channels, uses_coords in zip(widths, self.uses_coords, strict=True)
        )  # fmt: skip
        self.torgb = ToRGBLayer(spec.channels, img_channels, w_dim, options.conv_clamp)

    def forward(self, x, img, ws, points, noise_mode='const', force_fp32=False, impl='auto', keep=True):
        """x [N, C, h, w] or None, img likewise, ws [N, L + 1, w_dim] -> (x [N, C, H, W], img [N, img_channels, H, W]).

        impl: see ops.dispatch; keep: False where x is not needed any more (it may come back as None)
        """
        dtype = torch.float32 if force_fp32 else self.dtype
        upsample = ParentUpsample(points, self.options.upsampling) if self.spec.upsamples else None
        return dispatch.compute(
            impl, self, x, img, ws, points, upsample, dtype, keep,
            lambda: self._by_layers(x, img, ws.unbind(1), points, upsample, noise_mode, dtype, impl), self.options.by_layers,
        )  # fmt: skip

    def chain(self, w, affine=lambda layer, w: layer(w)):
        """(BlockLayers, that of to-RGB), without noise; w: [N, w_dim] of every layer and to-RGB; affine: what applies affine layers."""
        *layers, to_rgb = [
            BlockLayer(layer.weights(own, affine), layer.bias[None], uses_coords, layer.slope, layer.gain, layer.conv_clamp)
            for layer, own, uses_coords in zip([*self.layers, self.torgb], w, [*self.uses_coords, False], strict=True)
        ]
        return layers, to_rgb

    def _by_layers(self, x, img, w, points, upsample, noise_mode, dtype, impl):
        x = None if x is None else x.to(dtype)  # [N, C, h, w]
        make = None if self.coords is None else lambda: self.coords(points, w[0]).to(dtype)
        features = make and make()  # [N or 1, E, H, W]
        # Of windows they are more than all else; they come out the same once more where nothing of them is learned or made of w.
        fixed = make and not features.requires_grad and next(self.coords.parameters(), None) is None
        remake = make if fixed and len(features) > 1 else None
        for index, (layer, uses_coords) in enumerate(zip(self.layers, self.uses_coords, strict=True)):
            if index and self.options.instance_norm:
                x = scale_to_unit_deviation(x)
            noise = None if layer.noise is None else layer.noise(points, noise_mode, len(w[0]))  # [N or 1, 1, H, W]
            known = (features, remake) if uses_coords else (None, None)
            x = layer(x, w[index], known[0], None if index else upsample, noise, impl, known[1])  # [N, C, H, W]
        rgb = self.torgb(x, w[-1])  # [N, img_channels, H, W]
        return x, rgb if img is None else (upsample(img) if upsample else img) + rgb
