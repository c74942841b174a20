"""The INR decoder on StyleGAN2's skeleton: w -> image, point by point (INR-GAN, appendix A, 'additional ablations').

Blocks are named by resolution as StyleGAN2's are. Blocks up to the input grid all run on that grid; every later block doubles features
and RGB, and its first layer sees the coordinate features of its own grid beside them. A layer is y = act(up(W_x x) + W_e e + b): the
product with the features from below is taken before they are upsampled, nothing is concatenated (ops.fmm).

Legend: N images, C channels, E coordinate features, H and W rows and columns of points.
"""

import json
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from inr import grid, refinement
from inr.fmm import Weights
from inr.fourier import CoordinateFeatures, FeatureSpec, read_cells
from inr.ops import drawing, fmm
from inr.ops.layer import double, product
from torch_utils.ops import bias_act
from training.networks import FullyConnectedLayer

MIN_RESOLUTION, MAX_RESOLUTION = 16, 1024
SLOPE, GAIN = 0.2, math.sqrt(2)  # of leaky ReLU


def check_resolution(resolution):
    """Raises ValueError for a training resolution that is not a power of two from 16 to 1024."""
    if not (MIN_RESOLUTION <= resolution <= MAX_RESOLUTION and resolution & (resolution - 1) == 0):
        raise ValueError(f'training resolution {resolution} is not a power of two from {MIN_RESOLUTION} to {MAX_RESOLUTION}')


