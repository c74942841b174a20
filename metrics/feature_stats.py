"""Sums over the features of a set of images, fed in order and batch by batch; memory does not grow with the number of images."""

from pathlib import Path

import numpy as np

from dnnlib.util import atomic_path
from metrics.inception_score import RunningScore
from metrics.inputs import array

SAVED = ('total', 'rows', 'features', '_chosen', '_stored', '_shift', '_sum', '_outer')
SCORE_SAVED = ('rows', 'marginals', 'entropies')


class FeatureStats:
    """Mean and covariance in float64, a random sample of rows, and the sums of an inception score.

    total:    rows that will come
    moments:  whether mean and covariance are wanted ([D, D] numbers)
    kept:     rows to keep, chosen evenly at random by `seed` and the total alone; all of them where there are no more
    splits:   parts of an inception score; 0: none is wanted
    dtype:    of the rows that are kept
    `features` is [kept, D] in the order of the set.
    """

    def __init__(self, total, moments=True, kept=0, splits=0, seed=0, dtype=np.float32):
        self.total, self.moments, self.rows, self._dtype = total, moments, 0, dtype
        kept = min(kept, total)
        self._chosen = np.sort(np.random.RandomState(seed).permutation(total)[:kept])
        self.features, self._stored = None, 0
        self._shift = self._sum = self._outer = None
        self.score = RunningScore(total, splits) if splits else None

    @property
    def kept(self):
        """Number of rows that are kept."""
        return len(self._chosen)

    @property
    def dim(self):
        """Number of features; None before any have come (in other processes than the main one they never do)."""
        return None if self.features is None else self.features.shape[1]

    def add(self, features, probs=None):
        """features: [N, D], finite;  probs: [N, K], class probabilities, needed with `splits`. Raises ValueError for what is not finite."""
        features = array(features)
        if features.ndim != 2:
            raise ValueError(f'features [N, D] are needed, not {features.shape}')
        if not np.isfinite(features).all():
            raise ValueError(f'the features of images {self.rows} to {self.rows + len(features) - 1} are not all finite')
        if self.features is None:
            self.features = np.empty((len(self._chosen), features.shape[1]), self._dtype)
        positions = self._chosen[self._stored:np.searchsorted(self._chosen, self.rows + len(features))] - self.rows
        self.features[self._stored:self._stored + len(positions)] = features[positions]
        self._stored += len(positions)
        if self.moments:
            self._add_moments(features.astype(np.float64))
        if self.score is not None:
            self.score.add(probs)
        self.rows += len(features)

    def _add_moments(self, x):
        if self._shift is None:
            self._shift = x.mean(axis=0)  # sums around a point near the mean do not cancel
            self._sum, self._outer = np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
        x = x - self._shift
        self._sum += x.sum(axis=0)
        self._outer += x.T @ x

    def mean_cov(self):
        """(mean [D], covariance [D, D]), float64; the covariance is divided by N - 1, as in the TensorFlow script. Needs two rows."""
        if self.rows < 2:
            raise ValueError(f'a covariance needs at least 2 images, there are {self.rows}')
        mean = self._sum / self.rows
        return self._shift + mean, (self._outer - self.rows * np.outer(mean, mean)) / (self.rows - 1)

    def save(self, path: Path):
        """Writes everything, also when rows are still to come, as .npz, whole or not at all."""
        arrays = {name: value for name, value in vars(self).items() if name in SAVED and value is not None}
        if self.score is not None:
            arrays.update({f'score_{name}': getattr(self.score, name) for name in SCORE_SAVED if getattr(self.score, name) is not None})
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, open(temporary, 'wb') as file:
            np.savez(file, **arrays)

    def load(self, path: Path):
        """Takes over what `save` wrote for the same arguments. Raises ValueError or OSError for another or a damaged file."""
        with open(path, 'rb') as opened, np.load(opened, allow_pickle=False) as file:
            arrays = dict(file)
        if int(arrays.get('total', -1)) != self.total or not np.array_equal(arrays['_chosen'], self._chosen):
            raise ValueError(f'{path} holds statistics of another set')
        for name, value in arrays.items():
            if name.startswith('score_'):
                setattr(self.score, name.removeprefix('score_'), value if value.ndim else int(value))
            else:
                setattr(self, name, value if value.ndim else int(value))
