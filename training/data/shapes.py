"""Sizes of images that training takes, and the pyramid of halves that networks make of them. No torch.

An image of W x H pixels is halved as often as both sides stay whole and have 4 pixels or more. Its resolution R is a square's side that is
halved as often: 64 for 64x64, for 128x64 (64x32, 32x16, 16x8, 8x4) and for 96x64 (6x4 in the end). Each level of the pyramid is called as
the square's is, 4 to R, and has W / R times as many columns and H / R times as many rows: this pair is the extent. So a pixel is the R-th
part of a unit in both directions, and what follows from R, channels and frequencies, is that of the square.
"""

from training.data import RESOLUTIONS

WORDS = f'a power of two from {RESOLUTIONS[0]} to {RESOLUTIONS[-1]} as the side of squares, or WIDTHxHEIGHT in multiples of 16'


def resolution_of(width: int, height: int) -> int | None:
    """R of images of so many pixels; None for a size that training does not take."""
    if width % 16 or height % 16 or min(width, height) < 16:
        return None
    halvings = min((side & -side).bit_length() - 1 for side in (width, height))  # after which both sides are still whole
    halvings = min(halvings, (min(width, height) // 4).bit_length() - 1)
    R = min(4 << halvings, RESOLUTIONS[-1])
    return R if width != height or width == R else None


def as_text(size: tuple[int, int]) -> str:
    """'64' for (64, 64), '128x64' for (128, 64), as --resolution takes it."""
    return f'{size[0]}' if size[0] == size[1] else f'{size[0]}x{size[1]}'
