"""One FMM layer: y = clamp(gain * lrelu(W_x x + W_e e + parent + b)), as plain operators and fused, with gradients of every order.

Nothing is concatenated: W = [W_x, W_e] is cut instead. `parent` are values that are there already: W_x x taken on the grid below, before
it is upsampled. `kernels` is a module that computes on a device: layer_cpu or layer_triton.

Legend: N images, C_out and C channels, E coordinate features, H and W rows and columns of points.
"""

import contextlib
import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from torch_utils.ops import bias_act


@dataclass(frozen=True)
class Activation:
    """clamp(gain * lrelu(z)): slope >= 0 of lrelu below 0, gain > 0, clamp a limit of the absolute value or None."""

    slope: float
    gain: float
    clamp: float | None = None


def limits(act, dtype):
    """(slope, gain, limit as dtype holds it, infinite for none): what was clamped equals the limit then, and is told from what was not."""
    return float(act.slope), float(act.gain), math.inf if act.clamp is None else torch.tensor(act.clamp, dtype=dtype).item()


def own_types(device):
    """A context without autocast: layers compute in the types they were given."""
    on = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else contextlib.nullcontext()


DOUBLINGS = {'nearest': {}, 'linear': dict(mode='bilinear')}  # ways to double a grid: options of F.interpolate


def double(x, how):
    """x [N, C, h, w] on twice as many rows and columns; how: 'nearest', or 'linear' with weights of 3/4 and 1/4, borders clamped."""
    return F.interpolate(x, scale_factor=2, **DOUBLINGS[how])


def halved(dz, how):
    """What a gradient dz [N, C, H, W] of double(x, how) is for x: [N, C, H / 2, W / 2]; differentiable."""
    if how == 'nearest':
        return F.avg_pool2d(dz, 2) * 4
    N, C, H, W = dz.shape
    return torch.ops.aten.upsample_bilinear2d_backward(dz, [H, W], [N, C, H // 2, W // 2], False, 2.0, 2.0)


def size_of(x, features, parent, up):
    """(H, W) of the points of a layer, see `plain`."""
    at_points = features if x is None else x
    return tuple(side * (2 if up else 1) for side in parent.shape[2:]) if at_points is None else tuple(at_points.shape[2:])


def product(weight, x):
    """A 1x1 layer with a weight for each image: weight [N, C_out, C], x [N or 1, C, H, W] -> [N, C_out, H, W]."""
    return torch.matmul(weight, x.flatten(2)).unflatten(2, x.shape[2:])


class RemadeProduct(torch.autograd.Function):
    """`product` of features without gradients, which are made once more for the backward pass instead of being kept for it."""

    @staticmethod
    def forward(ctx, weight, features, remake):
        ctx.remake = remake
        return product(weight, features)

    @staticmethod
    def backward(ctx, dy):
        with own_types(dy.device):
            return _outer(dy, ctx.remake()), None, None


def plain(weight, bias, x, features, parent, up, act, remake=None):
    """The layer in PyTorch's own operators.

    weight: [N, C_out, C + E]; bias: [C_out] or [N, C_out], or None; x: [N or 1, C, H, W], or None
    features: e [N or 1, E, H, W], or None; parent: [N, C_out, H, W] or, with up, [N, C_out, H / 2, W / 2], or None
    up: how parent is doubled, one of DOUBLINGS, or None where it is of the points themselves
    act: Activation; remake: a function that makes `features`, without gradients, once more; None to keep them for the backward pass
    Returns [N, C_out, H, W] in weight's type.
    """
    C, terms = 0 if x is None else x.shape[1], []
    if x is not None:
        terms.append(product(weight[:, :, :C], x))  # [N, C_out, H, W]
    if features is not None:
        of_features = weight[:, :, C:]
        terms.append(RemadeProduct.apply(of_features, features, remake) if remake else product(of_features, features))  # [N, C_out, H, W]
    if parent is not None:
        terms.append(double(parent, up) if up else parent)  # [N, C_out, H, W]
    y = sum(terms[1:], start=terms[0])
    bias = None if bias is None else bias.to(y.dtype)
    if bias is not None and bias.ndim == 2:
        y, bias = y + bias[:, :, None, None], None
    return bias_act.bias_act(y, bias, act='lrelu', alpha=act.slope, gain=act.gain, clamp=act.clamp)


class Fused(torch.autograd.Function):
    """The same by `kernels`, a module; the other arguments are those of `plain`. Keeps y and the factors of the products, but for features
    that can be made once more.

    The derivative of the activation is constant where it exists, so that the backward pass in plain operators, which is taken where a
    further derivative is to follow, is right in every order.
    """

    @staticmethod
    def forward(ctx, kernels, weight, bias, x, features, parent, up, act, remake=None):
        y = kernels.forward(weight, bias, x, features, parent, up, act)
        ctx.remake = remake
        ctx.save_for_backward(weight, x, None if remake else features, y)
        ctx.kernels, ctx.act, ctx.up = kernels, act, up if parent is not None else None
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)
        return y

    @staticmethod
    def backward(ctx, dy):
        with own_types(dy.device):
            return Fused._backward(ctx, dy)

    @staticmethod
    def _backward(ctx, dy):
        weight, x, features, y = ctx.saved_tensors
        _, to_weight, to_bias, to_x, to_features, to_parent = ctx.needs_input_grad[:6]
        features = ctx.remake() if ctx.remake and to_weight else features
        backward = _backward if torch.is_grad_enabled() else ctx.kernels.backward
        dz, db, pooled = backward(dy, y, ctx.act, ctx.up)  # [N, C_out, H, W], [N, C_out], as parent
        C = 0 if x is None else x.shape[1]
        dx = _transposed(weight[:, :, :C], dz, len(x)) if to_x else None  # [N or 1, C, H, W]
        de = _transposed(weight[:, :, C:], dz, len(features)) if to_features else None  # [N or 1, E, H, W]
        dw = None
        if to_weight:
            dw = [_outer(dz, part) for part in (x, features) if part is not None] or [torch.zeros_like(weight)]
            dw = dw[0] if len(dw) == 1 else torch.cat(dw, dim=2)  # [N, C_out, C + E]
        if to_bias:
            shape, dtype = ctx.bias
            db = (db.sum(0) if len(shape) == 1 else db).to(dtype)
        return None, dw, db if to_bias else None, dx, de, pooled if to_parent else None, None, None, None


def _backward(dy, y, act, up):
    """(dz, its sums over points [N, C_out], what it is for `parent`) in plain operators; see layer_cpu.backward."""
    slope = torch.where(y > 0, act.gain, act.gain * act.slope)  # [N, C_out, H, W]
    if act.clamp is not None:
        slope = slope * (y.abs() < torch.tensor(act.clamp, dtype=y.dtype))
    dz = dy * slope.to(dy.dtype)
    return dz, dz.sum([2, 3]), halved(dz, up) if up else dz


def _transposed(weight, dz, images):
    """W^T dz: weight [N, C_out, C], dz [N, C_out, H, W] -> [N, C, H, W], or [1, C, H, W] for what all images share."""
    if images == len(dz):
        return product(weight.mT, dz)
    return product(weight.flatten(0, 1).mT[None], dz.flatten(0, 1)[None])


def _outer(dz, x):
    """dz x^T for each image: dz [N, C_out, H, W], x [N or 1, C, H, W] -> [N, C_out, C]."""
    if len(x) == len(dz):
        return torch.bmm(dz.flatten(2), x.flatten(2).mT)
    return torch.mm(dz.flatten(2).flatten(0, 1), x[0].flatten(1).t()).unflatten(0, dz.shape[:2])
