"""Who computes an FMM layer: `impl='auto'|'ref'|'fused'|'cuda'` chooses, and never what comes out."""

import functools
import warnings

from inr.ops import drawing, native

IMPLS = ('auto', 'ref', 'fused', 'cuda')


def check(impl):
    """Raises ValueError for a name that is not one of IMPLS."""
    if impl not in IMPLS:
        raise ValueError(f"impl={impl!r} is not known: use {', '.join(IMPLS[:-1])} or {IMPLS[-1]}")


def draws_whole_blocks(impl, block, points, dtype, tensors, by_layers=None):
    """Whether `impl` means ops.drawing here. by_layers: why layers must be computed one by one, or None; the rest as there.

    Raises RuntimeError for 'fused' and 'cuda' where they cannot be had.
    """
    check(impl)
    if impl == 'ref':
        return False
    if impl == 'cuda':
        raise RuntimeError("impl='cuda' cannot be had: this build has no CUDA kernels of FMM layers; use impl='auto'")
    why = by_layers or drawing.why_not(block, points, dtype, tensors)
    if why and impl == 'fused':
        raise RuntimeError(f"impl='fused' cannot be had for this block: {why}; use impl='auto'")
    return not why and compiled(impl)


def compiled(impl):
    """Whether there is compiled CPU code; if not, 'auto' warns once and 'fused' raises RuntimeError."""
    try:
        native.library()
    except native.Unavailable as why:
        if impl == 'fused':
            raise
        _warn(str(why))
        return False
    return True


def compute(impl, block, given, points, dtype, by_layers, drawn, plain):
    """drawn(), with plain's gradients, where `impl` means ops.drawing for this block, else plain(): functions that return (x, img).

    given: what comes into the block, tensors or None; the rest as in draws_whole_blocks
    """
    given = [tensor for tensor in given if tensor is not None]
    if draws_whole_blocks(impl, block, points, dtype, given, by_layers):
        return drawing.run(block, given, drawn, plain)
    return plain()


@functools.cache
def _warn(why):
    warnings.warn(f'layers are computed by plain PyTorch, which is slower: {why}', stacklevel=2)
