"""Bias, activation, gain and clamp in one call, with the signature of stylegan2-ada-pytorch.

On a GPU one kernel (bias_act.cu) does it. Its derivative is a kernel too, and so is the derivative of that, which R1 and path lengths need.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from torch_utils.ops import native


class Activation(NamedTuple):
    """func(x, alpha) with the slope and the gain that hold when the caller names none.

    def_gain keeps the variance of a normal input near 1; homogeneous: func(g x) = g func(x) for g > 0.
    """

    func: Callable
    def_alpha: float = 0.0
    def_gain: float = 1.0
    homogeneous: bool = False


activation_funcs = {
    'linear': Activation(lambda x, alpha: x, homogeneous=True),
    'relu': Activation(lambda x, alpha: F.relu(x), def_gain=math.sqrt(2), homogeneous=True),
    'lrelu': Activation(F.leaky_relu, def_alpha=0.2, def_gain=math.sqrt(2), homogeneous=True),
    'tanh': Activation(lambda x, alpha: torch.tanh(x)),
    'sigmoid': Activation(lambda x, alpha: torch.sigmoid(x)),
    'elu': Activation(lambda x, alpha: F.elu(x)),
    'selu': Activation(lambda x, alpha: F.selu(x)),
    'softplus': Activation(lambda x, alpha: F.softplus(x)),
    'swish': Activation(lambda x, alpha: F.silu(x), def_gain=math.sqrt(2)),
}


def bias_act(x, b=None, dim=1, act='linear', alpha=None, gain=None, clamp=None, impl='auto'):
    """clamp(gain * act(x + b)).

    x:     any shape and floating dtype
    b:     [x.shape[dim]] added along dim; None adds nothing
    act:   a key of `activation_funcs`
    alpha: slope of lrelu below 0; None means the activation's own (0.2)
    gain:  factor after the activation; None means the activation's own
    clamp: bound on the absolute value of the result; None leaves it free
    impl:  'auto', 'ref' or 'cuda', see `native.compiled`; where clamp is met exactly, 'ref' passes the gradient and 'cuda' cuts it
    Returns a tensor of x's shape and dtype. Raises ValueError for an unknown activation, RuntimeError if 'cuda' is not to be had.
    """
    run_compiled = native.compiled(impl, x)
    if act not in activation_funcs:
        raise ValueError(f"act={act!r} is not known: use one of {', '.join(activation_funcs)}")
    spec = activation_funcs[act]
    alpha = spec.def_alpha if alpha is None else float(alpha)
    gain = spec.def_gain if gain is None else float(gain)

    if run_compiled:
        return _compiled(x, b, dim, _Options(act, alpha, gain, None if clamp is None else float(clamp)))
    if b is not None:
        b = b.to(x.dtype).reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    fold = spec.homogeneous and gain > 0  # g act(x + b) = act(g x + g b): one pass over the tensor fewer
    inner = gain if fold else 1.0
    if b is not None:
        x = torch.add(b * inner, x, alpha=inner)
    elif inner != 1:
        x = x * inner
    x = spec.func(x, alpha)
    if not fold and gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-float(clamp), float(clamp))


# ---- The compiled operator


class _Options(NamedTuple):
    act: str
    alpha: float
    gain: float
    clamp: float | None

    @property
    def from_input(self):
        """Whether the derivative needs x + b: act(x + b) is the same for two arguments."""
        return self.act == 'swish' or (self.act == 'lrelu' and self.alpha < 0)

    @property
    def straight(self):
        """Whether the derivative is piecewise constant."""
        return self.act in ('linear', 'relu', 'lrelu')


def _compiled(x, b, dim, options):
    if b is not None:
        if b.device != x.device:
            raise ValueError(f'bias_act: x is on {x.device} and b on {b.device}: move it there')
        dim %= x.ndim
        if b.shape != (x.shape[dim],):
            raise ValueError(f'bias_act: b has shape {list(b.shape)}, x has {x.shape[dim]} entries along axis {dim}')
        b = b.to(x.dtype).contiguous()
    if not (x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))):
        x = x.contiguous()
    return _BiasAct.apply(x, b, dim, options)


class _BiasAct(torch.autograd.Function):
    """y = clamp(gain act(x + b)). Keeps what the derivative follows from: y, x and b (`from_input`), or nothing."""

    @staticmethod
    def forward(ctx, x, b, dim, options):
        y = _launch('forward', (x,), b, None, dim, options)
        ctx.dim, ctx.options = dim, options
        if options.from_input:
            ctx.save_for_backward(x, b)
        elif options.act != 'linear' or options.clamp is not None:
            ctx.save_for_backward(y, None)
        else:
            ctx.save_for_backward(None, None)
        return y

    @staticmethod
    def backward(ctx, dy):
        saved, b = ctx.saved_tensors
        dx = dy * ctx.options.gain if saved is None else _BiasActGrad.apply(dy, saved, b, ctx.dim, ctx.options)
        return dx, _sum_but(dx, ctx.dim) if ctx.needs_input_grad[1] else None, None, None


class _BiasActGrad(torch.autograd.Function):
    """dx = dy gain act'(x + b), as a function of dy and of what `_BiasAct` has saved: y, which leads on to x and b, or x and b."""

    @staticmethod
    def forward(ctx, dy, saved, b, dim, options):
        ctx.dim, ctx.options = dim, options
        dy = _lie_like(dy, saved)
        ctx.save_for_backward(None if options.straight else dy, saved, b)
        return _launch('grad', (dy,), b, saved, dim, options)

    @staticmethod
    def backward(ctx, v):
        dy, saved, b = ctx.saved_tensors
        to_dy = _BiasActGrad.apply(v, saved, b, ctx.dim, ctx.options) if ctx.needs_input_grad[0] else None
        if dy is None or not any(ctx.needs_input_grad[1:3]):
            return to_dy, None, None, None, None
        to_saved = _BiasActCurve.apply(v, dy, saved, b, ctx.dim, ctx.options)
        return to_dy, to_saved, None if b is None else _sum_but(to_saved, ctx.dim), None, None


