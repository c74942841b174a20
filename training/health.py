"""Signs that a run is not well, a row each, and numbers that are not finite.

A detector looks at the numbers of a tick. Its value is written as Health/<name> beside the others, for TensorBoard; when it begins to be
bad, and again when it comes back, the log gets one line that names the option to look at.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from dnnlib.util import UserError
from torch_utils import distributed


@dataclass(frozen=True)
class Detector:
    """name: Health/<name>;  bad: of (value, highest value so far);  text: for the log, with {value}"""

    name: str
    bad: Callable[[float, float], bool]
    text: str


def fallen(value: float, highest: float) -> bool:
    """Whether less than a tenth is left of what was there."""
    return value < highest / 10


DETECTORS = [
    Detector('loss_G', lambda value, _: value < 0.01,
             "G's loss has vanished ({value:.2g}): D takes what G draws for real, whatever it is. A lower --gamma lets D learn more"),
    Detector('loss_D', lambda value, _: value < 0.01,
             "D's loss has vanished ({value:.2g}): it tells all images apart, so G learns nothing. A higher --gamma, a lower --lr, or "
             '--aug=ada if the images are few'),
    Detector('D_range', lambda value, _: value < 0.01,
             'D is pinned: it says the same of every image (to {value:.2g}), so G learns nothing. A lower --gamma helps'),
    Detector('average', lambda value, _: value > 10,
             "the averaged G's weights are {value:.0f} times as large as they began: a lower --lr, or a higher --gamma"),
    Detector('variety', fallen,
             "G's images have become alike: their brightness varies {value:.1%} as much as that of the real ones. Go on from an earlier "
             'snapshot (--resume=FILE), with a higher --gamma or --aug=ada'),
    Detector('recall', fallen,
             'recall has fallen to {value:.3g}: G draws a small part of what it drew. Go on from an earlier snapshot (--resume=FILE), with '
             'a higher --gamma'),
    Detector('data_wait', lambda value, _: value > 0.3,
             'the run waits for data {value:.0%} of its time: more --workers, a zip in place of a folder, or a nearer disk'),
]


class Health:
    """The detectors of a run. G_ema: the averaged generator before its first step, what its weights' size is compared with."""

    def __init__(self, G_ema: torch.nn.Module):
        self.G_ema, self.size = G_ema, rms(G_ema)
        self.highest: dict[str, float] = {}
        self.told: set[str] = set()

    def look(self, values: dict[str, float], say: Callable[[str], None]) -> dict[str, float]:
        """Tells what has become bad, and returns the values as {'Health/name': value}. Without a value a detector stays as it was."""
        found = {}
        for row in DETECTORS:
            value = values.get(row.name, math.nan)
            if not math.isfinite(value):
                continue
            found[f'Health/{row.name}'] = value
            self.highest[row.name] = max(value, self.highest.get(row.name, value))
            if not row.bad(value, self.highest[row.name]):
                self.told.discard(row.name)
            elif row.name not in self.told:
                self.told.add(row.name)
                say(f'Look: {row.text.format(value=value)}')
        return found

    def tick(self, stats: dict[str, dict[str, float]], waited: float | None) -> dict[str, float]:
        """The values of a tick. stats: of `Averages.collect`;  waited: share of its time, None where that is no measure"""
        def spread(*names):
            return math.sqrt(sum(stats[name]['std'] ** 2 for name in names)) if all(name in stats for name in names) else math.nan

        mean = {name: value['mean'] for name, value in stats.items()}
        gap = mean.get('Scores/real', math.nan) - mean.get('Scores/fake', math.nan)
        real = spread('Brightness/real')
        return {
            'loss_G': mean.get('Loss/G', math.nan), 'loss_D': mean.get('Loss/D_real', math.nan) + mean.get('Loss/D_fake', math.nan),
            'D_range': abs(gap) + spread('Scores/real', 'Scores/fake'), 'average': rms(self.G_ema) / self.size if self.size else math.nan,
            'variety': spread('Brightness/fake') / real if real > 1e-3 else math.nan,
            **({'data_wait': waited} if waited is not None else {})}


def recall(scores: dict[str, float]) -> dict[str, float]:
    """The value of the detector 'recall', where there is one among a snapshot's scores."""
    return dict([('recall', value) for name, value in scores.items() if name.endswith('recall')][:1])


def rms(network: torch.nn.Module) -> float:
    """Root of the mean square of all parameters."""
    parameters = list(network.parameters())
    squares = torch.stack([p.detach().double().square().sum() for p in parameters]).sum()
    return math.sqrt(squares.item() / sum(p.numel() for p in parameters))


# ---- Numbers that are none


def not_finite(tree, name: str) -> Iterator[str]:
    """Names of the tensors and numbers in nested dicts and lists that are infinite or NaN."""
    if isinstance(tree, dict | list | tuple):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from not_finite(value, f'{name}.{key}')
    elif isinstance(tree, float) and not math.isfinite(tree) or isinstance(tree, torch.Tensor) and not tree.isfinite().all():
        yield name


def expect_finite(tree, name: str) -> None:
    """Raises UserError for the first of `not_finite`."""
    for place in not_finite(tree, name):
        raise UserError(f'{place} is not finite')


def problem(training) -> str | None:
    """What of a run's weights and optimizers is not finite, in any process, None where all is. All processes must call this."""
    places = [*({name: network.state_dict()} for name, network in training.networks.items()),
              {f'{name}.optimizer': optimizer.state_dict()['state'] for name, optimizer in training.optimizers.items()},
              {'pl_mean': training.loss.pl_mean}]
    found = next((place for tree in places for name in tree for place in not_finite(tree[name], name)), None)
    if not distributed.max_(torch.tensor(float(found is not None), device=training.device)).item():
        return None
    return f'{found or "a number of another process"} is not finite at {training.images / 1000:g} kimg'
