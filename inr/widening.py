"""A generator with more random rows of coordinates out of one with fewer: where the tensors of the latter stand in those of the former.

The columns of the new features begin at zero, so what is drawn is what was drawn. Rows that were there are the first ones; that is how
`inr-any` (fine rows) goes on from `inr-small`.
"""

import re

import torch

from inr.fmm import FULL

KEY = re.compile(r'synthesis\.(b\d+)\.(?:(coords\.random_basis)|layers\.(\d+)\.(weight|affine\.weight|affine\.bias))')


def place(G, key, shapes):
    """(index, fills): G's tensor `key` at `index` is what the other's of this name holds; fills: the number for its rest, None to leave it.

    None where it is not such a tensor, and for layers whose shapes differ by more than the random rows. G: generator.Generator, on any
    device; shapes: {name: shape} of the other's tensors
    """
    match, shape = KEY.fullmatch(key), tuple(shapes[key])
    block = G.synthesis.get_submodule(match[1]) if match and match[1] in G.synthesis.block_names else None
    if block is None or getattr(block.coords, 'random_basis', None) is None or not shape:
        return None
    if match[3] and not (int(match[3]) < len(block.layers) and block.uses_coords[int(match[3])]):
        return None
    own = G.get_parameter(key).shape if match[3] else block.coords.random_basis.shape
    kept = 2 if match[4] == 'weight' else 1  # dimensions from here on are those of any width
    if len(own) != len(shape) or shape[0] > own[0] or own[kept:] != shape[kept:]:
        return None
    if match[2]:
        return slice(shape[0]), None
    layer = block.layers[int(match[3])]
    C_out, K = layer.weight.shape[:2]
    rank = layer.modulation.rank
    had = shapes.get(f'synthesis.{match[1]}.coords.random_basis', [0])
    missing = len(block.coords.random_basis) - had[0]
    if match[4] == 'weight':
        found = None if shape[0] != C_out else _columns(block, layer, shape[1], missing)
        return None if found is None else ((slice(None), found), 0)
    before = 0 if rank in (None, FULL) else C_out * rank  # numbers of A, which has no columns
    times = 1 if rank is None else C_out if rank == FULL else rank
    columns, rest = divmod(shape[0] - before, times)
    found = None if rest else _columns(block, layer, columns, missing)
    if found is None:
        return None
    of_columns = before + torch.arange(times)[:, None] * K + found
    return torch.cat([torch.arange(before), of_columns.flatten()]), None


def _columns(block, layer, fewer, missing):
    """int64 [fewer]: the columns of a layer that one with `fewer` has, for it has `missing` random rows less; None if that is not why."""
    coords, K = block.coords, layer.weight.shape[1]
    spec, waves = coords.spec, 1 + coords.spec.cosine
    if missing < 1 or K - fewer != missing * waves or layer.modulation.gain(K) != layer.modulation.gain(fewer):
        return None
    first = len(coords.log_basis) + len(coords.random_basis) - missing  # of the rows that are missing
    of_waves = K - spec.constants - waves * (rows := (coords.num_features - 2 * spec.raw - spec.constants) // waves)
    new = {of_waves + wave * rows + first + i for wave in range(waves) for i in range(missing)}
    return torch.tensor([column for column in range(K) if column not in new])