class _BiasActCurve(torch.autograd.Function):
    """v dy times the derivative of gain act'(x + b) with respect to what `_BiasAct` has saved. There is no third order."""

    @staticmethod
    def forward(ctx, v, dy, saved, b, dim, options):
        return _launch('curve', (_lie_like(v, saved), _lie_like(dy, saved)), b, saved, dim, options)

    @staticmethod
    def backward(ctx, _):
        raise RuntimeError("bias_act with impl='cuda' has no third derivative: use impl='ref'")


def _launch(mode, tensors, b, saved, dim, options):
    """One run of the kernel in bias_act.cu; tensors: (x,), (dy,) or (v, dy), which lie in memory as the result will."""
    out = torch.empty_like(tensors[0])
    channels = 1 if b is None else b.numel()
    step = out.stride(dim) if channels > 1 else 1
    pointers = [None if t is None else t.data_ptr() for t in (tensors[0], tensors[1] if len(tensors) > 1 else None, b, saved)]
    native.call('bias_act', out.device, ('forward', 'grad', 'curve').index(mode), list(activation_funcs).index(options.act),
                native.DTYPES.index(out.dtype), *pointers, options.from_input, out.data_ptr(), out.numel(), step, channels,
                options.alpha, options.gain, -1.0 if options.clamp is None else options.clamp)
    return out


def _lie_like(x, like):
    """x with the strides of a tensor without gaps."""
    return x if x.stride() == like.stride() else torch.empty_like(like).copy_(x)


def _sum_but(x, dim):
    """The sum over all axes but one."""
    return x.sum([i for i in range(x.ndim) if i != dim]) if x.ndim > 1 else x
