"""Keypoint prediction loss, KPL (INR-GAN, appendix B.2, Algorithm 1): how well a linear map of w tells where the keypoints are.

A regression from w to keypoints is fitted on drawn images and tested on real ones, whose w the projector finds. KPL (random) fits it on
permuted codes: what is then predicted is the mean, so it tells how much keypoints vary.
"""

import hashlib
import time

import numpy as np
import torch

from dnnlib.util import UserError
from inference import projection
from metrics import perceptual
from metrics.collection import collect, from_main, keep
from metrics.feature_stats import FeatureStats
from metrics.image_sources import DataImages, synthesize, weights_digest
from metrics.keypoints import EYE_CORNERS, SIDE
from metrics.subject import Score
from torch_utils import distributed
from torch_utils.misc import size_of
from torch_utils.pixels import from_uint8, quantized


def fit_linear(w, keypoints, ridge=0.0):
    """The linear map that predicts keypoints from w with the least squares, through a singular value decomposition of the centred codes.

    w:         [N, D];  keypoints: [N, M]
    ridge:     penalty on the map, in units of the mean square of the singular values; 0: none, directions without spread get 0
    Returns (A [D, M], b [M]): keypoints are w A + b.
    """
    w, keypoints = np.asarray(w, np.float64), np.asarray(keypoints, np.float64)
    mean_w, mean_k = w.mean(axis=0), keypoints.mean(axis=0)
    left, values, right = np.linalg.svd(w - mean_w, full_matrices=False)
    kept = values > values.max(initial=0) * max(w.shape) * np.finfo(np.float64).eps
    left, values, right = left[:, kept], values[kept], right[kept]
    penalty = ridge * np.mean(np.square(values)) if kept.any() else 0.0
    A = right.T @ ((values / (np.square(values) + penalty))[:, None] * (left.T @ (keypoints - mean_k)))
    return A, mean_k - mean_w @ A


def squared_errors(A, b, w, keypoints):
    """|w A + b - keypoints|^2 of each image.  [N, D], [N, M] -> [N]"""
    return np.square(w @ A + b - keypoints).sum(axis=1)


def normalized_error(A, b, w, keypoints):
    """Mean distance of predicted and true points in inter-ocular distances (of 68 points, else half the image), a float."""
    count = len(w)
    true = keypoints.reshape(count, -1, 2)
    distances = np.linalg.norm((w @ A + b).reshape(true.shape) - true, axis=2).mean(axis=1)
    unit = np.linalg.norm(true[:, EYE_CORNERS[0]] - true[:, EYE_CORNERS[1]], axis=1) if true.shape[1] == 68 else np.full(count, SIDE / 2)
    return float((distances / unit).mean())


