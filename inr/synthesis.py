"""The skeleton of both decoders: w -> image through blocks of layers, coarse grids to fine ones (INR-GAN, appendix A).

Blocks are named by resolution as StyleGAN2's are. Those of one grid run on the same points; a block of a finer grid doubles features and
RGB of its parent, the grid below. What a block is made of: blocks.py (generator B), hypernetwork.py (generator A).

Legend: N images, C channels, H and W rows and columns of points.
"""

import difflib
import inspect
import json
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from inr import grid, refinement
from inr.ops.layer import double

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


@dataclass(frozen=True)
class ParentUpsample:
    """How values at the points of the grid below, [N, C, h, w], reach `points`: [N, C, H, W]. upsampling: see refinement.plan."""

    points: grid.Points
    upsampling: str = 'nearest'

    @property
    def doubling(self):
        """'nearest' or 'linear' where grids are doubled whole, in one of ops.layer.DOUBLINGS; else None."""
        return self.upsampling if self.points.doubled and self.upsampling != 'bilinear' and not self.points.crop else None

    @property
    def axes(self):
        """The same as (rows, columns), two refinement.AxisRead."""
        if not self.points.doubled:
            return self.points.parent
        return tuple(refinement.doubled(size, self.upsampling, self.points.x.device) for size in self.points.shape)

    def __call__(self, x):
        if self.doubling is not None:
            return double(x, self.doubling)
        if crop := self.points.crop:
            return double(x, self.upsampling)[:, :, crop:-crop, crop:-crop]
        if self.points.doubled:
            return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=True)
        rows, cols = self.points.parent
        return rows(cols(x, dim=3), dim=2)


def no_axis_phases(coords):
    """Why features cannot be made from sines along the axes, or None; coords: what makes them, or None."""
    return None if coords is None or hasattr(coords, 'axis_phases') else 'its coordinates are moved'


class SynthesisNetwork(nn.Module):
    """w -> image. `forward` draws the trained grid; `draw` draws any points (`plan` says which; render.py is the way for users).

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

    def forward(self, ws, noise_mode='random', force_fp32=False, impl='auto', resolution=None, windows=None):
        """ws [N, num_ws, w_dim] -> image [N, img_channels, R, R], float32 in about [-1, 1].

        noise_mode: 'random', 'const' or 'none'; only networks built with spatial noise have any
        impl: who computes the layers, to-RGB apart: 'auto', 'ref', 'fused' or 'cuda', see ops.dispatch
        resolution: R, img_resolution if None. What is smaller is drawn by the blocks whose grid is no finer, at fewer points if all are
        windows: [N, 3] (size, left, top), the parts to draw in place of the whole image, see refinement.window_points; None for that
        Raises ValueError for ws of another shape, another noise_mode, a resolution that is neither a grid's nor below all, and windows of
        a network that draws none.
        """
        if windows is not None:
            if not self.draws_windows:
                raise ValueError("this network draws no windows in training: its pixels depend on each other, or read with corners aligned")
            points = refinement.window_points(windows, self.grids, self.convention, ws.device, self.upsampling)
        elif resolution is None or resolution in self.grids:
            points = self.training_points(ws.device, self.grids[: None if resolution is None else self.grids.index(resolution) + 1])
        elif 4 <= resolution < self.grids[0]:
            points = self.plan(grid.lattice(resolution, resolution, convention=self.convention), device=ws.device, grids=self.grids[:1])
        else:
            raise ValueError(f'resolution={resolution}: this network draws {", ".join(map(str, self.grids))} and less than the first')
        return self.draw(ws, points, noise_mode, force_fp32, impl)

    @property
    def draws_windows(self):
        """Whether `forward` takes windows."""
        return self.pointwise and self.upsampling != 'bilinear'

    def training_points(self, device=None, grids=None):
        """The points of the trained grids, as `draw` takes them; grids: the first of the network's own, all if None."""
        grids = grids or self.grids
        if any(self.convention.periodic) and self.upsampling == 'linear':  # cells at an end are read with those at the other
            return self.plan(grid.lattice(grids[-1], grids[-1], convention=self.convention), device=device, grids=grids)
        return grid.training_points(grids, self.convention, device)

    def plan(self, points, refine='all', device=None, grids=None):
        """The points that drawing a grid.Lattice needs of every grid, as `draw` takes them; refine: see refinement.plan.

        grids: the first of the network's own, all if None
        """
        return refinement.plan(points, grids or self.grids, refine, self.convention, device, self.upsampling)

    def draw(self, ws, points_per_grid, noise_mode='const', force_fp32=False, impl='auto'):
        """ws [N, num_ws, w_dim] -> image [N, img_channels, H, W] at the points of the finest grid.

        points_per_grid: grid.Points of every grid, coarse to fine, as `plan` gives them. Fewer than there are grids draw what the blocks of
            the coarser grids draw.
        """
        if noise_mode not in ('random', 'const', 'none'):
            raise ValueError(f"unknown noise_mode '{noise_mode}'; choose random, const or none")
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f'ws of shape {list(ws.shape)}; this network takes [N, {self.num_ws}, {self.w_dim}]')
        x = img = None
        ws = ws.to(torch.float32)
        first = 0
        names = [name for name in self.block_names if self.grids.index(getattr(self, name).spec.grid) < len(points_per_grid)]
        for name in names:
            block = getattr(self, name)
            points = points_per_grid[self.grids.index(block.spec.grid)]
            own = ws[:, first : first + block.spec.layers + 1]
            x, img = block(x, img, own, points, noise_mode, force_fp32, impl, keep=name != names[-1])
            first += block.spec.layers
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
