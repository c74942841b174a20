"""Runs metrics: images past a feature network, sums, scores. What each metric is called: metrics/registry.py."""

import dataclasses
import hashlib
import time

import numpy as np
import torch

from dnnlib.util import UserError
from metrics import detectors, path_length, scale_consistency, sliced_wasserstein
from metrics.collection import Clock, OtherProcessFailed, collect, from_main, keep, together
from metrics.feature_stats import FeatureStats
from metrics.frechet_distance import extrapolated, frechet_distance
from metrics.image_sources import SCALES, DataImages, DrawnImages, synthesize, weights_digest
from metrics.kernel_distance import kernel_distance
from metrics.precision_recall import precision_recall
from metrics.subject import Score as Score
from metrics.subject import Subject as Subject
from metrics.subject import expect_generator
from torch_utils import distributed

FORMAT = 1             # of the cached statistics
KERNEL_ROWS = 10_000   # features kept for kernel distances, whose subsets of 1000 are drawn from them
NEIGHBOUR_ROWS = 50_000
SPLITS = 10
NEIGHBOUR = 3
ONE_SIZE = 'draws at other sizes, which takes a generator of inr; this one draws'
PARTS = (4, 3, 2, 1)   # --extrapolate looks at 1/4, 1/3, 1/2 of the images and at all of them


def evaluate(metrics, subject, on_error=None):
    """The scores of metrics, one `Score` after the other. All processes must call this.

    metrics:  list of registry.Metric;  subject: `Subject`
    on_error: called with (metrics, exception) for a group that failed, after which the others go on; None: errors are raised
    Metrics of one network and number of images share a pass. Raises UserError (mistakes), OtherProcessFailed (see metrics.collection).
    """
    groups = {}
    for metric in metrics:
        apart = metric.variant if metric.kind in ('ppl', 'kpl', 'scale_consistency', 'swd') else ''
        groups.setdefault((metric.detector, metric.num, metric.scale, apart), []).append(metric)
    loaded = {}
    for (name, *_rest), group in groups.items():
        try:
            with torch.no_grad():
                detector = None
                if name is not None:
                    loaded = {name: loaded.get(name) or together(  # one at a time in memory
                        lambda name=name: detectors.load(name, subject.files, subject.device), subject.device)}
                    detector = loaded[name]
                    _expect_fitting(group, detector)
                yield from RUNS[group[0].kind](group, subject, detector)
        except (ValueError, OtherProcessFailed) as err:
            err = err if isinstance(err, OtherProcessFailed) else UserError(f'{", ".join(m.variant for m in group)}: {err}')
            if on_error is None:
                raise err from None
            on_error(group, err)
        except Exception as err:
            if on_error is None:
                raise
            on_error(group, err)


def _expect_fitting(group, detector):
    for metric in group:
        if metric.kind == 'is' and not detector.has_probabilities:
            raise UserError(f'{metric.score_name()}: {detector.name} has no classes; take is50k or cs_efficientnet-lite0')
        if metric.kind == 'ppl' and not detector.has_distance:
            raise UserError(f'{metric.score_name()}: {detector.name} has no perceptual distance; take vgg16 or efficientnet-lite0')


# ---- Metrics of features: fid, kid, is, pr


def _run_features(group, subject, detector):
    """fid, kid, is and pr of one network, number of images and scale, in one pass over the drawn images and one over the real ones."""
    clock, began = Clock(), time.monotonic()
    scale = SCALES.get(group[0].scale, 1)
    if subject.G is None:
        if scale != 1:
            raise UserError(f'{group[0].score_name()} draws at other sizes: give --network, not --images')
        fake = DataImages(subject.images, group[0].num)
        group = [metric.with_num(fake.total) for metric in group]
    else:
        if scale != 1 and subject.draw is None:
            raise UserError(f'{group[0].score_name()} {ONE_SIZE} {_size(subject.G)} only')
        fake = DrawnImages(subject.latents(), group[0].num, subject.psi, subject.draw, scale)
    reals = {}
    for metric in group:
        if metric.kind != 'is' and metric.real not in reals:
            among = [other for other in group if other.real == metric.real and other.kind != 'is']
            source = DataImages(subject.dataset, metric.real)
            reals[metric.real] = _statistics(among, source, subject, detector, clock, 'real images', kept_on_disk=True)
    drawn = _statistics(group, fake, subject, detector, clock, 'drawn images' if subject.G else 'images', kept_on_disk=False)
    for metric in group:
        name, real = metric.score_name(detector.name), reals.get(metric.real)
        outputs = [name + end for end in metric.outputs]
        extra = ['limit', 'slope', 'residual'] if subject.extrapolate and metric.kind == 'fid' else []
        clock.to('mathematics')
        values = from_main(lambda metric=metric, real=real, outputs=outputs, extra=extra: dict(zip(
            outputs + extra, _figures(metric, real, drawn, bool(extra)), strict=True)), outputs + extra, subject.device)
        clock.to(None)
        values = {key if key in outputs else f'{name}_{key}': value for key, value in values.items()}
        yield Score(metric, values, tuple(_notes(metric, real, drawn)), {
            'detector': detector.name, 'detector_digest': detector.digest, 'num': drawn.total,
            'num_real': real.total if real else None, 'features': drawn.dim, 'scale': scale, 'psi': subject.psi,
            'seed': subject.seed, 'data_digest': getattr(subject.dataset, 'digest', None), 'images_digest': fake.digest,
            'seconds': time.monotonic() - began, 'seconds_of': dict(clock.seconds)})


