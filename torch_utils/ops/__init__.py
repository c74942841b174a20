"""Differentiable operators with one API each: `impl='auto'|'ref'|'cuda'` chooses who computes them, never what comes out.

The plain PyTorch implementations here ('ref') run on every device and dtype and are the reference for whatever is faster.
"""


def check_impl(impl):
    """Refuse an implementation that cannot be had; 'auto' and 'ref' both mean plain PyTorch in this build."""
    if impl == 'cuda':
        raise RuntimeError("impl='cuda' is not available in this build: use impl='auto' or impl='ref'")
    if impl not in ('auto', 'ref'):
        raise ValueError(f"impl={impl!r} is not known: use 'auto', 'ref' or 'cuda'")
