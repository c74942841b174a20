"""Runs metrics: groups them, loads the feature networks, hands on failures. What each metric is: metrics/registry.py."""

import dataclasses

import torch

from dnnlib.util import UserError, get_obj_by_name
from metrics import detectors
from metrics.collection import OtherProcessFailed, together
from metrics.subject import Score as Score
from metrics.subject import Subject as Subject

LACKING = {'probabilities': 'has no classes; take is50k or cs_efficientnet-lite0',
           'distance': 'has no perceptual distance; take vgg16 or efficientnet-lite0'}


def evaluate(metrics, subject, on_error=None):
    """The scores of metrics, one `Score` after the other. All processes must call this.

    metrics:  list of registry.Metric;  subject: `Subject`
    on_error: called with (metrics, exception) for a group that failed, after which the others go on; None: errors are raised
    Metrics of one network and number of images share a pass. Raises UserError (mistakes), OtherProcessFailed (see metrics.collection).
    """
    groups = {}
    for metric in metrics:
        apart = '' if metric.row.sums else metric.variant  # what sums up features shares a pass
        groups.setdefault((metric.detector, metric.num, metric.scale, apart), []).append(metric)
    loaded = {}
    for (name, *_rest), group in groups.items():
        try:
            with torch.no_grad():
                _expect_fitting(group, subject)
                detector = None
                if name is not None:
                    loaded = {name: loaded.get(name) or together(  # one at a time in memory
                        lambda name=name: detectors.load(name, subject.files, subject.device), subject.device)}
                    detector = loaded[name]
                    _expect_answers(group, detector)
                yield from get_obj_by_name(group[0].row.run)(group, subject, detector)
        except (ValueError, OtherProcessFailed) as err:
            err = err if isinstance(err, OtherProcessFailed) else UserError(f'{", ".join(m.variant for m in group)}: {err}')
            if on_error is None:
                raise err from None
            on_error(group, err)
        except Exception as err:
            if on_error is None:
                raise
            on_error(group, err)


def _expect_fitting(group, subject):
    for metric in group:
        if metric.row.generator and subject.G is None:
            raise UserError(f'{metric.score_name()} looks at a generator: give --network, not --images')


def _expect_answers(group, detector):
    for metric in group:
        if metric.row.asks and not getattr(detector, f'has_{metric.row.asks}'):
            raise UserError(f'{metric.score_name()}: {detector.name} {LACKING[metric.row.asks]}')


def as_json(score, **more):
    """What a line of metrics.jsonl holds of a score."""
    return {'metric': score.metric.score_name(score.facts.get('detector')), 'results': score.values, **score.facts,
            'notes': list(score.notes), 'asked': dataclasses.asdict(score.metric), **more}
