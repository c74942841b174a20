"""Bias, activation, gain and clamp in one call, with the signature of stylegan2-ada-pytorch."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from torch_utils.ops import check_impl


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
    impl:  'auto' or 'ref'
    Returns a tensor of x's shape and dtype. Raises ValueError for an unknown activation, RuntimeError for impl='cuda'.
    """
    check_impl(impl)
    if act not in activation_funcs:
        raise ValueError(f"act={act!r} is not known: use one of {', '.join(activation_funcs)}")
    spec = activation_funcs[act]
    alpha = spec.def_alpha if alpha is None else float(alpha)
    gain = spec.def_gain if gain is None else float(gain)

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
