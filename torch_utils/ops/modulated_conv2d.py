"""Modulated and demodulated convolution (StyleGAN2, section 2.2)."""

import math

import torch

from torch_utils.ops.conv2d_resample import conv2d_resample

SMALLEST = 1e-30  # what is divided by


def modulated_conv2d(x, weight, styles, noise=None, up=1, padding=0, resample_filter=None, demodulate=True, flip_weight=True):
    """Convolution whose input channels are scaled by each image's styles (StyleGAN2, equations 1 to 3).

    x:          [N, C_in, H, W]
    weight:     [C_out, C_in, K, K], shared by the images
    styles:     [N, C_in]
    noise:      added to the result, anything that broadcasts; None adds nothing
    demodulate: divide each output channel by the norm its scaled weights have
    up, padding, flip_weight and resample_filter (there: f) as in `conv2d_resample`
    Returns [N, C_out, H up, W up] in x's dtype. Scaling activations in place of weights gives the same numbers with one
    convolution for the whole batch, which on a CPU is much faster than one group per image.
    """
    if demodulate and x.dtype == torch.float16:  # demodulation cancels any factor, and float16 overflows at 65504
        fan_in = weight[0].numel()
        weight = weight / (weight.abs().amax(dim=[1, 2, 3], keepdim=True).clamp(min=SMALLEST) * math.sqrt(fan_in))
        styles = styles / styles.abs().amax(dim=1, keepdim=True).clamp(min=SMALLEST)  # all zero: the result is zero
    y = x * styles.to(x.dtype)[:, :, None, None]  # [N, C_in, H, W]
    y = conv2d_resample(y, weight.to(x.dtype), f=resample_filter, up=up, padding=padding, flip_weight=flip_weight)
    noise = None if noise is None else noise.to(x.dtype)
    if demodulate:
        power = styles.square() @ weight.to(styles.dtype).square().sum(dim=[2, 3]).t()  # [N, C_out]
        scale = (power + 1e-8).rsqrt().to(x.dtype)[:, :, None, None]
        return y * scale if noise is None else torch.addcmul(noise, y, scale)
    return y if noise is None else y + noise
