"""The kernels of layer.Fused on a CPU: the library's products, then layer_cpu.cpp, which passes over the activations once."""

import math

import torch

from inr.ops import native
from inr.ops.native import pointer


def forward(weight, bias, x, features, below, up, act):
    """As layer.plain, without gradients; weight in float32 or bfloat16, as are x, features and below."""
    size = [side * up for side in below.shape[2:]] if x is None and features is None else (features if x is None else x).shape[2:]
    y, C = torch.empty([*weight.shape[:2], size[0] * size[1]], dtype=weight.dtype), 0 if x is None else x.shape[1]
    if x is not None:
        _add_product(y, weight[:, :, :C], x, 0)
    if features is not None:
        _add_product(y, weight[:, :, C:], features, 0 if x is None else 1)
    elif x is None:
        y.zero_()
    bias = None if bias is None else bias.to(torch.float32).contiguous()
    below = None if below is None else below.contiguous()
    native.library().fmm_finish(
        y.data_ptr(), pointer(below), pointer(bias), 1 if bias is None or bias.ndim == 1 else len(bias), *y.shape[:2], *size,
        up, *_numbers(act, y.dtype), y.dtype == torch.bfloat16, torch.get_num_threads(),
    )  # fmt: skip
    return y.unflatten(2, size)


def derive(dy, y, act, up):
    """(dz [N, C_out, H, W], its sums over points [N, C_out] in float32, its sums over up x up points) for dy, a gradient of y."""
    dy, dz, db = dy.contiguous(), torch.empty_like(y), torch.empty(y.shape[:2])
    pooled = None if up == 1 else torch.empty([*y.shape[:2], *(side // up for side in y.shape[2:])], dtype=y.dtype)
    native.library().fmm_derive(
        dy.data_ptr(), y.data_ptr(), dz.data_ptr(), db.data_ptr(), pointer(pooled), *y.shape, up, *_numbers(act, y.dtype),
        y.dtype == torch.bfloat16, torch.get_num_threads(),
    )  # fmt: skip
    return dz, db, dz if up == 1 else pooled


def _add_product(y, weight, x, beta):
    """y = beta y + W x: y [N, C_out, points], weight [N, C_out, C], x [N or 1, C, H, W]."""
    if len(x) == len(y):
        torch.baddbmm(y, weight, x.flatten(2), beta=beta, out=y)
    else:
        rows = y.flatten(0, 1)
        torch.addmm(rows, weight.flatten(0, 1), x[0].flatten(1), beta=beta, out=rows)


def _numbers(act, dtype):
    """(slope, gain, limit as dtype holds it): what was clamped equals the limit then, and is told from what was not."""
    return act.slope, act.gain, math.inf if act.clamp is None else torch.tensor(act.clamp, dtype=dtype).item()
