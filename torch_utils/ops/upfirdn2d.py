"""Upsample, pad, filter, downsample (StyleGAN2, appendix B), with the signatures of stylegan2-ada-pytorch.

The operation is linear in x and its transpose is the same operation with up and down swapped and the filter turned
round, so one autograd function gives gradients of every order. On a CPU its depthwise convolutions are ten times
faster in the second order than autograd's own second derivative of a grouped convolution; on a GPU a kernel of ours (upfirdn2d.cu) does it.
"""

import ctypes

import torch
import torch.nn.functional as F

from torch_utils.ops import native


def setup_filter(f, device=None, normalize=True, flip_filter=False, gain=1, separable=None):
    """Filter taps as upfirdn2d takes them.

    f:           taps as a number, list, array or tensor, 0-, 1- or 2-D; None means the identity
    device:      where the result lives; None means the CPU
    normalize:   make the taps sum to 1
    flip_filter: turn the taps round
    gain:        factor on the signal (its square root per axis when the result is 1-D)
    separable:   keep 1-D taps 1-D; None does so from 8 taps on, where two passes beat one
    Returns a float32 tensor, [taps] if separable, else [rows, columns]. Raises ValueError for more axes or no taps.
    """
    f = torch.as_tensor(1 if f is None else f, dtype=torch.float32)
    if f.ndim > 2 or f.numel() == 0:
        raise ValueError(f'a filter has one or two axes and at least one tap, this one has shape {list(f.shape)}')
    f = f.reshape(1) if f.ndim == 0 else f
    if separable is None:
        separable = f.ndim == 1 and f.numel() >= 8
    if f.ndim == 1 and not separable:
        f = torch.outer(f, f)
    if separable and f.ndim == 2:
        raise ValueError('separable=True needs 1-D taps, these are 2-D')
    if normalize:
        f = f / f.sum()
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    return (f * gain ** (f.ndim / 2)).to(device)


def upfirdn2d(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl='auto'):
    """Insert zeros, pad or crop, convolve with f, keep every down-th pixel.

    x:           [N, C, H, W]
    f:           [taps], applied along both axes, or [rows, columns]; None is the identity. A constant: it gets no gradient
    up, down:    a number or (x, y): every pixel is followed by up - 1 zeros; every down-th result is kept
    padding:     a number, (x, y) or (x before, x after, y before, y after) in upsampled pixels; negative crops
    flip_filter: False convolves, True correlates
    gain:        factor on the result
    impl:        'auto', 'ref' or 'cuda', see `native.compiled`
    Returns [N, C, (H up + padding - rows) // down + 1, likewise W]. Raises ValueError if nothing is left of the image, RuntimeError if
    'cuda' is not to be had.
    """
    run = _launch if native.compiled(impl, x) else _resample
    (upx, upy), (downx, downy) = pair(up), pair(down)
    px0, px1, py0, py1 = quad(padding)
    f = torch.ones(1, 1, device=x.device) if f is None else f
    f, gain = f.detach(), gain ** (f.ndim / 2)
    if f.ndim == 2:
        return _UpFirDown.apply(x, f, (upy, upx), (downy, downx), (py0, py1, px0, px1), flip_filter, gain, run)
    x = _UpFirDown.apply(x, f[None, :], (1, upx), (1, downx), (0, 0, px0, px1), flip_filter, gain, run)
    return _UpFirDown.apply(x, f[:, None], (upy, 1), (downy, 1), (py0, py1, 0, 0), flip_filter, gain, run)


def filter2d(x, f, padding=0, flip_filter=False, gain=1, impl='auto'):
    """Filter [N, C, H, W] and keep its size; `padding` widens it. Arguments as in `upfirdn2d`."""
    return upfirdn2d(x, f, padding=_around(f, padding), flip_filter=flip_filter, gain=gain, impl=impl)


def upsample2d(x, f, up=2, padding=0, flip_filter=False, gain=1, impl='auto'):
    """Enlarge [N, C, H, W] `up` times and keep its brightness. Arguments as in `upfirdn2d`."""
    upx, upy = pair(up)
    padding = _around(f, padding, up=up)
    return upfirdn2d(x, f, up=up, padding=padding, flip_filter=flip_filter, gain=gain * upx * upy, impl=impl)


def downsample2d(x, f, down=2, padding=0, flip_filter=False, gain=1, impl='auto'):
    """Shrink [N, C, H, W] `down` times. Arguments as in `upfirdn2d`."""
    return upfirdn2d(x, f, down=down, padding=_around(f, padding, down=down), flip_filter=flip_filter, gain=gain, impl=impl)


def pair(value):
    """(x, y) of a number or a pair."""
    x, y = (value, value) if isinstance(value, int) else value
    return int(x), int(y)


def quad(padding):
    """(x before, x after, y before, y after) of a number, a pair or four numbers."""
    if isinstance(padding, int) or len(padding) == 2:
        x, y = pair(padding)
        return x, x, y, y
    return tuple(int(p) for p in padding)


