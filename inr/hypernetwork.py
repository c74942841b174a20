"""Generator A: a hypernetwork that writes the parameters of a multi-scale INR (INR-GAN, main paper, appendices A and C).

A trunk of linear layers turns z into w; linear heads on w give all that an image has of its own: factors A and B of every FMM layer,
biases, Fourier matrices, to-RGB. The INR runs block by block on its grids: a Fourier embedding of the grid, a connector that takes up what
lies below, hidden layers that all see the embedding again, to-RGB; tanh last. No StyleGAN trick is used unless asked for.

`DECODERS` are the rungs of Table 4, from a plain INR that gets the latent beside the coordinates to this generator.

Legend: N images, C channels, E coordinate features, n rows of a Fourier matrix, r rank.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from inr import grid
from inr.decoders import DECODERS, FMM, GENERATED, SHARED
from inr.fmm import Modulation, Weights, check_rank
from inr.fourier import phases, plane
from inr.ops import dispatch
from inr.ops.block_cpu import AxisPhases, BlockLayer
from inr.ops.layer import product
from inr.refinement import ParentUpsample
from inr.synthesis import BaseGenerator, SynthesisNetwork, block_dtypes, check_options, check_resolution
from inr.trunk import Trunk, head

FOURIER_SCALE = 10  # of generated Fourier matrices
BIAS_SCALE = 0.2  # of generated biases, next to the weights of their layer


@dataclass(frozen=True)
class BlockSpec:
    """Shape of one block: its grid, width, hidden layers, rows of its Fourier matrix (0: raw coordinates); in_channels 0: the first."""

    grid: int
    in_channels: int
    channels: int
    hidden: int
    rows: int

    @property
    def name(self):
        """Blocks are named by their grids."""
        return self.grid

    @property
    def upsamples(self):
        """Whether it reads the grid below: all but the first do."""
        return self.in_channels > 0

    @property
    def layers(self):
        """Layers that take a w: the hidden ones, and the connector where there is something below."""
        return self.hidden + self.upsamples


def block_specs(resolution, width, decoder):
    """Blocks of the INR, coarse to fine; with width 512 those the paper gives for 256 and 1024 (appendix A), and a rule between.

    The first grid is half as fine as the image, and no finer than 128; each of the next is twice as fine. The first two blocks have 4
    layers of the full width, 3 each where there are more than two; blocks above 256 have 2 and are a quarter as wide as the block below.
    Fourier matrices have half as many rows as the block has channels up to the grid of 128, a quarter above. Without `multiscale` all
    layers run on the finest grid at full width.
    """
    check_resolution(resolution)
    grids = [min(128, resolution // 2)]
    while grids[-1] < resolution:
        grids.append(2 * grids[-1])
    hidden = [4, 4] if len(grids) == 2 else [3, 3, *[2] * (len(grids) - 2)]
    if not decoder.multiscale:
        return [BlockSpec(resolution, 0, width, sum(hidden), width // 2 if decoder.fourier else 0)]
    specs, below = [], 0
    for size, layers in zip(grids, hidden, strict=True):
        channels = max(width >> 2 * max(size.bit_length() - 9, 0), 1)  # 512 up to 256, 128 at 512, 32 at 1024
        specs.append(BlockSpec(size, below, channels, layers, max(channels // (2 if size <= 128 else 4), 1)))
        below = channels
    return specs


class RawCoordinates(nn.Module):
    """(x, y) themselves, moved to [-1, 1) so that no corner is special. Called as fourier.CoordinateFeatures is."""

    num_features = 2

    def rows(self, w):
        return torch.zeros([1, 0, 2], device=w.device), None

    def features(self, points, rows, shift, coordinates):
        return 2 * coordinates - 1  # [1, 2, H, W]

    def axis_phases(self, points, w):
        return AxisPhases.of(points, *self.rows(w), raw=(2 * points.x - 1, 2 * points.y - 1))

    def forward(self, points, w):
        return self.features(points, *self.rows(w), plane(points))


class GeneratedFourier(nn.Module):
    """e(p) = [sin(W p), cos(W p)], W n x 2 generated whole for every image and scaled by 10 (appendix C, eq. 1).

    Called as fourier.CoordinateFeatures is.
    """

    def __init__(self, n, w_dim, equalized):
        super().__init__()
        self.head, self.num_features = head(w_dim, 2 * n, equalized), 2 * n

    def rows(self, w):
        return FOURIER_SCALE * self.head(w).reshape(len(w), self.num_features // 2, 2), None

    def features(self, points, rows, shift, coordinates):
        angles = phases(rows, points, shift)
        return torch.cat([angles.sin(), angles.cos()], dim=1)  # [N, 2n, H, W]

    def axis_phases(self, points, w):
        return AxisPhases.of(points, *self.rows(w))

    def forward(self, points, w):
        return self.features(points, *self.rows(w), plane(points))


class InrLayer(nn.Module):
    """Weights [N, C_out, C_in] and biases [N, C_out] of one linear layer of the INR, for w [N, w_dim].

    weights: as in Decoder. 'shared' ones have their own bias; with `latent` the layer takes w as an input too: a bias of each image
    modulation: of 'fmm' weights
    gain, bias_gain: spread of the weights at the start and the factor of generated biases
    unit: generated numbers start at N(0, 1) for all images alike plus what w adds; else they start around 0
    equalized: parameters are stored at unit spread and scaled when used
    """

    def __init__(self, in_channels, out_channels, w_dim, weights, modulation, gain, bias_gain, latent=False, unit=False, equalized=False):
        super().__init__()
        self.shape, self.weights, self.modulation = (out_channels, in_channels), weights, modulation
        self.gain, self.bias_gain = gain, bias_gain
        own = {SHARED: 0, GENERATED: in_channels * out_channels, FMM: modulation.num_styles(in_channels, out_channels)}[weights]
        self.head = head(w_dim, own + out_channels, equalized) if weights != SHARED or latent else None
        if unit:
            nn.init.normal_(self.head.bias)
        self.stored = gain if equalized else 1  # what the stored shared weights are scaled by
        if weights != GENERATED:
            self.weight = nn.Parameter(torch.randn([out_channels, in_channels]) * (1 if equalized else gain))
        if weights == SHARED:
            self.bias = nn.Parameter((torch.rand([out_channels]) * 2 - 1) / math.sqrt(in_channels))

    def forward(self, w):
        C_out, C_in = self.shape
        if self.head is None:
            return (self.weight * self.stored).expand(len(w), -1, -1), self.bias.expand(len(w), -1)
        numbers = self.head(w)
        own, bias = numbers[:, :-C_out], numbers[:, -C_out:]
        if self.weights == SHARED:
            return (self.weight * self.stored).expand(len(w), -1, -1), bias + self.bias
        if self.weights == FMM:
            return self.modulation.weight(self.weight * self.stored, own), bias * self.bias_gain
        return own.reshape(-1, C_out, C_in) * self.gain, bias * self.bias_gain


class InrBlock(nn.Module):
    """The layers of one grid: connector, hidden layers, to-RGB. Called as synthesis.SynthesisBlock is.

    coord_skips: hidden layers see the coordinate features too; conv_clamp: limit of activations, or None; dtype: of the computation
    images: blocks that draw one, whose sum is the image
    """

    def __init__(self, spec, w_dim, img_channels, decoder, modulation, coord_skips, equalized, conv_clamp, images, dtype):
        super().__init__()
        self.spec, self.conv_clamp, self.dtype = spec, conv_clamp, dtype
        self.coords = GeneratedFourier(spec.rows, w_dim, equalized) if decoder.fourier else RawCoordinates()
        E, C = self.coords.num_features, spec.channels
        generated, raw = decoder.weights == GENERATED, not decoder.fourier

        def layer(in_channels, gain, bias_gain=None, **options):
            bias_gain = BIAS_SCALE * gain if bias_gain is None else bias_gain
            return InrLayer(
                in_channels, C, w_dim, decoder.weights, modulation, gain, bias_gain, unit=generated, equalized=equalized, **options
            )  # fmt: skip

        self.connector = None
        self.uses_coords = [coord_skips] * spec.hidden
        if spec.in_channels:
            gains = [math.sqrt(1 / channels) for channels in (spec.in_channels, E)]
            self.connector = nn.ModuleList(layer(c, gain, gain) for c, gain in zip((spec.in_channels, E), gains, strict=True))
        else:
            self.uses_coords[0] = True
        hidden = []
        for index, uses_coords in enumerate(self.uses_coords):
            first = index == 0 and not spec.in_channels
            seen = (0 if first else C) + (E if uses_coords else 0)
            gain = math.sqrt(2 / seen)
            options = dict(bias_gain=gain, latent=decoder.weights == SHARED) if first and raw else {}
            hidden.append(layer(seen, gain, **options))
        self.layers = nn.ModuleList(hidden)
        gain = math.sqrt(2 / C / images)
        weights = SHARED if decoder.weights == SHARED else GENERATED
        self.torgb = InrLayer(C, img_channels, w_dim, weights, modulation, gain, BIAS_SCALE * gain, unit=generated, equalized=equalized)

    def layer_params(self, w):
        """(weight [N, C_out, C_in], bias [N, C_out], whether it uses coordinates) of every layer; w: that of every layer and to-RGB."""
        params, w = [], list(w)
        if self.connector is not None:  # its two layers are one on [x; e]
            of_x, of_e = (layer(w[0]) for layer in self.connector)
            params.append((torch.cat([of_x[0], of_e[0]], dim=2), of_x[1] + of_e[1], True))
            w.pop(0)
        hidden = zip(self.layers, w[: len(self.layers)], self.uses_coords, strict=True)
        return params + [(*layer(each), uses_coords) for layer, each, uses_coords in hidden]

    def forward(self, x, img, ws, points, noise_mode='const', force_fp32=False, impl='auto', keep=True):
        """x [N, C, h, w] or None, img likewise, ws [N, layers + 1, w_dim] -> (x [N, C, H, W], img [N, channels, H, W]); no noise.

        impl, keep: as in synthesis.SynthesisBlock
        """
        dtype = torch.float32 if force_fp32 else self.dtype
        upsample = None if self.connector is None else ParentUpsample(points)
        return dispatch.compute(
            impl, self, x, img, ws, points, upsample, dtype, keep,
            lambda: self._by_layers(x, img, ws.unbind(1), points, upsample, dtype, impl),
        )  # fmt: skip

    def chain(self, w, affine=None):
        """(BlockLayers, that of to-RGB); w: [N, w_dim] of every layer and to-RGB; affine: not needed, see blocks.SynthesisBlock."""
        layers = [
            BlockLayer(Weights(weight), bias, uses_coords, 0.0, clamp=self.conv_clamp) for weight, bias, uses_coords in self.layer_params(w)
        ]
        weight, bias = self.torgb(w[len(layers)])  # [N, img_channels, C], [N, img_channels]
        return layers, BlockLayer(Weights(weight), bias, False, 1.0)

    def _by_layers(self, x, img, w, points, upsample, dtype, impl):
        features = self.coords(points, w[0]).to(dtype)  # [N or 1, E, H, W]
        x, layers = None if x is None else x.to(dtype), self.layer_params(w)
        for index, (weight, bias, uses_coords) in enumerate(layers):
            seen = features if uses_coords else None
            x = dispatch.layer(
                weight.to(dtype), bias, x, seen, None if index else upsample, None, 0.0, 1.0, self.conv_clamp, impl
            )  # [N, C, H, W]
        weight, bias = (numbers.to(dtype) for numbers in self.torgb(w[len(layers)]))
        rgb = (product(weight, x) + bias[:, :, None, None]).float()  # [N, img_channels, H, W]
        return x, rgb if img is None else upsample(img) + rgb


def build_synthesis(
    w_dim, img_resolution, img_channels, decoder='multiscale', fmm_rank=10, coord_skips=True, equalized_lr=False, channel_base=None,
    channel_max=512, num_fp16_res=0, conv_clamp=None, fp16_channels_last=False, half_dtype='float16', img_size=None,
):  # fmt: skip
    """SynthesisNetwork of generator A.

    decoder: a name of DECODERS; fmm_rank: rank of FMM, or 'full' (see fmm.Modulation)
    coord_skips: hidden layers see the coordinate features, not only the first layer of a block; equalized_lr: of all layers
    channel_max: channels of the widest layers; the others follow, see block_specs. channel_base and fp16_channels_last: for hosts' sake
    num_fp16_res, half_dtype: see synthesis.block_dtypes; conv_clamp: limit on activations, or None; img_size: see BaseGenerator
    Raises ValueError for a resolution or an option outside its range.
    """
    if decoder not in DECODERS:
        raise ValueError(f"unknown decoder '{decoder}'; choose one of {', '.join(DECODERS)}")
    if fmm_rank is None or channel_max < 1:
        raise ValueError(f"generator A needs a rank of FMM and at least 1 channel, not fmm_rank={fmm_rank} and channel_max={channel_max}")
    specs = block_specs(img_resolution, channel_max, DECODERS[decoder])
    modulation = Modulation(fmm_rank, '2sigmoid', equalized=False)
    dtypes = block_dtypes([spec.grid for spec in specs], num_fp16_res, half_dtype)
    blocks = [
        InrBlock(spec, w_dim, img_channels, DECODERS[decoder], modulation, coord_skips, equalized_lr, conv_clamp, len(specs), dtype)
        for spec, dtype in zip(specs, dtypes, strict=True)
    ]
    if DECODERS[decoder].weights == FMM:
        check_rank(fmm_rank, max(layer.shape[1] for block in blocks for layer in block.layers))
    convention = replace(grid.GENERATOR_A, extent=grid.extent_of(img_resolution, img_size))
    return SynthesisNetwork(w_dim, img_resolution, img_channels, blocks, convention, activation=torch.tanh)


class Generator(BaseGenerator):
    """INR-GAN's generator A.

    z_dim, c_dim: sizes of latent and label (0 for none); w_dim: width of the trunk (1024 in the paper)
    img_resolution: training resolution, a power of two from 16 to 1024; img_channels: any
    mapping_kwargs: see Trunk; synthesis_kwargs: see build_synthesis, and `pixel_norm` as in Trunk
    """

    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs=None, synthesis_kwargs=None, img_size=None):
        super().__init__(z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs, synthesis_kwargs, img_size)
        mapping_kwargs, synthesis_kwargs = dict(mapping_kwargs or {}), dict(synthesis_kwargs or {})
        pixel_norm, equalized_lr = synthesis_kwargs.pop('pixel_norm', False), synthesis_kwargs.get('equalized_lr', False)
        check_options(synthesis_kwargs, build_synthesis)
        if img_size:
            synthesis_kwargs['img_size'] = img_size
        self.synthesis = build_synthesis(w_dim, img_resolution, img_channels, **synthesis_kwargs)
        self.num_ws = self.synthesis.num_ws
        self.mapping = Trunk(z_dim, c_dim, w_dim, self.num_ws, pixel_norm=pixel_norm, equalized_lr=equalized_lr, **mapping_kwargs)

    def parameter_groups(self):
        """Parameters by learning rate: 'trunk' makes an image's own parameters, 'inr' are those of the INR that all images share."""
        shared = [layer for layer in self.modules() if isinstance(layer, InrLayer)]
        of_inr = {id(p) for layer in shared for p in layer.parameters(recurse=layer.weights == SHARED)}
        groups = {'trunk': [], 'inr': []}
        for parameter in self.parameters():
            groups['inr' if id(parameter) in of_inr else 'trunk'].append(parameter)
        return groups
