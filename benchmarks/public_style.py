"""The generators computed as the public implementations do: the baseline of the benchmarks.

Coordinates are concatenated to the features, layers multiply after upsampling, one batched product for a layer with a weight for each
image; bias, activation and gain are passes of their own. Weights and features come from the networks given.
"""

import math

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
        options = dict(mode='bilinear', align_corners=True) if block.options.bilinear else {}
        x, img = (F.interpolate(t, scale_factor=2, **options) for t in (x, img))
    for index, layer in enumerate(block.layers):
        if block.sees[index]:
            e = features_of(block, points, w[0]).to(dtype)
            x = e if x is None else torch.cat([x, e], dim=1)
        if index and block.options.instance_norm:
            x = x / (x.std(dim=[2, 3], keepdim=True) + 1e-8)
        y = dense(x, layer.weights(w[index]).whole().to(dtype))
        y = y + layer.bias.to(dtype)[:, None, None]
        y = F.leaky_relu(y, 0.2)
        y = y * math.sqrt(2)
        x = y if layer.conv_clamp is None else y.clamp(-layer.conv_clamp, layer.conv_clamp)
    rgb = dense(x, block.torgb.weights(w[len(block.layers)]).whole().to(dtype)) + block.torgb.bias.to(dtype)[:, None, None]
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
    for layer, sees in zip(block.layers, block.sees, strict=True):
        seen = e if x is None else torch.cat([x, e], dim=1) if sees else x
        x = F.relu(apply(layer, w.pop(0), seen))
    rgb = apply(block.torgb, w[0], x).float()
    return x, rgb if img is None else img + rgb


def synthesis(network, ws, dtype=None):
    """The image of a SynthesisNetwork for ws [N, num_ws, w_dim] on its trained grid; dtype: of all blocks, default each block's own."""
    from inr import grid

    levels = grid.training_points(network.grids, network.convention, ws.device)
    x = img = None
    first = 0
    for name in network.block_names:
        block = getattr(network, name)
        compute = inr_block if hasattr(block, 'options') else hypernetwork_block
        x, img = compute(block, x, img, ws[:, first : first + block.spec.layers + 1], levels[network.grids.index(block.spec.grid)],
                         dtype or block.dtype)  # fmt: skip
        first += block.spec.layers
    return img if network.activation is None else network.activation(img)