class KeypointPrediction:
    """The run around it, which Subject.keypoints holds.

    extractor: images -> keypoints, see metrics.keypoints
    tests:     real images that are projected;  steps: of each projection;  distance: its name, as in projector.py
    ridge:     see `fit_linear`
    """

    def __init__(self, extractor, tests=256, steps=1000, distance='auto', ridge=0.0):
        self.extractor, self.tests, self.steps, self.ridge = extractor, tests, steps, ridge
        self.distance, _reason = perceptual.choose(distance)

    def __call__(self, metric, subject, names):
        """({name: figure}, notes, facts) of kpl or kpl_random; both share what is drawn and projected, which stays on the disk."""
        G, data = subject.G, subject.dataset
        there, drawn = (data.num_channels, *data.size), (G.img_channels, *size_of(G))
        if there != drawn:
            raise UserError(f'kpl projects real images: {data.path} has {"x".join(map(str, there))}, '
                            f'this network draws {"x".join(map(str, drawn))}; give its own data with --data')
        latents, reals = subject.latents(), DataImages(data, self.tests, subject.labels and subject.labels[0])
        common = f'kpl {weights_digest(G)} {self.extractor.digest}'
        drawn = self._rows(subject, metric.num, subject.batch, 'drawn', f'{common} {latents.digest} {metric.num}', self._draw(G, latents))
        key = f'{common} {reals.digest} {latents.digest} {self.steps} {self.distance.name}'
        real = self._rows(subject, reals.total, 1, 'projections', key, self._project(subject, reals))
        values = from_main(lambda: dict(zip(names, self._figures(metric, G.w_dim, drawn.features, real.features), strict=True)), names,
                           subject.device)
        used = int(values[names[-1]])
        missing = f'{reals.total - used} of {reals.total} real images have no face that {self.extractor.name} finds'
        return values, (missing,) if used < reals.total else (), {
            'keypoints': self.extractor.name, 'keypoints_digest': self.extractor.digest, 'num': metric.num, 'num_real': reals.total,
            'steps': self.steps, 'distance': self.distance.name, 'ridge': self.ridge, 'seed': subject.seed}

    def _rows(self, subject, total, batch, title, key, work):
        """Rows [w, keypoints, 1 where there is a face] of `total` images, from the disk as far as they are there."""
        state = subject.folder / f'kpl-{title}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz'
        stats = FeatureStats(total, moments=False, kept=total)
        if collect(work, stats, batch, subject.device, f'kpl, {title}', state, subject.say) and distributed.is_main():
            keep(stats, state, subject.say)
        return stats

    def _row(self, ws, points):
        points = points.reshape(len(points), -1)
        face = np.isfinite(points).all(axis=1, keepdims=True)
        return torch.cat([ws.double().cpu(), torch.from_numpy(np.where(face, points, 0)), torch.from_numpy(face)], dim=1).float()

    def _draw(self, G, latents):
        def work(numbers):
            z, c = latents(numbers)
            ws = G.mapping(z[0], c)
            images = quantized(synthesize(G, ws, numbers[0])).cpu()
            return self._row(ws[:, 0], self.extractor(images)).to(latents.device), None
        return work

    def _project(self, subject, reals):
        G, device = subject.G, subject.device
        distance = self.distance.to(device)

        def work(numbers):
            images = reals.batch(numbers)
            points = self.extractor(images)
            if not np.isfinite(points).all():
                return self._row(torch.zeros(1, G.w_dim), points).to(device), None
            label = torch.from_numpy(reals.label(numbers[0]))[None].to(device) if G.c_dim else None
            start, deviation = projection.w_statistics(G.mapping, G.z_dim, label)
            target = from_uint8(images.to(device))
            with torch.enable_grad():
                for step in projection.project(G.synthesis, start, deviation, target, distance.embed, projection.Options(steps=self.steps)):
                    found = step.ws
            return self._row(found[:, 0], points).to(device), None
        return work

    def _figures(self, metric, w_dim, drawn, real):
        """The figures in the order of the outputs of metrics.registry.KINDS['kpl']. Raises UserError for too few faces."""
        (w, k), (test_w, test_k) = (_with_faces(rows, w_dim) for rows in (drawn, real))
        needed = 2 if self.ridge else w_dim + 2
        if len(w) < needed:
            raise UserError(f'{metric.variant}: {len(w)} of {len(drawn)} drawn images have a face that {self.extractor.name} finds, '
                            f'at least {needed} are needed: train longer, raise --num, or give --ridge')
        if not len(test_w):
            raise UserError(f'{metric.variant}: 0 of {len(real)} real images have a face that {self.extractor.name} finds, at least 1 is '
                            'needed')
        if metric.variant == 'kpl_random':
            w = w[np.random.RandomState(0).permutation(len(w))]
        fit = fit_linear(w, k, self.ridge)
        errors = squared_errors(*fit, test_w, test_k)
        return errors.sum(), errors.mean(), normalized_error(*fit, test_w, test_k), squared_errors(*fit, w, k).mean(), len(errors)


def _with_faces(rows, w_dim):
    rows = rows[rows[:, -1] == 1].astype(np.float64)
    return rows[:, :w_dim], rows[:, w_dim:-1]


# ---- Of a generator


def run(group, subject, _detector):
    """kpl and kpl_random: yields one `Score`."""
    (metric,), began = group, time.monotonic()
    if subject.keypoints is None:
        raise UserError(f'{metric.variant} needs a keypoint extractor: --keypoints=dlib68 or a TorchScript of one')
    names = [metric.score_name() + end for end in metric.outputs]
    values, notes, facts = subject.keypoints(metric, subject, names)
    yield Score(metric, values, notes, {**facts, 'seconds': time.monotonic() - began})
