"""The kernels of layer.Fused on a CPU: the library's products, then layer_cpu.cpp, which passes over the activations once."""

import torch

from inr.ops import native
from inr.ops.layer import limits, size_of
from inr.ops.native import pointer

DOUBLINGS = {'nearest': 1, 'linear': 2}  # see layer.DOUBLINGS; as layer_cpu.cpp numbers them


def forward(weight, bias, x, features, parent, up, act):
    """layer.plain's y [N, C_out, H, W], without gradients; its arguments, in float32 or bfloat16."""
    (H, W), C = size_of(x, features, parent, up), 0 if x is None else x.shape[1]
    y = torch.empty([*weight.shape[:2], H * W], dtype=weight.dtype)  # [N, C_out, H*W]
    if x is not None:
        _add_product(y, weight[:, :, :C], x, 0)
    if features is not None:
        _add_product(y, weight[:, :, C:], features, 0 if x is None else 1)
    elif x is None:
        y.zero_()
    bias = None if bias is None else bias.to(torch.float32).contiguous()
    parent = None if parent is None else parent.contiguous()
    native.library().fmm_finish(
        pointer(y, y.dtype), pointer(parent, y.dtype, y.numel() // (4 if up else 1)), pointer(bias),
        1 if bias is None or bias.ndim == 1 else len(bias), *y.shape[:2], H, W, DOUBLINGS.get(up, 0), *limits(act, y.dtype),
        y.dtype == torch.bfloat16, torch.get_num_threads(),
    )  # fmt: skip
    return y.unflatten(2, (H, W))


def backward(dy, y, act, up):
    """(dz [N, C_out, H, W], its sums over points [N, C_out] in float32, what it is for `parent`) for dy, a gradient of y."""
    dy, dz, db = dy.to(y.dtype).contiguous(), torch.empty_like(y), torch.empty(y.shape[:2], dtype=torch.float32)
    pooled = torch.empty([*y.shape[:2], *(side // 2 for side in y.shape[2:])], dtype=y.dtype) if up else None
    native.library().fmm_backward(
        *(pointer(part, y.dtype, y.numel()) for part in (dy, y, dz)), pointer(db), pointer(pooled, y.dtype), *y.shape,
        DOUBLINGS.get(up, 0), *limits(act, y.dtype), y.dtype == torch.bfloat16, torch.get_num_threads(),
    )  # fmt: skip
    return dz, db, pooled if up else dz


def _add_product(y, weight, x, beta):
    """y = beta y + W x: y [N, C_out, points], weight [N, C_out, C], x [N or 1, C, H, W]."""
    if len(x) == len(y):
        torch.baddbmm(y, weight, x.flatten(2), beta=beta, out=y)
    else:
        rows = y.flatten(0, 1)
        torch.addmm(rows, weight.flatten(0, 1), x[0].flatten(1), beta=beta, out=rows)
