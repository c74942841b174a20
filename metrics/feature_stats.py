"""Sums over the features of a set of images, fed in order and batch by batch; memory does not grow with the number of images."""

from pathlib import Path

import numpy as np

from dnnlib.util import atomic_path
from metrics.inception_score import RunningScore


class FeatureStats:
    """Mean and covariance in float64, a random sample of rows, and the sums of an inception score.

    total:    rows that will come
    moments:  whether mean and covariance are wanted ([D, D] numbers)
    kept:     rows to keep, chosen evenly at random by `seed` and the total alone; all of them where there are no more
    splits:   parts of an inception score; 0: none is wanted
    `features` is [kept, D], float32, in the order of the set.
    """

    def __init__(self, total, moments=True, kept=0, splits=0, seed=0):
        self.total, self.moments, self.rows = total, moments, 0
        kept = min(kept, total)
        self._chosen = np.sort(np.random.RandomState(seed).permutation(total)[:kept])
        self.features, self._stored = None, 0
        self._shift = self._sum = self._outer = None
        self.score = RunningScore(total, splits) if splits else None

    def add(self, features, probs=None):
        """features: [N, D], finite;  probs: [N, K], class probabilities, needed with `splits`. Raises ValueError for what is not finite."""
        features = np.asarray(features)
        if not np.isfinite(features).all():
            raise ValueError(f'the features of images {self.rows} to {self.rows + len(features) - 1} are not all finite')
        if self.features is None:
            self.features = np.empty((len(self._chosen), features.shape[1]), np.float32)
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
        """Writes all but an inception score's sums as .npz, whole or not at all."""
        arrays = {'total': self.total, 'features': self.features}
        if self.moments:
            arrays.update(shift=self._shift, sum=self._sum, outer=self._outer)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, open(temporary, 'wb') as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path):
        """What `save` wrote. Raises ValueError or OSError for another or a damaged file."""
        with np.load(path, allow_pickle=False) as file:
            if not {'total', 'features'} <= set(file.files):
                raise ValueError(f'{path} holds no statistics of features')
            stats = cls(int(file['total']), moments='outer' in file.files)
            stats.features, stats.rows = file['features'], stats.total
            if stats.moments:
                stats._shift, stats._sum, stats._outer = file['shift'], file['sum'], file['outer']
        return stats
