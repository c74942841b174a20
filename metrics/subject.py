"""What a metric is given and what it gives: the subject to score, and a score."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dnnlib.util import UserError, cache_folder
from metrics.image_sources import Latents
from metrics.registry import Metric
from torch_utils.misc import size_of
from training.data.files import DEMO
from training.dataset import open_set

ONE_SIZE = 'draws at other sizes, which takes a generator of inr; this one draws'


@dataclass
class Subject:
    """What is to be scored, and how.

    dataset:     real images, a training.dataset.ImageDataset; None where no metric needs any
    G:           generator; or None and `images`
    images:      a data set to score in place of a generator
    labels:      (n -> [c_dim], their number), for a generator with classes; None: those of `dataset`
    files:       {detector: path} to take instead of the published ones
    batch, psi, seed, device: of drawing
    draw:        (ws, scale) -> images at scale times the trained size; None for a generator that draws one size
    keypoints:   keypoint extractor of kpl, and what projects; None: kpl is refused
    extrapolate: fit Fréchet distances against 1/N
    cache:       folder of statistics; None: the download cache
    resume:      keep the sums over drawn images on the disk on the way, so that a killed run goes on
    say:         called with lines for people; None: silent
    """

    dataset: Any
    G: torch.nn.Module | None = None
    images: Any = None
    labels: tuple | None = None
    files: dict = field(default_factory=dict)
    batch: int = 32
    psi: float = 1.0
    seed: int = 0
    device: Any = 'cpu'
    draw: Callable | None = None
    keypoints: Any = None
    extrapolate: bool = False
    cache: Path | None = None
    resume: bool = False
    say: Callable | None = None

    @property
    def folder(self):
        """Where statistics are kept."""
        return self.cache or cache_folder() / 'metrics'

    def latents(self):
        """The latents of the generator's images."""
        labels = self.labels or (self.dataset.drawn_label, len(self.dataset)) if self.G.c_dim else None
        return Latents(self.G, labels, self.seed)


@dataclass(frozen=True)
class Score:
    """A metric's figures. values: {name: float}, the score first; notes: what a reader should know; facts: what was measured, for JSON"""

    metric: Metric
    values: dict
    notes: tuple
    facts: dict


def size_text(G):
    """'64x64', of a generator."""
    return 'x'.join(map(str, size_of(G)))


def seen_at(data):
    """The side at which a network's squares show pictures of any size, None where it draws none. data: what its header says of its set"""
    return None if data.get('size') else data.get('resolution')


def dataset_of(meta, given=None):
    """The data set to compare a network with: training.dataset.ImageDataset of `given`, or of what the network was trained on.

    meta: header of its snapshot
    Raises UserError where it cannot be read.
    """
    if given:
        return open_set(given, seen_at(meta['dataset']))
    path = meta['dataset']['path']
    if path.endswith(DEMO.name):
        path = 'demo'  # wherever it was when the network was trained
    try:
        return open_set(path, seen_at(meta['dataset']), resolution=meta['dataset'].get('res'))
    except UserError as err:
        raise UserError(f"the network's own data set cannot be read ({err}): give it with --data") from None
