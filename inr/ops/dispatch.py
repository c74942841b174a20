"""Who computes FMM layers: `impl='auto'|'ref'|'fused'|'cuda'` chooses, and never what comes out.

'ref': PyTorch's own operators; 'fused': compiled CPU code; 'cuda': kernels of a GPU; 'auto': the one that fits the device, or 'ref' where
that is not available, with one warning. A forced implementation that is not available is a RuntimeError of one line. Layers compute in
their own types: autocast does not reach them.
"""

import functools
import warnings

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from inr.ops import block_cpu, layer_cpu, native
from inr.ops.layer import Activation, Fused, own_types, plain, product

IMPLS = ('auto', 'ref', 'fused', 'cuda')
DTYPES = {'fused': (torch.float32, torch.bfloat16), 'cuda': (torch.float32, torch.bfloat16, torch.float16)}
HOW = {'fused': 'compiled CPU code', 'cuda': 'kernels of a GPU'}


def layer(
    weight, bias=None, x=None, features=None, upsample=None, noise=None, slope=0.2, gain=1.0, clamp=None, impl='auto', remake=None
):  # fmt: skip
    """An FMM layer: y = clamp(gain * lrelu(upsample(W_x x) + W_e e + noise + b)), differentiable in any order (INR-GAN, appendix A and E).

    weight: W = [W_x, W_e], [N, C_out, C + E] in the type to compute in: float32, bfloat16 or float16; see inr.fmm for what makes it
    bias: [C_out] or [N, C_out], or None
    x: [N or 1, C, h, w] of the type of weight, or None; features: e [N or 1, E, H, W] likewise, or None
    upsample: how values of the grid below, which x then is of, reach the points: a function of a tensor whose attribute `doubling` names
        the one of layer.DOUBLINGS that it is, or is None; None: x is of the points themselves
    noise: [N or 1, 1, H, W] to be added, or None
    slope: of lrelu below 0, >= 0; gain: > 0, after it; clamp: limit of |y|, or None
    remake: a function that makes `features`, without gradients, once more for the backward pass, instead of keeping them; or None
    Returns [N, C_out, H, W]. Raises ValueError for an unknown impl and for tensors that do not fit, RuntimeError for an impl that is not
    available.
    """
    _check_tensors(weight, bias, x, features, slope, gain)
    if remake and (features is None or features.requires_grad):
        raise ValueError('FMM layer: features are made once more only where there are some, and they have no gradients')
    remake = torch.no_grad()(remake) if remake else None
    with own_types(weight.device):
        return _layer(weight, bias, x, features, upsample, noise, Activation(slope, gain, clamp), impl, remake)


def _layer(weight, bias, x, features, upsample, noise, act, impl, remake):
    kernels, parent, up = kernels_for(impl, weight.dtype, weight.device), None, None
    if x is not None and upsample is not None:
        C = x.shape[1]
        parent, x, weight = product(weight[:, :, :C], x), None, weight[:, :, C:]  # [N, C_out, h, w]
        up = upsample.doubling if noise is None and (kernels is None or upsample.doubling in kernels.DOUBLINGS) else None
        parent = parent if up else upsample(parent)  # [N, C_out, H, W] unless up
    if noise is not None:
        noise = noise.to(weight.dtype)  # [N or 1, 1, H, W]
        parent = noise if parent is None else parent + noise
    given = ((x, 1), (features, 1), (parent, 2 if up else 1))
    sizes = {(part.shape[2] * times, part.shape[3] * times) for part, times in given if part is not None}
    if len(sizes) > 1:
        raise ValueError(f'x, features and noise must be of the same points, they are of {" and ".join(f"{h}x{w}" for h, w in sizes)}')
    if kernels is None:
        return plain(weight, bias, x, features, parent, up, act, remake)
    if noise is not None:
        parent = parent.expand(*weight.shape[:2], -1, -1)
    return Fused.apply(kernels, weight, bias, x, features, parent, up, act, remake)


def _check_tensors(weight, bias, x, features, slope, gain):
    """Raises ValueError, in one line, for what compiled code would read wrongly."""
    N, C_out, K = weight.shape
    given = [part for part in (x, features) if part is not None]
    if sum(part.shape[1] for part in given) != K:
        wrong = f'weights of {K} columns for {[part.shape[1] for part in given]} channels'
    elif any(len(part) not in (1, N) for part in given):
        wrong = f'weights of {N} images for {[len(part) for part in given]} images'
    elif any(part.dtype != weight.dtype for part in given):
        wrong = f'weights in {weight.dtype} for {[part.dtype for part in given]}'
    elif bias is not None and bias.shape not in ((C_out,), (N, C_out)):
        wrong = f'a bias {list(bias.shape)} for {C_out} channels'
    elif not (slope >= 0 and gain > 0):
        wrong = f'slope {slope} and gain {gain}: at least 0, and more than 0'
    else:
        return
    raise ValueError(f'FMM layer: {wrong}')


