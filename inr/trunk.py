"""Generator A's trunk: z to w, and the linear layers that it and the hypernetwork's heads are made of (INR-GAN, appendix A).

Legend: N images.
"""

import math

import torch
from torch import nn

from inr.ops.layer import own_types
from training.networks import FullyConnectedLayer


class Linear(nn.Linear):
    """nn.Linear that computes in its input's type, as the host's FullyConnectedLayer does."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


def linear(in_features, out_features, equalized, bias_scale=1.0):
    """A linear layer with PyTorch's initialization, or with an equalized learning rate; its initial biases times `bias_scale`."""
    if equalized:
        layer = FullyConnectedLayer(in_features, out_features)
        layer.weight_gain /= math.sqrt(3)  # used at the spread that PyTorch's initialization has
        return layer
    layer = Linear(in_features, out_features)
    layer.bias.data *= bias_scale
    return layer


def head(w_dim, out_features, equalized):
    """A part of the last linear layer of the hypernetwork; its biases start small."""
    return linear(w_dim, out_features, equalized, bias_scale=math.sqrt(1 / w_dim))


class Trunk(nn.Module):
    """z, with labels beside a learned embedding of c, to w: linear layers with ReLU, x + a relu(W x + b) where sizes agree (a learned).

    Called as StyleGAN2's mapping network is; truncation draws w, the trunk's last representation, towards its running mean (B.3).

    num_layers: 3 in the paper, with w_dim = 1024; embed_features: numbers that a label becomes, default z_dim
    pixel_norm: scale z to mean square 1 first; equalized_lr: of all layers; w_avg_beta: decay of the running mean
    """

    def __init__(
        self, z_dim, c_dim, w_dim, num_ws, num_layers=3, embed_features=None, pixel_norm=False, equalized_lr=False, w_avg_beta=0.995
    ):  # fmt: skip
        super().__init__()
        if z_dim < 1 or num_layers < 1:
            raise ValueError(f'z_dim {z_dim} and num_layers {num_layers} of the trunk must be at least 1')
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.pixel_norm, self.w_avg_beta = pixel_norm, w_avg_beta
        embed_features = (z_dim if embed_features is None else embed_features) if c_dim else 0
        if c_dim:
            self.embedding = nn.Parameter(torch.randn([c_dim, embed_features]))
        widths = [z_dim + embed_features] + [w_dim] * num_layers
        self.layers = nn.ModuleList(linear(a, b, equalized_lr) for a, b in zip(widths, widths[1:], strict=False))
        self.residual_scales = nn.Parameter(torch.full([num_layers - 1], 0.1))
        self.register_buffer('w_avg', torch.zeros([w_dim]))

    def forward(self, z, c=None, truncation_psi=1, truncation_cutoff=None, skip_w_avg_update=False):
        """z [N, z_dim], c [N, c_dim] (ignored if c_dim is 0) -> ws [N, num_ws, w_dim]; see the host's MappingNetwork."""
        inputs = [('z', z, self.z_dim)] + ([('c', c, self.c_dim)] if self.c_dim else [])
        for name, value, size in inputs:
            if value is None or value.ndim != 2 or value.shape[1] != size:
                given = None if value is None else list(value.shape)
                raise ValueError(f'the trunk needs {name} of shape [N, {size}], it was given {given}')
        if self.c_dim and len(z) != len(c):
            raise ValueError(f'the trunk was given {len(z)} z and {len(c)} c: a label for each')
        with own_types(z.device):
            ws = self._ws(z.to(torch.float32), c, skip_w_avg_update)
            if truncation_psi != 1:
                ws[:, :truncation_cutoff] = self.w_avg.to(ws.dtype).lerp(ws[:, :truncation_cutoff], truncation_psi)
        return ws

    def _ws(self, x, c, skip_w_avg_update):
        """ws without truncation."""
        if self.pixel_norm:
            x = x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        if self.c_dim:
            x = torch.cat([x, c.to(x.dtype) @ self.embedding.to(x.dtype)], dim=1)
        x = self.layers[0](x).relu()
        for scale, layer in zip(self.residual_scales, self.layers[1:], strict=True):
            x = x + scale * layer(x).relu()  # [N, w_dim]
        if self.training and not skip_w_avg_update:
            self.w_avg.copy_(x.detach().mean(dim=0).lerp(self.w_avg.to(x.dtype), self.w_avg_beta))
        return x.unsqueeze(1).repeat(1, self.num_ws, 1)