def block_dtypes(resolutions, half_blocks, half_dtype):
    """The type each block computes in: the `half_blocks` finest in 'float16' or 'bfloat16', others, and what is below 8, in float32."""
    if half_dtype not in ('float16', 'bfloat16'):
        raise ValueError(f"unknown half_dtype '{half_dtype}'; choose float16 or bfloat16")
    if half_blocks < 0:
        raise ValueError(f'{half_blocks} blocks in half precision are fewer than none')
    lowest_half = max(2 * resolutions[-1] >> half_blocks, 8)  # StyleGAN2 keeps the first block in float32 too
    return [getattr(torch, half_dtype) if res >= lowest_half else torch.float32 for res in resolutions]


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
    noise: spatial noise in every layer; coord_skips: every layer of a block with coordinate features sees them, not only the first
    conv_clamp: limit of |output| of a layer, or None
    """

    upsampling: str = 'nearest'
    instance_norm: bool = False
    noise: bool = False
    coord_skips: bool = False
    conv_clamp: float | None = None

    @property
    def by_layers(self):
        """Why layers of a block must be computed one by one, or None."""
        return 'deviations are normalized' if self.instance_norm else 'it has spatial noise' if self.noise else None


@dataclass(frozen=True)
class ReadBelow:
    """How values at the points of the grid below, [N, C, h, w], reach `points`: [N, C, H, W]. upsampling: see refinement.plan."""

    points: grid.Points
    upsampling: str = 'nearest'

    @property
    def doubling(self):
        """'nearest' or 'linear' where trained grids are doubled so, in one of ops.layer.DOUBLINGS; else None."""
        return self.upsampling if self.points.doubled and self.upsampling != 'bilinear' else None

    @property
    def axes(self):
        """The same as (rows, columns), two refinement.AxisRead."""
        if not self.points.doubled:
            return self.points.below
        return tuple(refinement.doubled(size, self.upsampling, self.points.x.device) for size in self.points.shape)

    def __call__(self, x):
        if self.doubling is not None:
            return double(x, self.doubling)
        if self.points.doubled:
            return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True)
        rows, cols = self.points.below
        return rows(cols(x, dim=3), dim=2)


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

    def whole_weight(self, w, dtype=torch.float32, impl='ref'):
        """The same put together: [N, C_out, C_in] in dtype."""
        return fmm.whole(self.weights(w), dtype, impl)

    def step(self, w, sees):
        """The same layer for ops.drawing."""
        return drawing.Step(self.weights(w, drawing.affine), self.bias[None], sees, SLOPE, GAIN, self.conv_clamp)

    def forward(self, x, w, features=None, read=None, noise=lambda module: None, impl='auto'):
        """x, features, read, impl: as in ops.fmm.layer; w [N, w_dim]; noise: what calls the layer's SpatialNoise."""
        dtype = (features if x is None else x).dtype
        noise = None if self.noise is None else noise(self.noise)
        return fmm.layer(
            self.whole_weight(w, dtype, impl), self.bias, x, features, read, noise, SLOPE, GAIN,
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

    def step(self, w):
        """The same layer for ops.drawing."""
        return drawing.Step(self.weights(w, drawing.affine), self.bias[None], False, 1.0, 1.0, self.conv_clamp)

    def forward(self, x, w):
        weight = self.weights(w).whole().to(x.dtype)
        return bias_act.bias_act(product(weight, x), self.bias.to(x.dtype), clamp=self.conv_clamp).float()


def not_separable(coords):
    """Why features cannot be made from sines along the axes, or None; coords: what makes them, or None."""
    return None if coords is None or hasattr(coords, 'separable') else 'its coordinates are moved'


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
        self.coords = None if spec.features is None else CoordinateFeatures(spec.features, spec.grid, w_dim)
        self.sees = [self.coords is not None and (i == 0 or options.coord_skips) for i in range(spec.layers)]
        below = [spec.in_channels] + [spec.channels] * (spec.layers - 1)
        self.layers = nn.ModuleList(
            SynthesisLayer(
                channels + (self.coords.num_features if sees else 0), spec.channels, w_dim, modulation,
                spec.grid if options.noise else None, options.conv_clamp,
            ) for channels, sees in zip(below, self.sees, strict=True)
        )  # fmt: skip
        self.torgb = ToRGBLayer(spec.channels, img_channels, w_dim, options.conv_clamp)

    def forward(self, x, img, ws, points, noise_mode='const', force_fp32=False, impl='auto', keep=True):
        """x [N, C, h, w] or None, img likewise, ws [N, layers + 1, w_dim] -> (x [N, C, H, W], img [N, channels, H, W]).

        impl: see ops.fmm; keep: False where x is not needed any more (it may come back as None)
        """
        dtype = torch.float32 if force_fp32 else self.dtype
        return fmm.compute(
            impl, self, (ws, x, img), points, dtype, self.options.by_layers or not_separable(self.coords),
            lambda: self._drawn(x, img, ws.unbind(1), points, dtype, keep),
            lambda: self._by_layers(x, img, ws, points, noise_mode, dtype, impl),
        )  # fmt: skip

    def _drawn(self, x, img, w, points, dtype, keep):
        """All layers at once, by ops.drawing."""
        steps = [layer.step(w[i], self.sees[i]) for i, layer in enumerate(self.layers)]
        features = None if self.coords is None else self.coords.separable(points, w[0])
        read = ReadBelow(points, self.options.upsampling).axes if self.spec.upsamples else None
        return drawing.draw(x, img, steps, self.torgb.step(w[len(steps)]), features, points, read, dtype, keep)

    def _by_layers(self, x, img, ws, points, noise_mode, dtype, impl):
        """Layer by layer."""
        w = ws.unbind(1)
        x = None if x is None else x.to(dtype)
        features = None if self.coords is None else self.coords(points, w[0]).to(dtype)

        read = ReadBelow(points, self.options.upsampling)

        def noise(module):
            return module(points, noise_mode, len(ws))

        for index, (layer, sees) in enumerate(zip(self.layers, self.sees, strict=True)):
            if index and self.options.instance_norm:
                x = scale_to_unit_deviation(x)
            x = layer(x, w[index], features if sees else None, read if index == 0 and self.spec.upsamples else None, noise, impl)
        rgb = self.torgb(x, w[len(self.layers)])
        if img is None:
            return x, rgb
        return x, (read(img) if self.spec.upsamples else img) + rgb


class SynthesisNetwork(nn.Module):
    """w -> image. `forward` draws the trained grid; `draw` draws any points (refinement.plan says which; render.py is the way for users).

    blocks: coarse to fine, modules called as a SynthesisBlock is, whose `spec` has grid, channels and layers; each takes a w for every
        layer, and its to-RGB takes that of the next block's first layer
    names: of the blocks; convention: of the grids (grid.Convention); activation: of the image, or None
    upsampling: how every grid reads the one below, see refinement.plan
    pointwise: each pixel is a function of its own point alone
    """

    def __init__(
        self, w_dim, img_resolution, img_channels, names, blocks, convention, upsampling='nearest', pointwise=True, activation=None
    ):  # fmt: skip
        super().__init__()
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.num_ws = sum(block.spec.layers for block in blocks) + 1
        self.grids = sorted({block.spec.grid for block in blocks})
        self.convention, self.upsampling, self.pointwise, self.activation = convention, upsampling, pointwise, activation
        self.block_names = [f'b{name}' for name in names]
        for name, block in zip(self.block_names, blocks, strict=True):
            self.add_module(name, block)

    def forward(self, ws, noise_mode='random', force_fp32=False, impl='auto', resolution=None):
        """ws [N, num_ws, w_dim] -> image [N, img_channels, R, R], float32 in about [-1, 1].

        noise_mode: 'random', 'const' or 'none'; only networks built with spatial noise have any
        impl: who computes the layers, to-RGB apart: 'auto', 'ref', 'fused' or 'cuda', see ops.fmm
        resolution: R, img_resolution if None. What is smaller is drawn by the blocks whose grid is no finer, at fewer points if all are
        Raises ValueError for ws of another shape, another noise_mode, and a resolution that is neither a grid's nor below all.
        """
        if resolution is None or resolution in self.grids:
            grids = [size for size in self.grids if size <= (resolution or size)]
            points = grid.training_points(grids, self.convention, ws.device)
        elif 4 <= resolution < self.grids[0]:
            lattice = grid.lattice(resolution, resolution, convention=self.convention)
            points = refinement.plan(lattice, self.grids[:1], convention=self.convention, device=ws.device, upsampling=self.upsampling)
        else:
            raise ValueError(f'resolution={resolution}: this network draws {", ".join(map(str, self.grids))} and less than the first')
        return self.draw(ws, points, noise_mode, force_fp32, impl)

    def draw(self, ws, levels, noise_mode='const', force_fp32=False, impl='auto'):
        """ws [N, num_ws, w_dim], levels: grid.Points of every grid, coarse to fine -> image [N, img_channels, H, W] at the last ones.

        Fewer levels than grids draw what the blocks of the coarser grids draw.
        """
        if noise_mode not in ('random', 'const', 'none'):
            raise ValueError(f"unknown noise_mode '{noise_mode}'; choose random, const or none")
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f'ws of shape {list(ws.shape)}; this network takes [N, {self.num_ws}, {self.w_dim}]')
        x = img = None
        ws = ws.to(torch.float32)
        first = 0
        names = [name for name in self.block_names if self.grids.index(getattr(self, name).spec.grid) < len(levels)]
        for name in names:
            block = getattr(self, name)
            points = levels[self.grids.index(block.spec.grid)]
            own = ws[:, first : first + block.spec.layers + 1]
            x, img = block(x, img, own, points, noise_mode, force_fp32, impl, keep=name != names[-1])
            first += block.spec.layers
        return img if self.activation is None else self.activation(img)


class BaseGenerator(nn.Module):
    """What both generators of this package share: arguments, attributes and the forward pass, as stylegan2-ada-pytorch has them.

    A subclass adds `mapping` and `synthesis`. `init_kwargs` are the arguments as JSON would hold them.
    """

    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs, synthesis_kwargs):
        super().__init__()
        arguments = dict(
            z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, img_resolution=img_resolution, img_channels=img_channels,
            mapping_kwargs=dict(mapping_kwargs or {}), synthesis_kwargs=dict(synthesis_kwargs or {}),
        )  # fmt: skip
        self.init_kwargs = json.loads(json.dumps(arguments))
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels

    def forward(self, z, c=None, truncation_psi=1, truncation_cutoff=None, **synthesis_kwargs):
        """z [N, z_dim], c [N, c_dim] or None -> image [N, img_channels, R, R]."""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, **synthesis_kwargs)