def _size(G):
    return f'{G.img_resolution}x{G.img_resolution}'


def _figures(metric, real, drawn, fit):
    """The figures of one metric in the order of its outputs, and with `fit` the line in 1/N."""
    if metric.kind == 'fid':
        reference = real.mean_cov()
        score = frechet_distance(*reference, *drawn.mean_cov())
        if not fit:
            return [score]
        order = np.random.RandomState(0).permutation(drawn.total)
        counts = [drawn.total // part for part in PARTS]
        if counts[0] < 2:
            raise ValueError(f'--extrapolate needs more than {drawn.total} images')
        rows = [drawn.features[order[:count]].astype(np.float64) for count in counts[:-1]]
        distances = [frechet_distance(*reference, x.mean(axis=0), np.cov(x, rowvar=False)) for x in rows]
        return [score, *extrapolated(counts, [*distances, score])]
    if metric.kind == 'kid':
        return kernel_distance(real.features, drawn.features)
    if metric.kind == 'pr':
        return precision_recall(real.features, drawn.features, NEIGHBOUR)
    return drawn.score.result()


def _statistics(group, source, subject, detector, clock, title, kept_on_disk):
    """The sums over a source that the metrics of a group need; those over real images come from the cache where they are there.

    The key of the cache is made of contents alone: images, network, transforms, and what is summed.
    """
    kinds = {metric.kind for metric in group}
    kept = max(KERNEL_ROWS if kinds & {'fid', 'kid'} else 0, NEIGHBOUR_ROWS if 'pr' in kinds else 0,
               source.total if subject.extrapolate and title != 'real images' else 0)
    splits = min(SPLITS, source.total) if 'is' in kinds and title != 'real images' else 0
    options = {'moments': bool(kinds & {'fid', 'kid'}), 'kept': kept, 'splits': splits}
    if source.total < 2:
        raise UserError(f'{title}: {source.total} image, at least 2 are needed')
    stats = FeatureStats(source.total, **options)
    state = None
    if kept_on_disk or subject.resume:
        text = f'{FORMAT} {source.digest} {detector.digest} {options} {"" if kept_on_disk else subject.batch}'
        kind = 'real' if kept_on_disk else 'drawn'
        state = subject.folder / f'{kind}-{detector.name}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz'

    def work(numbers):
        clock.to(source.activity, subject.device)
        images = source.batch(numbers)
        clock.to('features', subject.device)
        images = images.to(subject.device)
        features = detector.features(images).float()
        probs = detector.probabilities(images, features).float() if splits else None
        clock.to('mathematics', subject.device)
        return features, probs

    added = collect(work, stats, subject.batch, subject.device, f'{detector.name}, {title}', state, subject.say)
    clock.to(None)
    if distributed.is_main() and state is not None:
        if kept_on_disk and added:
            keep(stats, state, subject.say)
        elif not kept_on_disk:
            state.unlink(missing_ok=True)
    return stats


def _notes(metric, real, drawn):
    """What a reader should know of a score."""
    features = drawn.dim or 0
    if metric.kind == 'fid':
        smaller = min(drawn.total, real.total)
        if smaller <= features:
            yield (f'{smaller} images have a singular covariance of {features} features: compare with scores of the same numbers only')
        if drawn.total < 50_000:
            yield f'{drawn.total} images: the distance is larger than that of 50,000 would be, see --extrapolate'
    if metric.kind == 'kid' and max(drawn.total, real.total) > KERNEL_ROWS:
        yield f'subsets are drawn from {KERNEL_ROWS} random images of each set'
    if metric.kind == 'pr' and max(drawn.total, real.total) > NEIGHBOUR_ROWS:
        yield f'neighbours are looked for among {NEIGHBOUR_ROWS} random images of each set'
    if metric.kind == 'is' and drawn.total < 50_000:
        yield f'{drawn.total} images in {SPLITS} parts: the score is lower than that of 50,000 would be'


# ---- Metrics of a generator alone


def _run_path_length(group, subject, detector):
    """ppl2_wend and its kin."""
    expect_generator(group, subject)
    (metric,), clock, began, G = group, Clock(), time.monotonic(), subject.G
    latents, at_end, space = subject.latents(), metric.variant.endswith('end'), metric.variant.partition('_')[2][0]
    half = max(subject.batch // 2, 1)

    def work(numbers):
        clock.to('drawing', subject.device)
        z, c = latents(numbers, count=2)
        random = torch.Generator().manual_seed(distributed.mix_seed(subject.seed, numbers[0], metric.variant))
        pair = path_length.path_pair(lambda z, c: G.mapping(z, c), z, c, space, at_end, random)
        images = [path_length.prepared(synthesize(G, ws, numbers[0]).float(), crop=metric.variant != 'ppl2_wend') for ws in pair]
        clock.to('features', subject.device)
        vectors = [detector.embed(x).double() for x in images]
        return (vectors[0] - vectors[1]).square().sum(dim=1, keepdim=True), None

    stats = FeatureStats(metric.num, moments=False, kept=metric.num)
    collect(work, stats, half, subject.device, f'{detector.name}, {metric.variant}', None, subject.say)
    clock.to(None)
    name = metric.score_name(detector.name)
    values = from_main(lambda: {name: path_length.path_length(stats.features[:, 0])}, [name], subject.device)
    yield Score(metric, values, (), {
        'detector': detector.name, 'detector_digest': detector.digest, 'num': metric.num, 'epsilon': path_length.EPSILON,
        'seed': subject.seed, 'images_digest': weights_digest(G), 'seconds': time.monotonic() - began, 'seconds_of': dict(clock.seconds)})


def _run_scale_consistency(group, subject, detector):
    """PSNR and SSIM of images drawn at 2x and at half the size."""
    expect_generator(group, subject)
    (metric,), began, G = group, time.monotonic(), subject.G
    if subject.draw is None:
        raise UserError(f'scale_consistency {ONE_SIZE} {_size(G)} only')
    latents = subject.latents()

    def work(numbers):
        z, c = latents(numbers)
        ws = G.mapping(z[0], c, truncation_psi=subject.psi)
        images = {scale: subject.draw(ws, scale).float() for scale in (1, 2, 0.5)}
        return scale_consistency.compare(images[1], images[2], images[0.5]), None

    stats = FeatureStats(metric.num, moments=False, kept=metric.num)
    collect(work, stats, subject.batch, subject.device, 'scale_consistency', None, subject.say)
    names = [metric.score_name() + end for end in metric.outputs]
    values = from_main(lambda: dict(zip(names, scale_consistency.summary(stats.features), strict=True)), names, subject.device)
    yield Score(metric, values, (), {'num': metric.num, 'psi': subject.psi, 'seed': subject.seed, 'images_digest': weights_digest(G),
                                     'seconds': time.monotonic() - began})


def _run_keypoints(group, subject, detector):
    """kpl and kpl_random."""
    expect_generator(group, subject)
    (metric,), began = group, time.monotonic()
    if subject.keypoints is None:
        raise UserError(f'{metric.variant} needs a keypoint extractor: --keypoints=dlib68 or a TorchScript of one')
    names = [metric.score_name() + end for end in metric.outputs]
    values, notes, facts = subject.keypoints(metric, subject, names)
    yield Score(metric, values, notes, {**facts, 'seconds': time.monotonic() - began})


RUNS = {'fid': _run_features, 'kid': _run_features, 'is': _run_features, 'pr': _run_features, 'ppl': _run_path_length,
        'scale_consistency': _run_scale_consistency, 'kpl': _run_keypoints, 'swd': sliced_wasserstein.run}


def as_json(score, **more):
    """What a line of metrics.jsonl holds of a score."""
    return {'metric': score.metric.score_name(score.facts.get('detector')), 'results': score.values, **score.facts,
            'notes': list(score.notes), 'asked': dataclasses.asdict(score.metric), **more}
