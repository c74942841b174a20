"""Training on windows: a function of the plane learns from every pixel its pictures have, at every scale (arXiv 2204.07156 in kind).

A window is (size, left, top): the part of R x R pixels from (left, top) of a picture drawn with size x size pixels, R being the training
resolution, size / R the scale; (R, 0, 0) is the whole picture. A real image is that part of a picture's square, shrunk without aliasing; a
fake one is that part as G draws it. D gets scale and place beside the label.

Legend: N images, C channels, R rows and columns.
"""

import math

import numpy as np
import torch

from torch_utils import distributed
from training import growing
from training.data.transforms import part_of_square
from training.dataset import ImageDataset, flipped

NUMBERS = 5  # in [0, 1), what a window follows from: whole or not, scale, left, top, place of the square


def label(windows: torch.Tensor, resolution: int, highest: float, periodic: tuple[bool, bool] = (False, False)) -> torch.Tensor:
    """What D gets beside the labels for windows [N, 3]: waves of the scale's logarithm and of the place of the middle.

    Returns [N, WINDOW_LABEL_DIM].

    highest: scale at which the former have gone through half a period
    periodic: axes along which pictures are, where all places are the same
    """
    size, left, top = windows.float().unbind(1)
    scale = (size / resolution).log() / math.log(max(highest, 1.001))
    middles = [torch.full_like(size, 0.5) if wraps else (first + resolution / 2) / size
               for first, wraps in zip((left, top), periodic, strict=True)]
    angles = math.pi * torch.stack([scale, *middles], dim=1)  # [N, 3]
    return torch.cat([angles.cos(), angles.sin(), (2 * angles).cos()], dim=1)


def are_whole(windows: torch.Tensor, resolution: int) -> torch.Tensor:
    """Which of windows [N, 3] are whole pictures, bool [N]."""
    return (windows == torch.tensor([resolution, 0, 0], device=windows.device)).all(dim=1)


def coverage(first: torch.Tensor, size: torch.Tensor, resolution: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How the pixels of a window make up those of the whole picture along one axis: (shares [N, R, R], whether it has all of one [N, R]).

    first, size: [N], first pixel of the window and pixels of the picture that it is a part of
    """
    pixel = torch.arange(resolution, device=first.device)
    step = (size / resolution)[:, None]  # [N, 1]
    begin, end = pixel * step, (pixel + 1) * step  # [N, R], of the whole picture's pixels
    own = first[:, None] + pixel  # [N, R]
    shares = torch.minimum(end[:, :, None], own[:, None] + 1) - torch.maximum(begin[:, :, None], own[:, None])
    return shares.clamp(min=0) / step[:, :, None], (begin >= first[:, None]) & (end <= first[:, None] + resolution)


def consistency(drawn: torch.Tensor, windows: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of windows, averaged down, from the same place of the whole pictures: [N], differentiable.

    drawn: [N, C, R, R] of windows [N, 3];  whole: [N, C, R, R]
    """
    size, left, top = windows.to(drawn.device, torch.float32).unbind(1)
    columns, has_columns = coverage(left, size, drawn.shape[-1])
    rows, has_rows = coverage(top, size, drawn.shape[-1])
    small = rows[:, None] @ drawn @ columns[:, None].mT  # [N, C, R, R], right where the window has all of a pixel
    has = (has_rows[:, :, None] & has_columns[:, None])[:, None]
    return ((small - whole).square() * has).sum((1, 2, 3)) / (has.sum((1, 2, 3)) * drawn.shape[1]).clamp(min=1)


class Windows:
    """Windows of a data set's pictures: an item is (pixels uint8 [C, R, R], label float32 [label_dim], window int64 [3]).

    settings: config.Config;  dataset: ImageDataset of pictures of any size
    synthesis: of G, whose grids say of what sizes and places are multiples, and which says where its pictures are periodic
    Items are asked for by (index, position in the run), on which the window depends, so that a resumed run goes on with the same ones.
    """

    def __init__(self, settings, dataset: ImageDataset, synthesis):
        self.config, self.dataset, self.step = settings.windows, dataset, synthesis.pyramid.step
        self.periodic = synthesis.pyramid.convention.periodic
        self.seed, self.batch, self.resolution = settings.run.seed, settings.run.batch, settings.data.resolution
        sizes = growing.smaller_sizes(settings.grow.sizes)
        self.begin = 1000 * (sum(kimg for _, kimg in sizes) + settings.grow.fade * bool(sizes))  # images that are seen whole

    def __len__(self) -> int:
        return len(self.dataset)

    def highest(self, images: int) -> float:
        """The highest scale in the step after so many images; 1 while a run grows."""
        if images < self.begin:
            return 1.0
        ramp = self.config.ramp * 1000
        return self.config.scale_max ** (min((images - self.begin) / ramp, 1.0) if ramp else 1.0)

    def draw(self, side: int, numbers: np.ndarray, images: int, wraps: tuple[bool, bool] = (False, False)) -> tuple[int, int, int]:
        """A window of a picture whose shorter side has so many pixels.

        numbers: [NUMBERS];  images: seen before the step;  wraps: whether it may go on at the picture's beginning along (x, y)
        """
        R, step = self.resolution, self.step
        high = min(side / R, self.highest(images))
        low = min(self.config.scale_min, high)
        if numbers[0] < self.config.whole or high <= 1:
            low = high = 1
        if images < self.begin:
            return R, 0, 0
        size = max(int(R * low * (high / low) ** numbers[1] / step) * step, R)
        places = [(size if wrap else size - R + step) // step for wrap in wraps]
        left, top = (int(number * count) * step for number, count in zip(numbers[2:4], places, strict=True))
        return size, left, top

    def of_items(self, items: list[int], numbers: np.ndarray, images: int) -> torch.Tensor:
        """Windows int64 [N, 3] for generated images that stand for these items, anywhere on what is periodic. numbers: [N, NUMBERS]"""
        sides = map(self.dataset.drawn_side, items)
        return torch.tensor([self.draw(side, own, images, self.periodic) for side, own in zip(sides, numbers, strict=True)])

    def are_parts(self, windows: torch.Tensor | None) -> bool:
        """Whether any of windows [N, 3] is not a whole picture."""
        return windows is not None and not bool(are_whole(windows, self.resolution).all())

    def whole(self, count: int) -> torch.Tensor:
        """The window that is the whole picture, [count, 3]."""
        return torch.tensor([[self.resolution, 0, 0]]).expand(count, -1)

    def labels(self, c: torch.Tensor, windows: torch.Tensor | None) -> torch.Tensor:
        """What D gets for images: their labels c [N, label_dim] and numbers for windows [N, 3], None for whole pictures."""
        windows = self.whole(len(c)) if windows is None else windows
        return torch.cat([c, label(windows, self.resolution, self.config.scale_max, self.periodic).to(c)], dim=1)

    def __getitem__(self, at: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        index, position = at
        numbers = np.random.RandomState(distributed.mix_seed(self.seed, position, 'window') % 2 ** 32).random_sample(NUMBERS)
        place = numbers[4] if self.config.anywhere else 0.5

        def read(name: str, flip: bool) -> tuple[np.ndarray, tuple[int, int, int]]:
            picture = self.dataset.picture(name)
            size, left, top = self.draw(min(picture.shape[1:]), numbers, position // self.batch * self.batch)
            if flip:
                left = size - self.resolution - left
            part = part_of_square(picture, size, left, top, self.resolution, place)
            return flipped(part, flip).copy(), (size, size - self.resolution - left if flip else left, top)

        (pixels, window), label = self.dataset.take(index, read)
        return pixels, label, np.array(window, np.int64)
