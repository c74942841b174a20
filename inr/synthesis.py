"""The skeleton of both decoders: w -> image through blocks of layers, coarse grids to fine ones (INR-GAN, appendix A).

Blocks are named by resolution as StyleGAN2's are. Those of one grid run on the same points; a block of a finer grid doubles features and
RGB of its parent, the grid below. What a block is made of: blocks.py (generator B), hypernetwork.py (generator A).

Legend: N images, C channels, L layers of a block, R resolution, H and W rows and columns of points.
"""

import difflib
import inspect
import json

import torch
from torch import nn

from inr.pyramid import Pyramid
from inr.windows import packed, unpacked

MIN_RESOLUTION, MAX_RESOLUTION = 16, 1024


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


class SynthesisNetwork(nn.Module):
    """w -> image. `forward` draws the trained grid; `draw` draws any points (`pyramid` says which; render.py is the way for users).

    blocks: coarse to fine, modules called as a SynthesisBlock is, whose `spec` has name, grid, channels and layers; each takes a w for
        every layer, and its to-RGB takes that of the next block's first layer
    convention: of the grids (grid.Convention); upsampling: how every grid reads the one below, see refinement.plan
    pointwise: each pixel is a function of its own point alone; activation: of the image, or None
    """

    def __init__(self, w_dim, img_resolution, img_channels, blocks, convention, upsampling='nearest', pointwise=True, activation=None):
        super().__init__()
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.pointwise, self.activation = pointwise, activation
        self.num_ws = sum(block.spec.layers for block in blocks) + 1
        self.pyramid = Pyramid(tuple(sorted({block.spec.grid for block in blocks})), convention, upsampling)
        self.img_size = convention.shape(img_resolution)[::-1]
        self.block_names = [f'b{block.spec.name}' for block in blocks]
        for name, block in zip(self.block_names, blocks, strict=True):
            self.add_module(name, block)

    @property
    def draws_windows(self):
        """Whether `forward` takes windows."""
        return self.pointwise and self.pyramid.upsampling != 'bilinear'

    def forward(self, ws, noise_mode='random', force_fp32=False, impl='auto', resolution=None, windows=None):
        """ws [N, num_ws, w_dim] -> image [N, img_channels, H, W], float32 in about [-1, 1].

        noise_mode: 'random', 'const' or 'none'; only networks built with spatial noise have any
        impl: who computes the layers, to-RGB apart: 'auto', 'ref', 'fused' or 'cuda', see ops.dispatch
        resolution: R, img_resolution if None. What is smaller is drawn by the blocks whose grid is no finer, at fewer points if all are
        windows: [N, 3] (size, left, top), the parts to draw in place of the whole image, see windows.window_points, or what `places` makes
            of them; None for the whole image
        Raises ValueError for ws of another shape, another noise_mode, a resolution that is neither a grid's nor below all, and windows of
        a network that draws none.
        """
        if windows is not None and not self.draws_windows:
            raise ValueError('this network draws no windows in training: its pixels depend on each other, or read with corners aligned')
        if isinstance(windows, tuple):
            whole = torch.tensor([[self.pyramid.sizes[-1], 0, 0]]).expand(len(ws), -1)
            points = unpacked(windows, self.pyramid.points(windows=whole))
        else:
            points = self.pyramid.points(ws.device, resolution, windows)
        return self.draw(ws, points, noise_mode, force_fp32, impl)

    def places(self, windows):
        """Where windows [N, 3] are, as two flat tensors, float32 and int64, of the same shapes for any N windows: what kernels that were
        recorded with other windows read. Raises ValueError as `forward` does."""
        return packed(self.pyramid.points(windows=windows))

    def draw(self, ws, points_per_grid, noise_mode='const', force_fp32=False, impl='auto'):
        """ws [N, num_ws, w_dim] -> image [N, img_channels, H, W] at the points of the finest grid.

        points_per_grid: grid.Points of every grid, coarse to fine, as `pyramid` gives them. Fewer than there are grids draw what the blocks
            of the coarser grids draw.
        """
        if noise_mode not in ('random', 'const', 'none'):
            raise ValueError(f"unknown noise_mode '{noise_mode}'; choose random, const or none")
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f'ws of shape {list(ws.shape)}; this network takes [N, {self.num_ws}, {self.w_dim}]')
        points_of = dict(zip(self.pyramid.sizes, points_per_grid, strict=False))
        blocks = [block for block in map(self.get_submodule, self.block_names) if block.spec.grid in points_of]
        x = img = None
        ws, first = ws.to(torch.float32), 0
        for block in blocks:
            own = ws[:, first : first + block.spec.layers + 1]  # [N, L + 1, w_dim]
            x, img = block(x, img, own, points_of[block.spec.grid], noise_mode, force_fp32, impl, keep=block is not blocks[-1])
            first += block.spec.layers  # x [N, C, H, W], img [N, img_channels, H, W]
        return img if self.activation is None else self.activation(img)


def check_options(given, build, more=()):
    """Raises ValueError for the first key of `given` that neither the function `build` nor `more` knows, with the nearest one that is."""
    known = [*inspect.signature(build).parameters, *more]
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean '{near[0]}'?" if near else f'known are {", ".join(known)}'
            raise ValueError(f"unknown option '{key}' of synthesis_kwargs; {hint}")


class BaseGenerator(nn.Module):
    """What both generators of this package share: arguments, attributes and the forward pass, as stylegan2-ada-pytorch has them.

    A subclass adds `mapping` and `synthesis`. `init_kwargs` are the arguments as JSON would hold them.
    img_size: (width, height) of images that are no squares of img_resolution pixels, see grid.extent_of
    """

    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs, synthesis_kwargs, img_size=None):
        super().__init__()
        arguments = dict(
            z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, img_resolution=img_resolution, img_channels=img_channels,
            mapping_kwargs=dict(mapping_kwargs or {}), synthesis_kwargs=dict(synthesis_kwargs or {}),
            **({'img_size': list(img_size)} if img_size else {}),
        )  # fmt: skip
        self.init_kwargs = json.loads(json.dumps(arguments))
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels

    @property
    def img_size(self):
        """(width, height) of the images."""
        return self.synthesis.img_size

    def forward(self, z, c=None, truncation_psi=1, truncation_cutoff=None, **synthesis_kwargs):
        """z [N, z_dim], c [N, c_dim] or None -> image [N, img_channels, H, W]."""
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, **synthesis_kwargs)