def materialize(weights, dtype, impl='auto'):
    """W [N, C_out, C_in] in dtype of an inr.fmm.Weights: modulation and normalization of its rows (INR-GAN, appendix E).

    By kernels of a GPU where no gradients are wanted; else in plain operators, whatever impl says: they are a small part of a layer.
    """
    parts = [part for part in (weights.matrix, weights.left, weights.right) if part is not None]
    wants_gradients = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
    if len(parts) == 3 and not wants_gradients:
        kernels = kernels_for(impl, dtype, weights.matrix.device)
        if hasattr(kernels, 'modulated'):
            return kernels.modulated(*parts, dtype)
    return weights.materialize().to(dtype)


def kernels_for(impl, dtype, device):
    """The module whose kernels `impl` means for layers that compute in dtype on device; None for plain operators.

    It has forward and backward, see layer.Fused, and may have `modulated`, see `materialize`.
    """
    check(impl)
    if impl == 'ref':
        return None
    wanted = impl if impl != 'auto' else {'cpu': 'fused', 'cuda': 'cuda'}.get(device.type)
    if wanted is None:
        return None
    why = _why_not(wanted, dtype, device)
    if why and impl != 'auto':
        raise RuntimeError(f"impl='{impl}', {HOW[impl]}, is not available: {why}; use impl='auto'")
    if why:
        if dtype not in DTYPES[wanted]:
            _warn(f'{HOW[wanted]}: {why}')
        return None
    find = _cpu if wanted == 'fused' else functools.partial(_triton, device, dtype)
    return _find(find, forced=impl != 'auto')


def _why_not(impl, dtype, device):
    """Why a layer cannot be computed so, in one line, or None."""
    if _get_current_dispatch_mode() is not None or torch.compiler.is_compiling():
        return 'its operators are being recorded'
    if device.type != {'fused': 'cpu', 'cuda': 'cuda'}[impl]:
        return f'its tensors are on {device}'
    if dtype not in DTYPES[impl]:
        return f'it computes in {" and ".join(str(each).removeprefix("torch.") for each in DTYPES[impl])}, not in {dtype}'
    return None


def check(impl):
    """Raises ValueError for a name that is not one of IMPLS."""
    if impl not in IMPLS:
        raise ValueError(f"impl={impl!r} is not known: use {', '.join(IMPLS[:-1])} or {IMPLS[-1]}")


def _find(find, forced):
    """find(), a module of kernels that is ready to run. One that is not available: RuntimeError if forced, else None after one warning."""
    try:
        return find()
    except native.Unavailable as why:
        if forced:
            raise
        _warn(str(why))
        return None


def _cpu():
    native.library()
    return layer_cpu


def _triton(device, dtype):
    found = _tried(device, dtype)
    if isinstance(found, native.Unavailable):
        raise found
    return found


@functools.cache
def _tried(device, dtype):
    """layer_triton once it computed in dtype on device, or the native.Unavailable that says why it cannot."""
    try:
        from inr.ops import layer_triton

        if device.type == 'cuda' and dtype != torch.float32 and torch.cuda.get_device_capability(device) < (8, 0):
            return native.Unavailable(f'{device} is older than sm_80, where triton multiplies {dtype} without tensor cores')
        numbers = torch.ones(1, 16, 16, dtype=dtype, device=device)
        layer_triton.forward(numbers, None, numbers[:, :, :, None], None, None, None, Activation(0.2, 1.0))
    except torch.cuda.OutOfMemoryError:
        raise  # says nothing about the kernels
    except ImportError as error:
        return native.Unavailable(f'triton is missing ({error}): pip install triton; it comes with the builds of torch for GPUs on Linux')
    except Exception as error:  # of a compiler or a driver: they raise what they like
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        needs = "it needs a C compiler (gcc, clang or what CC names) and Python's headers"
        return native.Unavailable(f'triton cannot compute in {dtype} on {device}: {reason}; {needs}')
    return layer_triton


def compute(impl, block, x, img, ws, points, upsample, dtype, keep, plain, by_layers=None):
    """(x, img) of a block: plain(), or the same drawn whole by ops.block_cpu, with plain's gradients, where that can.

    x, img: of the grid below, or None; the others are those of block_cpu.draw_block; ws [N, L + 1, w_dim]
    by_layers: why layers must be computed one by one, or None
    """
    check(impl)
    given = [tensor for tensor in (ws, x, img) if tensor is not None]

    def layer_by_layer():
        with own_types(ws.device):
            return plain()

    if impl in ('auto', 'fused') and not (by_layers or block_cpu.why_not(block, points, dtype, given)) and _find(_cpu, impl == 'fused'):
        with own_types(ws.device):
            return block_cpu.run(
                block, given, lambda: block_cpu.draw_block(block, x, img, ws.unbind(1), points, upsample, dtype, keep), layer_by_layer
            )  # fmt: skip
    return layer_by_layer()


@functools.cache
def _warn(why):
    warnings.warn(f'layers are computed by plain PyTorch, which is slower: {why}', stacklevel=2)
