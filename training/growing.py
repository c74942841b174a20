"""Growing: most images of a run are seen small, the last ones at full size (Karras et al. 2018, arXiv 1710.10196, section 2).

Nothing learned is lost at a step. G's new to-RGB layers begin at zero, so that a network draws its smaller picture enlarged until they have
learned something, and a snapshot draws at full size at any time; D fades its new block in.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from dnnlib.util import UserError


@dataclass(frozen=True)
class Stage:
    """What a step trains at. resolution: of its images; fade: share of D's block of that resolution, below 1 while it is new."""

    resolution: int
    fade: float = 1.0


def smaller_sizes(text: str) -> list[tuple[int, float]]:
    """[(resolution, kimg)] of '16:40,32:80': the sizes before the full one, from the smallest, and how long each lasts.

    '' and 'none' have none. Raises ValueError, in words for the command line, for another form, sizes that do not rise or are no powers of
    two from 8, and lengths below 0.
    """
    stages: list[tuple[int, float]] = []
    for part in [] if text in ('', 'none') else text.split(','):
        try:
            size, kimg = part.split(':')
            stages.append((int(size), float(kimg)))
        except ValueError:
            raise ValueError(f"'{part}' is not SIZE:KIMG; 32:100 trains on 100,000 images of 32x32 first") from None
    before = 4
    for size, kimg in stages:
        if size & (size - 1) or size <= before:
            raise ValueError(f'{size} is not a power of two above {before}: sizes are powers of two from 8 that rise')
        if not 0 <= kimg < float('inf'):
            raise ValueError(f'{kimg:g} is no number of kimg: 0 or more')
        before = size
    return stages


def as_text(stages: Iterable[tuple[int, float]]) -> str:
    """The opposite of `smaller_sizes`."""
    return ','.join(f'{size}:{kimg:g}' for size, kimg in stages)


def checked(text: str) -> str:
    """--grow as it is kept. Raises ValueError as `smaller_sizes` does."""
    return as_text(smaller_sizes(text))


def from_size(sizes: str, known: int, full: int) -> str:
    """`sizes` for a run up to `full` whose networks draw images of `known` pixels already: those are its first, for no time at all."""
    stages = smaller_sizes(sizes)
    if not stages or known < stages[0][0]:
        return sizes
    return as_text([(known, 0)] * (known < full) + [(size, kimg) for size, kimg in stages if size > known])


def missing_size(sizes: str, full: int) -> int | None:
    """The first size, from the smallest on, that is half the next one and not among `sizes`; None where each is twice the one before."""
    steps = [size for size, _ in smaller_sizes(sizes)] + [full]
    return next((after // 2 for before, after in zip(steps, steps[1:], strict=False) if after != 2 * before), None)


def stage_at(sizes: str, fade: float, full: int, images: int) -> Stage:
    """The stage of the step after `images` images of a run whose full resolution is `full`. fade: kimg of a fade-in, 0 for none."""
    begin, resolution = 0.0, full
    stages = smaller_sizes(sizes)
    for size, kimg in stages:
        if images < begin + kimg * 1000:
            resolution = size
            break
        begin += kimg * 1000
    new = bool(stages) and resolution != stages[0][0]
    return Stage(resolution, min((images - begin) / (fade * 1000), 1.0) if new and fade else 1.0)


def images_by_size(sizes: str, full: int, begin: int, end: int) -> dict[int, int]:
    """{resolution: images} of a run from `begin` to `end` images; sizes: '' for one that does not grow."""
    counts, first = {}, 0
    for size, kimg in smaller_sizes(sizes):
        counts[size] = max(min(first + round(kimg * 1000), end) - max(first, begin), 0)
        first += round(kimg * 1000)
    return {**counts, full: max(end - max(first, begin), 0)}


def fit(images, stage: Stage | None, full: int):
    """Real images [N, C, H, W] as a stage has them: averaged down to its size, and blended with the size before while that fades out.

    stage: None leaves them as they are;  full: their resolution, R of data.shapes
    """
    def halved(x):
        return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))               # [N, C, H/2, W/2]

    if stage is None:
        return images
    while full > stage.resolution:
        images, full = halved(images), full // 2
    if stage.fade < 1:
        before = halved(images).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)  # [N, C, H, W]
        images = before.lerp(images, stage.fade)
    return images


def begin_at_zero(synthesis, sizes: str, full: int) -> None:
    """Sets to-RGB of the blocks of G that come after the first stage to zero: they start without a share in the image.

    Raises UserError for a generator that draws no smaller images on the way to the full size.
    """
    first = smaller_sizes(sizes)[0][0]
    for size in [2 ** k for k in range(3, 11) if first < 2 ** k <= full]:
        torgb = getattr(getattr(synthesis, f'b{size}', None), 'torgb', None)
        if not hasattr(torgb, 'weight'):
            raise UserError(f'--grow={sizes}: this generator has no to-RGB layer at {size} pixels; those of inr and stylegan2 have')
        for parameter in (torgb.weight, torgb.bias):
            parameter.data.zero_()
