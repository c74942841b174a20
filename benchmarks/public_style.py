"""Networks computed as the public implementations do: the baseline of the benchmarks.

Generators of inr: coordinates are concatenated to the features, layers multiply after upsampling, one batched product for a layer with a
weight for each image. StyleGAN2's: one grouped convolution with a kernel for each image. In both, and in the discriminator, bias,
activation, gain and clamp are passes of their own, and upfirdn2d has autograd's own derivatives. Weights and features come from the
networks given.
"""

import contextlib
import math
from unittest import mock

import torch
from torch.nn import functional as F


def features_of(block, points, w):
    """Coordinate features [N, E, H, W] of a block, for every image anew."""
    features = block.coords(points, w)
    return features.expand(len(w), -1, -1, -1).contiguous()


def dense(x, weight):
    """Batched product: x [N, C_in, H, W], weight [N, C_out, C_in]."""
    N, _, H, W = x.shape
    return torch.bmm(weight, x.reshape(N, -1, H * W)).reshape(N, -1, H, W)


def inr_block(block, x, img, ws, points, dtype):
    """A block of generator B."""
    w = ws.unbind(1)
    up = block.spec.upsamples
    if x is not None:
        x = x.to(dtype)
    if up:
        aligned = dict(mode='bilinear', align_corners=True)
        options = {'nearest': {}, 'linear': dict(mode='bilinear'), 'bilinear': aligned}[block.options.upsampling]
        x, img = (F.interpolate(t, scale_factor=2, **options) for t in (x, img))
    for index, layer in enumerate(block.layers):
        if block.uses_coords[index]:
            e = features_of(block, points, w[0]).to(dtype)
            x = e if x is None else torch.cat([x, e], dim=1)
        if index and block.options.instance_norm:
            x = x / (x.std(dim=[2, 3], keepdim=True) + 1e-8)
        y = dense(x, layer.weights(w[index]).materialize().to(dtype))
        y = y + layer.bias.to(dtype)[:, None, None]
        y = F.leaky_relu(y, 0.2)
        y = y * math.sqrt(2)
        x = y if layer.conv_clamp is None else y.clamp(-layer.conv_clamp, layer.conv_clamp)
    rgb = dense(x, block.torgb.weights(w[len(block.layers)]).materialize().to(dtype)) + block.torgb.bias.to(dtype)[:, None, None]
    rgb = rgb.float()
    return x, rgb if img is None else img + rgb


def hypernetwork_block(block, x, img, ws, points, dtype):
    """A block of generator A."""
    w = list(ws.unbind(1))
    e = features_of(block, points, w[0]).to(dtype)

    def apply(layer, w, x):
        weight, bias = layer(w)
        return dense(x, weight.contiguous().to(dtype)) + bias[:, :, None, None].to(dtype)

    if block.connector is not None:
        x, img = (F.interpolate(t, scale_factor=2) for t in (x.to(dtype), img))
        below, beside = block.connector
        x = F.relu(apply(below, w[0], x) + apply(beside, w[0], e))
        w.pop(0)
    for layer, uses_coords in zip(block.layers, block.uses_coords, strict=True):
        seen = e if x is None else torch.cat([x, e], dim=1) if uses_coords else x
        x = F.relu(apply(layer, w.pop(0), seen))
    rgb = apply(block.torgb, w[0], x).float()
    return x, rgb if img is None else img + rgb


def inr_synthesis(network, ws, dtype=None):
    """The image of an inr.synthesis.SynthesisNetwork for ws [N, num_ws, w_dim] on its trained grid.

    dtype: of all blocks, default each block's own
    """
    from inr import grid

    sizes = network.pyramid.sizes
    points_of = dict(zip(sizes, grid.training_points(sizes, network.pyramid.convention, ws.device), strict=True))
    x = img = None
    first = 0
    for name in network.block_names:
        block = getattr(network, name)
        compute = inr_block if hasattr(block, 'options') else hypernetwork_block
        x, img = compute(block, x, img, ws[:, first : first + block.spec.layers + 1], points_of[block.spec.grid],
                         dtype or block.dtype)  # fmt: skip
        first += block.spec.layers
    return img if network.activation is None else network.activation(img)


def bias_act(x, b=None, dim=1, act='linear', alpha=None, gain=None, clamp=None, impl='auto'):
    """bias_act, a pass for each thing it does."""
    from torch_utils.ops.bias_act import activation_funcs

    spec = activation_funcs[act]
    if b is not None:
        x = x + b.to(x.dtype).reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    x = spec.func(x, spec.def_alpha if alpha is None else alpha)
    x = x * (spec.def_gain if gain is None else gain)
    return x if clamp is None else x.clamp(-clamp, clamp)


def upfirdn2d(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl='auto'):
    """upfirdn2d: zeros inserted, padded, a grouped convolution, every down-th pixel kept."""
    from torch_utils.ops.upfirdn2d import pair, quad

    (upx, upy), (downx, downy) = pair(up), pair(down)
    N, C, H, W = x.shape
    if max(upx, upy) > 1:
        x = F.pad(x.reshape(N, C, H, 1, W, 1), [0, upx - 1, 0, 0, 0, upy - 1]).reshape(N, C, H * upy, W * upx)
    x = F.pad(x, list(quad(padding)))
    f = torch.ones(1, 1, device=x.device) if f is None else f
    f = (f * gain ** (f.ndim / 2)).to(x.dtype)
    f = f if flip_filter else f.flip(list(range(f.ndim)))
    for taps in [f] if f.ndim == 2 else [f[None, :], f[:, None]]:
        x = F.conv2d(x, taps.expand(C, 1, *taps.shape), groups=C)
    return x[:, :, ::downy, ::downx]


def modulated_conv2d(x, weight, styles, noise=None, up=1, padding=0, resample_filter=None, demodulate=True, flip_weight=True):
    """modulated_conv2d: a kernel for each image, one grouped convolution."""
    from torch_utils.ops.conv2d_resample import conv2d_resample

    w = weight * styles[:, None, :, None, None]
    if demodulate:
        w = w * (w.square().sum(dim=[2, 3, 4], keepdim=True) + 1e-8).rsqrt()
    N, C, H, W = x.shape
    x = conv2d_resample(x.reshape(1, -1, H, W), w.to(x.dtype).flatten(0, 1), resample_filter, up, 1, padding, N, flip_weight)
    x = x.reshape(N, -1, *x.shape[2:])
    return x if noise is None else x + noise.to(x.dtype)


def computed_plainly(G):
    """A context in which G and the operators of any D are computed as the public implementations do."""
    stack = contextlib.ExitStack()
    for place, plain in (('torch_utils.ops.bias_act.bias_act', bias_act), ('torch_utils.ops.upfirdn2d.upfirdn2d', upfirdn2d),
                         ('torch_utils.ops.conv2d_resample.upfirdn2d', upfirdn2d),
                         ('training.layers.modulated_conv2d', modulated_conv2d)):  # fmt: skip
        stack.enter_context(mock.patch(place, plain))
    if hasattr(G.synthesis, 'pyramid'):
        stack.enter_context(mock.patch.object(G.synthesis, 'forward', lambda ws, **_: inr_synthesis(G.synthesis, ws)))
    return stack
