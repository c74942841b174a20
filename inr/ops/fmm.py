"""Who computes FMM layers: `impl='auto'|'ref'|'fused'|'cuda'` chooses, and never what comes out.

'ref': PyTorch's own operators; 'fused': compiled CPU code; 'cuda': kernels of a GPU; 'auto': the one that fits the device, or 'ref' where
that cannot be had, with one warning. A forced implementation that cannot be had is a RuntimeError of one line.
"""

import functools
import warnings

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from inr.ops import drawing, layer_cpu, native
from inr.ops.layer import Activation, Fused, plain, product

IMPLS = ('auto', 'ref', 'fused', 'cuda')
HOW = {'fused': 'compiled CPU code', 'cuda': 'kernels of a GPU'}


def layer(weight, bias=None, x=None, features=None, read=None, noise=None, slope=0.2, gain=1.0, clamp=None, impl='auto'):
    """An FMM layer: y = clamp(gain * lrelu(read(W_x x) + W_e e + noise + b)), differentiable in any order (INR-GAN, appendix A and E).

    weight: W = [W_x, W_e], [N, C_out, C + E] in the type to compute in: float32, bfloat16 or float16; see inr.fmm for what makes it
    bias: [C_out] or [N, C_out], or None
    x: [N, C, h, w] of the type of weight, or None; features: e [N or 1, E, H, W] likewise, or None
    read: how values of the grid below, which x then is of, reach the points: a function of a tensor whose attribute `doubles` says
        whether it holds every value by 2x2 points; None: x is of the points themselves
    noise: [N or 1, 1, H, W] to be added, or None
    slope: of lrelu below 0, >= 0; gain: > 0, after it; clamp: limit of |y|, or None
    Returns [N, C_out, H, W]. Raises ValueError for an unknown impl, RuntimeError for one that cannot be had.
    """
    below, up = None, 1
    if x is not None and read is not None:
        C = x.shape[1]
        below, x, weight = product(weight[:, :, :C], x), None, weight[:, :, C:]
        up = 2 if read.doubles and noise is None else 1
        below = below if up == 2 else read(below)
    if noise is not None:
        below = noise if below is None else below + noise
    kernels = kernels_for(impl, weight.dtype, weight.device)
    act = Activation(slope, gain, clamp)
    if kernels is None:
        return plain(weight, bias, x, features, below, up, act)
    if noise is not None:
        below = below.expand(*weight.shape[:2], -1, -1)
    return Fused.apply(kernels, weight, bias, x, features, below, up, act)


def kernels_for(impl, dtype, device):
    """The module whose kernels `impl` means for layers that compute in dtype on device; None for plain operators."""
    check(impl)
    if impl == 'ref':
        return None
    wanted = impl if impl != 'auto' else {'cpu': 'fused', 'cuda': 'cuda'}.get(device.type)
    why = wanted is None or _why_not(wanted, dtype, device)
    if why and impl != 'auto':
        raise RuntimeError(f"impl='{impl}', {HOW[impl]}, cannot be had: {why}; use impl='auto'")
    if why or not compiled(impl):
        return None
    return layer_cpu


def _why_not(impl, dtype, device):
    """Why a layer cannot be computed so, in one line, or None."""
    if _get_current_dispatch_mode() is not None or torch.compiler.is_compiling():
        return 'its operators are being recorded'
    if device.type != {'fused': 'cpu', 'cuda': 'cuda'}[impl]:
        return f'its tensors are on {device}'
    if impl == 'fused' and dtype not in (torch.float32, torch.bfloat16):
        return f'it computes in float32 and bfloat16, not in {dtype}'
    return None


def check(impl):
    """Raises ValueError for a name that is not one of IMPLS."""
    if impl not in IMPLS:
        raise ValueError(f"impl={impl!r} is not known: use {', '.join(IMPLS[:-1])} or {IMPLS[-1]}")


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
    """drawn(), with plain's gradients, where ops.drawing can draw this block whole, else plain(): functions that return (x, img).

    given: what comes into the block, tensors or None; by_layers: why its layers must be computed one by one, or None
    """
    check(impl)
    given = [tensor for tensor in given if tensor is not None]
    if impl in ('auto', 'fused') and not (by_layers or drawing.why_not(block, points, dtype, given)) and compiled(impl):
        return drawing.run(block, given, drawn, plain)
    return plain()


@functools.cache
def _warn(why):
    warnings.warn(f'layers are computed by plain PyTorch, which is slower: {why}', stacklevel=2)
