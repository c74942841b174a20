"""Exponential moving average of the generator's weights, the copy that images are drawn with."""

import torch


def ema_beta(batch: int, kimg: float, rampup: float | None, images: int) -> float:
    """What remains of the average in one step: 0.5 ^ (batch / half-life).

    kimg:   half-life of a weight in the average, in thousands of images; 0 copies the weights
    rampup: half-life at most this share of the images seen so far; None: no ramp
    images: images seen before this step
    """
    half_life = kimg * 1000
    if rampup is not None:
        half_life = min(half_life, images * rampup)
    return 0.5 ** (batch / half_life) if half_life > 0 else 0.0


@torch.no_grad()
def update_ema(average: torch.nn.Module, network: torch.nn.Module, beta: float) -> None:
    """average = beta * average + (1 - beta) * network for parameters; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - beta)  # strict about their number
    torch._foreach_copy_(list(average.buffers()), list(network.buffers()))
