"""Images in [-1, 1], as networks have them, and their bytes, as files have them: the one place that turns one into the other."""

import numpy as np
import torch


def quantized(images: torch.Tensor) -> torch.Tensor:
    """Images [N, C, H, W] in [-1, 1] as uint8 [N, C, H, W] on their device; what lies outside is clipped. Raises TypeError for bytes."""
    if not images.is_floating_point():
        raise TypeError(f'images in [-1, 1] are floating point, these are {images.dtype}')
    return (images.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Images [N, C, H, W] in [-1, 1] as uint8 [N, H, W, C], the layout of image files."""
    return quantized(images).permute(0, 2, 3, 1).cpu().numpy()


def from_uint8(images: torch.Tensor) -> torch.Tensor:
    """uint8 [N, C, H, W] as float32 in [-1, 1]. Raises TypeError for another type."""
    if images.dtype != torch.uint8:
        raise TypeError(f'bytes are uint8, these are {images.dtype}')
    return images.float() / 127.5 - 1
