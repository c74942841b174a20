"""Layers of the StyleGAN2 networks, all with equalized learning rate: weights start at unit deviation and are scaled when used.

Constructor arguments and state-dict keys are those of stylegan2-ada-pytorch.
Letters in shape trails: N images, C channels, R resolution, G images of a group, F parts of the features.
"""

import math

import torch
from torch import nn

from torch_utils.ops import bias_act, upfirdn2d
from torch_utils.ops.bias_act import activation_funcs
from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.modulated_conv2d import modulated_conv2d

DEFAULT_FILTER = (1, 3, 3, 1)


def shape_of(resolution, extent):
    """(rows, columns) of the level R of a pyramid (training.data.shapes). extent: (x, y) in units of R pixels"""
    return round(resolution * extent[1]), round(resolution * extent[0])


class FullyConnectedLayer(nn.Module):
    """Linear layer with equalized learning rate, activation included.

    lr_multiplier: weights are stored 1 / lr_multiplier times as large and scaled down when used, so that they learn slower
    bias_init:     value every bias starts from
    """

    def __init__(self, in_features, out_features, bias=True, activation='linear', lr_multiplier=1, bias_init=0):
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], float(bias_init))) if bias else None
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x):
        """[N, in_features] -> [N, out_features], in x's dtype."""
        x, w = x * self.weight_gain, self.weight.to(x.dtype)  # x has the fewer numbers
        b = None if self.bias is None else self.bias.to(x.dtype) * self.bias_gain
        if self.activation == 'linear':
            return nn.functional.linear(x, w, b)
        return bias_act.bias_act(x @ w.t(), b, act=self.activation)


class Conv2dLayer(nn.Module):
    """Convolution with equalized learning rate, resampling, activation and clamp.

    resample_filter: taps used when up or down exceeds 1
    conv_clamp:      bound on the absolute value of the output, None for none
    trainable:       False turns weights into buffers (frozen layers)
    """

    def __init__(self, in_channels, out_channels, kernel_size, bias=True, activation='linear', up=1, down=1,
                 resample_filter=DEFAULT_FILTER, conv_clamp=None, trainable=True):
        super().__init__()
        self.activation, self.up, self.down, self.conv_clamp = activation, up, down, conv_clamp
        self.act_gain = activation_funcs[activation].def_gain
        self.padding = kernel_size // 2
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.register_buffer('resample_filter', upfirdn2d.setup_filter(resample_filter))
        tensors = {'weight': torch.randn(out_channels, in_channels, kernel_size, kernel_size),
                   'bias': torch.zeros(out_channels) if bias else None}
        for name, tensor in tensors.items():
            if trainable:
                self.register_parameter(name, None if tensor is None else nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)

    def forward(self, x, gain=1):
        """[N, C_in, H, W] -> [N, C_out, H up / down, W up / down]; gain scales the output and its clamp."""
        if x.dtype == self.weight.dtype and x.numel() < self.weight.numel():  # the gain goes where the fewer numbers are
            x, w = x * self.weight_gain, self.weight
        else:
            w = (self.weight * self.weight_gain).to(x.dtype)
        x = conv2d_resample(x, w, f=self.resample_filter, up=self.up, down=self.down, padding=self.padding, flip_weight=self.up == 1)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act.bias_act(x, self.bias, act=self.activation, gain=self.act_gain * gain, clamp=clamp)


class SynthesisLayer(nn.Module):
    """Modulated convolution, noise, bias, activation (StyleGAN2, figure 2c).

    resolution: R of the output; up: its factor over the input
    extent:     sides of the picture in units of R pixels, (x, y), see training.data.shapes
    use_noise:  add a noise image of learned strength
    """

    def __init__(self, in_channels, out_channels, w_dim, resolution, kernel_size=3, up=1, use_noise=True, activation='lrelu',
                 resample_filter=DEFAULT_FILTER, conv_clamp=None, extent=(1, 1)):
        super().__init__()
        self.resolution, self.up, self.use_noise, self.activation, self.conv_clamp = resolution, up, use_noise, activation, conv_clamp
        self.shape = shape_of(resolution, extent)
        self.act_gain = activation_funcs[activation].def_gain
        self.padding = kernel_size // 2
        self.register_buffer('resample_filter', upfirdn2d.setup_filter(resample_filter))
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        if use_noise:
            self.register_buffer('noise_const', torch.randn(*self.shape))
            self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x, w, noise_mode='random', gain=1):
        """x [N, C_in, H / up, W / up], w [N, w_dim] -> [N, C_out, H, W]. noise_mode: 'random', 'const' or 'none'."""
        noise = None
        if self.use_noise and noise_mode == 'random':
            noise = torch.randn(x.shape[0], 1, *self.shape, device=x.device) * self.noise_strength
        if self.use_noise and noise_mode == 'const':
            noise = self.noise_const * self.noise_strength
        x = modulated_conv2d(x, self.weight, self.affine(w), noise, up=self.up, padding=self.padding,
                             resample_filter=self.resample_filter, flip_weight=self.up == 1)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act.bias_act(x, self.bias, act=self.activation, gain=self.act_gain * gain, clamp=clamp)


class ToRGBLayer(nn.Module):
    """Features to image channels: modulated 1x1 convolution without demodulation."""

    def __init__(self, in_channels, out_channels, w_dim, kernel_size=1, conv_clamp=None):
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x, w):
        """x [N, C_in, H, W], w [N, w_dim] -> [N, img_channels, H, W]."""
        x = modulated_conv2d(x, self.weight, self.affine(w) * self.weight_gain, padding=self.weight.shape[-1] // 2, demodulate=False)
        return bias_act.bias_act(x, self.bias, clamp=self.conv_clamp)


class MinibatchStdLayer(nn.Module):
    """Appends the standard deviation over small groups of images as channels (Progressive GAN, section 3).

    group_size:   images per group; the largest number up to it that divides the batch, None for the whole batch
    num_channels: the features are cut into so many parts, each giving a channel
    """

    def __init__(self, group_size, num_channels=1):
        super().__init__()
        self.group_size, self.num_channels = group_size, num_channels

    def forward(self, x):
        """[N, C, H, W] -> [N, C + num_channels, H, W]."""
        N, C, H, W = x.shape
        limit = N if self.group_size is None else min(self.group_size, N)
        G = next(g for g in range(limit, 0, -1) if N % g == 0)
        F = self.num_channels
        y = x.reshape(G, N // G, F, C // F, H, W)
        y = (y - y.mean(dim=0)).square().mean(dim=0)  # [N/G, F, C/F, H, W], image i is in group i mod N/G
        y = (y + 1e-8).sqrt().mean(dim=[2, 3, 4])  # [N/G, F]
        return torch.cat([x, y.repeat(G, 1)[:, :, None, None].expand(-1, -1, H, W)], dim=1)
