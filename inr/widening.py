"""A generator with more channels, or more random rows of coordinates, out of one with fewer, which draws the same: where the tensors of the
latter stand in those of the former (function-preserving growth, Net2Net, arXiv 1511.05641, in kind).

Weights from what is new begin at zero, so that nothing that was there sees it; weights to new channels are as initialized, so that they
learn. Channels and rows that were there are the first ones. So `inr-any` (fine rows) and `inr-medium` (channels) go on from `inr-small`.

Legend: C channels, E coordinate features, K = C_in + E columns of a layer, r rank.
"""

import math
import re
from dataclasses import dataclass
from operator import attrgetter

import torch

from inr.fmm import FULL

KEY = re.compile(r'synthesis\.(b\d+)\.(?:(coords\.random_basis)|layers\.(\d+)\.(weight|bias|affine\.weight|affine\.bias)'
                 r'|(torgb)\.(weight|affine\.weight|affine\.bias))')


@dataclass(frozen=True)
class Place:
    """Where a tensor stands in a larger one: larger[zero] = 0 (unless zero is None), then larger[index] = tensor * times."""

    index: object
    zero: object = None
    times: float = 1.0

    def fill(self, larger, tensor):
        """Writes `tensor` to its place in `larger`, in place."""
        if self.zero is not None:
            larger[self.zero] = 0
        larger[self.index] = tensor.to(larger) * self.times


def place(G, key, shapes):
    """Place of what another generator holds as `key` in G's tensor of this name.

    None where it is no such tensor, where the shapes differ by more than channels and random rows, and where w has another width, so that
    the other's modulation has no place.
    G: generator.Generator, on any device; shapes: {name: shape} of the other's tensors
    """
    match = KEY.fullmatch(key)
    block = G.synthesis.get_submodule(match[1]) if match and match[1] in G.synthesis.block_names else None
    if block is None:
        return None
    name, basis, index, of_layer, torgb, of_torgb = match.groups()
    if basis and getattr(block.coords, 'random_basis', None) is None or index and int(index) >= len(block.layers):
        return None
    own, shape, what = attrgetter(key.removeprefix(f'synthesis.{name}.'))(block), tuple(shapes[key]), of_layer or of_torgb
    kept = 2 if what == 'weight' else 1  # dimensions from here on are the same in any width
    if len(own.shape) != len(shape) or own.shape[kept:] != shape[kept:] or any(map(int.__gt__, shape, own.shape)):
        return None
    if basis:
        return Place(slice(shape[0]))
    part = block.torgb if torgb else block.layers[int(index)]
    affine = shapes.get(f'{key.removesuffix(what)}affine.weight', [])
    if len(affine) != 2 or affine[1] != part.affine.weight.shape[1]:
        return None
    if torgb:
        return _of_torgb(part, what, shape, _size(shapes, name, len(block.layers) - 1)[0])
    return _of_layer(G, name, int(index), what, shapes, shape)


def _size(shapes, name, index):
    """(outputs, columns) of a layer of the other's, (0, 0) if it has no such layer."""
    shape = shapes.get(f'synthesis.{name}.layers.{index}.weight', [])
    return tuple(shape[:2]) if len(shape) == 4 and min(shape) > 0 else (0, 0)


def _of_torgb(torgb, what, shape, had):
    if not had or had != shape[1 if what == 'weight' else 0]:
        return None
    if what != 'weight':
        return Place(slice(had))
    equalized = torgb.weight_gain != 1  # see ablations.plain_learning_rates
    return Place((slice(shape[0]), slice(had)), slice(shape[0]), math.sqrt(torgb.weight.shape[1] / had) if equalized else 1.0)


def _of_layer(G, name, index, what, shapes, shape):
    block = G.synthesis.get_submodule(name)
    layer, names = block.layers[index], G.synthesis.block_names
    C_out, K = layer.weight.shape[:2]
    rows, had = _size(shapes, name, index)
    below = block if index else G.synthesis.get_submodule(names[names.index(name) - 1]) if name != names[0] else None
    channels = 0 if below is None else _size(shapes, f'b{below.spec.name}', (index or len(below.layers)) - 1)[0]
    if not rows or rows > C_out or (below is not None and not channels):
        return None
    columns = _columns(block, index, channels, had, shapes)
    if columns is None:
        return None
    gain = layer.modulation.gain
    if what == 'weight':
        return Place((torch.arange(rows)[:, None], columns), slice(rows), gain(had) / gain(K)) if shape[:2] == (rows, had) else None
    if what == 'bias':
        return Place(slice(rows)) if shape[0] == rows else None
    rank = layer.modulation.rank
    left = 0 if rank in (None, FULL) else rank  # columns of A, which has a row for each output
    groups = 1 if rank is None else rows if rank == FULL else rank  # rows of B, or of A for rank 'full', which have a column for each input
    if shape[0] != rows * left + groups * had:
        return None
    of_columns = C_out * left + torch.arange(groups)[:, None] * K + columns
    return Place(torch.cat([torch.arange(rows * left), of_columns.flatten()]))


def _columns(block, index, channels, had, shapes):
    """int64 [had]: the columns of a layer that the other's has, which reads so many channels from below; None if they do not match.

    had: columns of the other's layer
    """
    layer = block.layers[index]
    K = layer.weight.shape[1]
    E = block.coords.num_features if block.uses_coords[index] else 0
    if channels > K - E:
        return None
    features = had - channels
    if features == E:
        return torch.cat([torch.arange(channels), torch.arange(K - E, K)])
    coords = block.coords
    if E == 0 or getattr(coords, 'random_basis', None) is None:
        return None
    spec, waves = coords.spec, 1 + coords.spec.cosine
    had_rows = shapes.get(f'synthesis.b{block.spec.name}.coords.random_basis', [0])
    missing = len(coords.random_basis) - (had_rows[0] if len(had_rows) else 0)
    if missing < 1 or E - features != missing * waves:
        return None
    first = len(coords.log_basis) + len(coords.random_basis) - missing  # of the rows that are missing
    count = (E - 2 * spec.raw - spec.constants) // waves
    of_waves = E - spec.constants - waves * count
    new = {of_waves + wave * count + first + i for wave in range(waves) for i in range(missing)}
    return torch.cat([torch.arange(channels), torch.tensor([K - E + i for i in range(E) if i not in new])])
