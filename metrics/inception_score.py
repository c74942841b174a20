"""Inception score (Salimans et al., arXiv 1606.03498, section 4): exp E_x KL(p(y|x) | p(y)), over consecutive parts of the images."""

import numpy as np

from metrics.inputs import array

SUM_MAY_BE_OFF = 1e-3


def part_bounds(total, splits):
    """The first rows of `splits` consecutive parts of `total` rows, and the end: int [splits + 1]."""
    return np.arange(splits + 1) * total // splits


class RunningScore:
    """The sums of an inception score, fed batch by batch in order; memory is [splits, K] however many images come.

    total: rows that will come;  splits: parts, at most `total`
    """

    def __init__(self, total, splits):
        if not 1 <= splits <= total:
            raise ValueError(f'{splits} splits of {total} rows: 1 to as many as there are rows are needed')
        self.bounds, self.rows = part_bounds(total, splits), 0
        self.marginals, self.entropies = None, np.zeros(splits)

    def add(self, probs):
        """probs: [N, K], rows of non-negative numbers that sum to 1. Raises ValueError for anything that is not a distribution."""
        probs = array(probs).astype(np.float64)
        if probs.ndim != 2 or not (probs >= 0).all() or not (np.abs(probs.sum(axis=1) - 1) < SUM_MAY_BE_OFF).all():
            raise ValueError('probabilities [N, K] are needed, each row non-negative with sum 1 (half precision does not keep that)')
        if self.marginals is None:
            self.marginals = np.zeros((len(self.entropies), probs.shape[1]))
        parts = np.searchsorted(self.bounds, self.rows + np.arange(len(probs)), side='right') - 1
        np.add.at(self.marginals, parts, probs)
        np.add.at(self.entropies, parts, _sum_p_log_p(probs))
        self.rows += len(probs)

    def result(self):
        """(mean, standard deviation over the parts), floats. Raises ValueError when rows are missing."""
        if self.rows != self.bounds[-1]:
            raise ValueError(f'{self.rows} rows have come, {self.bounds[-1]} were announced')
        sizes = np.diff(self.bounds)
        scores = np.exp(self.entropies / sizes - _sum_p_log_p(self.marginals / sizes[:, None]))
        return float(scores.mean()), float(scores.std())


def _sum_p_log_p(probs):
    """sum_y p log p of each row, 0 log 0 = 0.  [N, K] -> [N]"""
    return (probs * np.log(np.where(probs > 0, probs, 1))).sum(axis=1)


def inception_score(probs, splits=10):
    """exp of the mean KL divergence of each image's class distribution from the mean one, in each of `splits` consecutive parts.

    probs:  [N, K], class probabilities of N images: rows of non-negative numbers that sum to 1
    splits: parts of the images, in their order
    Returns (mean, standard deviation over the parts), floats: 1 when all images say the same, K when they are certain and evenly spread.
    Raises ValueError for anything that is not a distribution.
    """
    running = RunningScore(len(probs), splits)
    running.add(probs)
    return running.result()


def figures(_real, drawn, _subject):
    """(mean, deviation) of the sums in a set's FeatureStats."""
    return drawn.score.result()


def notes(_real, drawn):
    """What a reader should know of the score of this set."""
    if drawn.total < 50_000:
        yield f'{drawn.total} images in {len(drawn.score.bounds) - 1} parts: the score is lower than that of 50,000 would be'