def centred(taps, up=1, down=1):
    """Padding (before, after) that centres a filter of so many taps on its pixel when resampling along one axis."""
    if up > 1:
        return (taps + up - 1) // 2, (taps - up) // 2
    if down > 1:
        return (taps - down + 1) // 2, (taps - down) // 2
    return taps // 2, (taps - 1) // 2


def conv_transpose(x, w, up, padding, groups):
    """Insert up - 1 zeros after every pixel, pad, correlate with the flipped w, without touching the zeros.

    x: [N, C_in, H, W]; w: [C_in, C_out / groups, rows, columns]; up: (y, x)
    padding: (y before, y after, x before, x after) of the upsampled image; negative crops
    """
    margins = []
    for axis in (0, 1):
        taps = w.shape[2 + axis]
        margins += [padding[2 * axis] - (taps - 1), padding[2 * axis + 1] - (taps - up[axis])]
    crop = [max(0, min(-margins[i], -margins[i + 1])) for i in (0, 2)]  # what the convolution itself can leave out
    x = F.conv_transpose2d(x, w, stride=up, padding=crop, groups=groups)
    y0, y1, x0, x1 = (m + crop[i // 2] for i, m in enumerate(margins))
    return F.pad(x, [x0, x1, y0, y1]) if any((y0, y1, x0, x1)) else x


def _around(f, padding, up=1, down=1):
    """`padding` plus what centres f."""
    (upx, upy), (downx, downy), pads = pair(up), pair(down), quad(padding)
    rows, columns = (1, 1) if f is None else (f.shape[0], f.shape[-1])
    return [a + b for a, b in zip(pads, centred(columns, upx, downx) + centred(rows, upy, downy), strict=True)]


def _output_size(x, f, up, down, padding):
    """(height, width) that is left. Raises ValueError if nothing is."""
    H, W = x.shape[2:]
    sizes = [n * u + p0 + p1 - taps for n, u, p0, p1, taps in
             zip((H, W), up, padding[::2], padding[1::2], f.shape, strict=True)]
    if min(sizes) < 0:
        raise ValueError(f'upfirdn2d: nothing is left of {H}x{W} pixels, up={up}, padding={padding}, taps={tuple(f.shape)}')
    return [size // d + 1 for size, d in zip(sizes, down, strict=True)]


def _resample(x, f, up, down, padding, flip, gain):
    """The operation itself: up, down (y, x); padding (y before, y after, x before, x after); flip: f is correlated."""
    C = x.shape[1]
    _output_size(x, f, up, down, padding)
    f = f * gain
    f = (f if flip else f.flip([0, 1])).to(x.dtype)
    if up == (1, 1):
        y0, y1, x0, x1 = padding
        symmetric = y0 == y1 >= 0 and x0 == x1 >= 0
        x = x if symmetric else F.pad(x, [x0, x1, y0, y1])
        return F.conv2d(x, f.expand(C, 1, *f.shape), stride=down, padding=(y0, x0) if symmetric else 0, groups=C)
    slow = x.device.type == 'cpu' and x.dtype in (torch.float16, torch.bfloat16)  # oneDNN has no such transposed convolution
    y = conv_transpose(x.float() if slow else x, (f.float() if slow else f).flip([0, 1]).expand(C, 1, *f.shape), up, padding, groups=C)
    return (y[:, :, :: down[0], :: down[1]] if down != (1, 1) else y).to(x.dtype)


def _launch(x, f, up, down, padding, flip, gain):
    """`_resample` by the kernels in upfirdn2d.cu, which take x as it lies; the result is channels_last if x is."""
    if f.device != x.device:
        raise ValueError(f'upfirdn2d: x is on {x.device} and the filter on {f.device}: move it there')
    f = f.to(torch.promote_types(x.dtype, torch.float32)).contiguous()
    dense = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if dense else torch.contiguous_format
    size = [*x.shape[:2], *_output_size(x, f, up, down, padding)]
    y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=memory_format)
    sizes = [(ctypes.c_longlong * 4)(*values) for values in (x.shape, x.stride(), y.shape, y.stride())]
    shape = (ctypes.c_int * 9)(*f.shape, *up, *down, padding[0], padding[2], not flip)
    native.call('upfirdn2d', x.device, native.DTYPES.index(x.dtype), x.data_ptr(), *sizes[:2], f.data_ptr(), y.data_ptr(), *sizes[2:],
                shape, gain)
    return y


class _UpFirDown(torch.autograd.Function):
    """`run` (`_resample` or `_launch`) with its own transpose as backward; the backward goes through here again."""

    @staticmethod
    def forward(ctx, x, f, up, down, padding, flip, gain, run):
        y = run(x, f, up, down, padding, flip, gain)
        ctx.save_for_backward(f)
        transposed = []  # padding of the transpose
        for n, m, taps, u, d, p0 in zip(x.shape[2:], y.shape[2:], f.shape, up, down, padding[::2], strict=True):
            transposed += [taps - 1 - p0, (n - 1) * u + 1 - m * d + p0]
        ctx.rest = down, up, tuple(transposed), not flip, gain, run
        return y

    @staticmethod
    def backward(ctx, dy):
        return _UpFirDown.apply(dy, *ctx.saved_tensors, *ctx.rest), None, None, None, None, None, None, None
