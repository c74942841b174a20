"""The run around scores of features: images past a feature network, sums, figures. Which of them: the rows of metrics/registry.py."""

import hashlib
import time

from dnnlib.util import UserError, get_obj_by_name
from metrics.collection import Clock, collect, from_main, keep
from metrics.feature_stats import FeatureStats
from metrics.image_sources import SCALES, DataImages, DrawnImages
from metrics.patches import DataPatches, DrawnPatches, step_of
from metrics.subject import ONE_SIZE, Score, size_text
from torch_utils import distributed

FORMAT = 1  # of the cached statistics


def run(group, subject, detector):
    """The scores of metrics of one network, number of images and scale, in one pass over the drawn images and one over the real ones.

    group: registry.Metrics whose rows have `sums`;  subject: `Subject`;  detector: `Detector`. Yields a `Score` each.
    """
    clock, began, scale, size = Clock(), time.monotonic(), SCALES.get(group[0].scale, 1), group[0].window_of
    side = None if not size else subject.dataset.resolution if subject.G is None else subject.G.img_resolution
    if size and subject.G is None:
        fake = DataPatches(subject.images, group[0].num, size, side)
        group = [metric.with_num(fake.total) for metric in group]
    elif size:
        fake = DrawnPatches(subject.latents(), group[0].num, subject.psi, size)
    elif subject.G is None:
        if scale != 1:
            raise UserError(f'{group[0].score_name()} draws at other sizes: give --network, not --images')
        fake = DataImages(subject.images, group[0].num)
        group = [metric.with_num(fake.total) for metric in group]
    else:
        if scale != 1 and subject.draw is None:
            raise UserError(f'{group[0].score_name()} {ONE_SIZE} {size_text(subject.G)} only')
        fake = DrawnImages(subject.latents(), group[0].num, subject.psi, subject.draw, scale)
    reals = {}
    for metric in group:
        if metric.row.real and metric.real not in reals:
            among = [other for other in group if other.real == metric.real and other.row.real]
            window = (size, side, step_of(subject.G))
            source = DataPatches(subject.dataset, metric.real, *window) if size else DataImages(subject.dataset, metric.real)
            reals[metric.real] = _statistics(among, source, subject, detector, clock, 'real images', kept_on_disk=True)
    drawn = _statistics(group, fake, subject, detector, clock, 'drawn images' if subject.G else 'images', kept_on_disk=False)
    for metric in group:
        name, real = metric.score_name(detector.name), reals.get(metric.real)
        clock.to('mathematics')
        values = _figures(metric, name, real, drawn, subject)
        clock.to(None)
        notes = get_obj_by_name(f'{metric.row.module}.notes')(real, drawn)
        yield Score(metric, values, tuple(notes), {
            'detector': detector.name, 'detector_digest': detector.digest, 'num': drawn.total,
            'num_real': real.total if real else None, 'features': drawn.dim, 'scale': scale, 'windows_of': size, 'psi': subject.psi,
            'seed': subject.seed, 'data_digest': getattr(subject.dataset, 'digest', None), 'images_digest': fake.digest,
            'seconds': time.monotonic() - began, 'seconds_of': dict(clock.seconds)})


def _figures(metric, name, real, drawn, subject):
    """{name of a figure: float}, in all processes."""
    row = metric.row
    names = [name + end for end in (*row.outputs, *(row.fitted if subject.extrapolate else ()))]
    figures = get_obj_by_name(f'{row.module}.figures')

    def compute():
        return dict(zip(names, figures(real, drawn, subject), strict=True))

    return compute() if row.everywhere else from_main(compute, names, subject.device)


def _statistics(group, source, subject, detector, clock, title, kept_on_disk):
    """The sums over a source that the metrics of a group need; those over real images come from the cache where they are there.

    The key of the cache is made of contents alone: images, network, transforms, and what is summed.
    """
    sums = [metric.row.sums for metric in group]
    kept, splits = (max(each.get(key, 0) for each in sums) for key in ('kept', 'splits'))
    if not kept_on_disk:
        kept, splits = source.total if subject.extrapolate else kept, min(splits, source.total)
    options = {'moments': any(each['moments'] for each in sums), 'kept': kept, 'splits': 0 if kept_on_disk else splits}
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


