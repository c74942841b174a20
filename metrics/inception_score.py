"""Inception score: how sure a classifier is of each image, and how varied its answers are (Salimans et al. 2016, arXiv 1606.03498)."""

import numpy as np


def inception_score(probs, splits=10):
    """exp of the mean of KL(p(y|x) || p(y)) over the images of a split; p(y) is the mean of the split.

    probs: [N, classes], rows sum to 1; splits: parts in their order, as equal as can be
    Returns (mean, standard deviation) over the splits: 1 for equal answers, the number of classes for sure and evenly spread ones.
    Raises ValueError where there are fewer images than splits.
    """
    probs = np.asarray(probs, dtype=np.float64)
    if len(probs) < splits:
        raise ValueError(f'{len(probs)} images are too few for {splits} splits')
    scores = []
    for part in np.array_split(probs, splits):
        logs = np.log(np.maximum(part, 1e-300)) - np.log(np.maximum(part.mean(axis=0), 1e-300))
        scores.append(np.exp((part * logs).sum(axis=1).mean()))
    return float(np.mean(scores)), float(np.std(scores))
