"""Runs of metrics: names, caches, processes, failures; the feature network is a stand-in with known features."""

import dataclasses
import json
import sys
import types

import numpy as np
import pytest
import torch

from dnnlib.util import UserError, get_obj_by_name
from inference.opening import with_precision
from metrics import collection, detectors, image_sources, metric_main, path_length, registry
from metrics.collection import OtherProcessFailed, collect, from_main
from metrics.feature_stats import FeatureStats
from metrics.frechet_distance import frechet_distance
from metrics.kernel_distance import kernel_distance
from metrics.metric_main import Subject, evaluate
from metrics.registry import parse, parse_list
from tests import tiny_snapshots
from tests.helpers import one_group


class Means(detectors.Detector):
    """Three features: the mean of each channel. Counts the images it has seen."""

    name, digest = 'efficientnet-lite0', 'means'
    has_probabilities = has_distance = True

    def __init__(self):
        super().__init__()
        self.seen = 0

    def features(self, images):
        self.seen += len(images)
        return images.float().mean(dim=(2, 3))

    def probabilities(self, images, features):
        return torch.softmax(features / 10, dim=1)

    def embed(self, images):
        return images.flatten(1)


class Pictures:
    """A data set of random images, brighter by `shift`."""

    label_dim = 0

    def __init__(self, count=64, shift=0, seed=0):
        self.images = np.random.RandomState(seed).randint(0, 200, (count, 3, 16, 16)).astype(np.uint8) + np.uint8(shift)
        self.digest, self.resolution, self.size = f'{count} {shift} {seed}', 16, (16, 16)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], np.zeros(0, np.float32)


@pytest.fixture
def network(monkeypatch):
    """The stand-in that every name loads."""
    means = Means()
    monkeypatch.setattr(detectors, 'load', lambda name, files=None, device='cpu': means)
    return means


def scores(text, subject, **options):
    return {name: value for score in evaluate(parse_list(text), subject, **options) for name, value in score.values.items()}


# ---- Names


@pytest.mark.parametrize('name, kind, detector, num, real', [
    ('fid50k_full', 'fid', 'inception', 50_000, None), ('kid50k_full', 'kid', 'inception', 50_000, None),
    ('pr50k3_full', 'pr', 'vgg16', 50_000, 200_000), ('pr50k3', 'pr', 'vgg16', 50_000, 50_000),
    ('fid50k', 'fid', 'inception', 50_000, 50_000),
    ('kid50k', 'kid', 'inception', 50_000, 50_000), ('is50k', 'is', 'inception', 50_000, None), ('fid5k', 'fid', 'inception', 5000, None),
    ('kid5k', 'kid', 'inception', 5000, None), ('ppl2_wend', 'ppl', 'vgg16', 50_000, None), ('ppl_zfull', 'ppl', 'vgg16', 50_000, None),
    ('ppl_wend', 'ppl', 'vgg16', 50_000, None), ('kpl', 'kpl', None, 10_000, None), ('kpl_random', 'kpl', None, 10_000, None),
    ('scale_consistency', 'scale_consistency', None, 1000, None), ('fid5k_2x', 'fid', 'inception', 5000, None),
])
def test_names_of_the_fork(name, kind, detector, num, real):
    metric = parse(name)
    assert (metric.kind, metric.detector, metric.num, metric.real) == (kind, detector, num, real)
    assert metric.score_name() == name


def test_what_is_not_inception_is_never_called_fid():
    assert parse('fid5k').score_name('file-12345678') == 'fd_file-12345678_5k'
    assert parse('kid50k_full').score_name('file-1') == 'kd_file-1_50k' and parse('is50k').score_name('file-1') == 'cs_file-1_50k'
    assert parse('pr50k3').score_name('file-1') == 'pr_file-1_50k' and parse('ppl_wend').score_name('file-1') == 'ppl_wend_file-1'
    assert parse('fd_dinov2_5k_half').score_name('dinov2-1') == 'fd_dinov2-1_5k_half'
    for name in ('fd_efficientnet-lite0', 'kd_dinov2_10k', 'cs_efficientnet-lite0', 'pr_vgg16', 'ppl2_wend_efficientnet-lite0'):
        assert 'fid' not in parse(name).score_name() and 'kid' not in parse(name).score_name()


def test_a_score_is_named_after_its_number():
    assert parse('fid50k_full').with_num(2000).score_name() == 'fid2k_full'
    assert parse('fid50k').with_num(1500).score_name() == 'fid1500' and parse('pr50k3').with_num(1000).score_name() == 'pr1k3'
    assert parse('ppl2_wend').with_num(1000).score_name() == 'ppl2_wend_1k' and parse('kpl').with_num(500).score_name() == 'kpl_500'
    assert parse('is50k').higher_is_better and parse('pr50k3').higher_is_better and not parse('fid5k').higher_is_better


def test_misspelt_names():
    for text, message in (('fid50', "Did you mean 'fid50k'"), ('fd_incepton', 'is not known'), ('', 'no metric is'), ('fid7k', 'fid5k'),
                          ('fd_efficientnet-lite0_0k', 'is not known'), ('swd0k', 'is not known'), ('kd_dinov2_05k', 'is not known')):
        with pytest.raises(UserError, match=message):
            parse_list(text)
    assert parse_list('fid5k, kid5k,fid5k') == [parse('fid5k'), parse('kid5k')]
    assert set(registry.DETECTORS) == set(detectors.NAMES) and all(parse(name) for name in registry.LISTED)


def test_every_row_is_complete():
    """What a row names is there; a name parses to itself and its score is called after it."""
    for kind in registry.KINDS.values():
        assert callable(get_obj_by_name(kind.run)) and (kind.sums is None) == (kind.module is None)
        for name in ('figures', 'notes') if kind.module else ():
            assert callable(get_obj_by_name(f'{kind.module}.{name}'))
        assert kind.about in registry.help_text() and kind.forms
    for name in registry.LISTED:
        if 'efficientnet' not in name and name != 'swd':
            assert parse(name).score_name() == name
    assert parse('pr_efficientnet-lite0').real == 200_000 and parse('fd_inception').score_name() == 'fid50k_full'


def test_a_new_metric_is_a_row(network, monkeypatch):
    """A row and its module are all that a new metric of features takes."""
    module = types.ModuleType('brightness')
    module.figures = lambda real, drawn, subject: [abs(real.mean_cov()[0] - drawn.mean_cov()[0]).mean()]
    module.notes = lambda real, drawn: [f'{drawn.total} images']
    monkeypatch.setitem(sys.modules, 'brightness', module)
    row = registry.Kind('bright', 'difference of means', {'bright_{net}{_k}': (50_000, None)}, module='brightness', other='bright',
                        sums={'moments': True})
    monkeypatch.setitem(registry.KINDS, 'bright', row)
    real, fake = Pictures(), Pictures(shift=7)
    (score,) = evaluate([parse('bright_efficientnet-lite0')], Subject(real, images=fake))
    assert score.values == {'bright_efficientnet-lite0_64': pytest.approx(7)} and score.notes == ('64 images',)


# ---- Scores of known sets


def test_scores_are_those_of_the_pure_functions(network):
    real, fake = Pictures(64), Pictures(40, shift=20, seed=1)
    names = 'fd_efficientnet-lite0,kd_efficientnet-lite0,pr_efficientnet-lite0,cs_efficientnet-lite0'
    found = scores(names, Subject(real, images=fake, batch=7))
    features = [x.images.astype(np.float64).mean(axis=(2, 3)) for x in (real, fake)]
    moments = [m for x in features for m in (x.mean(axis=0), np.cov(x, rowvar=False))]
    assert found['fd_efficientnet-lite0_40'] == pytest.approx(frechet_distance(*moments), rel=1e-6)
    assert found['fd_efficientnet-lite0_40'] == pytest.approx(3 * 20 ** 2, rel=0.1)  # the shift, in three features
    assert found['kd_efficientnet-lite0_40'] == pytest.approx(kernel_distance(*(x.astype(np.float32) for x in features))[0], rel=1e-4)
    assert found['pr_efficientnet-lite0_40_precision'] == found['pr_efficientnet-lite0_40_recall'] == 0
    same = scores(names, Subject(real, images=real))
    assert same['fd_efficientnet-lite0_64'] == pytest.approx(0, abs=1e-9) and same['pr_efficientnet-lite0_64_recall'] == 1
    assert 1 <= same['cs_efficientnet-lite0_64_mean'] < 3


def test_precision_and_recall_are_not_mixed_up(network):
    """Copies of one image: all of them look real, hardly anything real is drawn."""
    real, fake = Pictures(64), Pictures(40)
    fake.images[:] = real.images[3]
    fake.images[:, 0, 0, 0] = np.arange(40)
    found = scores('pr_efficientnet-lite0', Subject(real, images=fake))
    assert found['pr_efficientnet-lite0_40_precision'] == 1 and found['pr_efficientnet-lite0_40_recall'] < 0.1


def test_statistics_of_real_images_are_cached_by_content(network, tmp_path):
    subject = Subject(Pictures(64), images=Pictures(20, seed=1), cache=tmp_path)
    first = scores('fd_efficientnet-lite0', subject)
    assert network.seen == 84
    assert scores('fd_efficientnet-lite0', subject) == first and network.seen == 104
    subject.dataset = Pictures(64)  # another object, the same content
    scores('fd_efficientnet-lite0', subject)
    assert network.seen == 124
    subject.dataset = Pictures(64, seed=5)
    assert scores('fd_efficientnet-lite0', subject) != first and network.seen == 208
    network.digest = 'other transforms'
    scores('fd_efficientnet-lite0', subject)
    assert network.seen == 292 and len(list(tmp_path.iterdir())) == 3
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:1000])  # damaged: computed anew
    scores('fd_efficientnet-lite0', subject)
    assert network.seen == 376


def test_extrapolation_is_below_the_score(network, monkeypatch):
    row = registry.KINDS['fid']
    monkeypatch.setitem(registry.KINDS, 'fid', dataclasses.replace(row, sums={**row.sums, 'kept': 100}))  # it needs more than are kept
    images = Pictures(4000, seed=1)
    images.images[:, 1] = images.images[:, 0] // 2 + images.images[:, 1] // 4
    found = scores('fd_efficientnet-lite0', Subject(Pictures(2000), images=images, extrapolate=True))
    name = 'fd_efficientnet-lite0_4k'
    assert set(found) == {name, f'{name}_limit', f'{name}_slope', f'{name}_residual'}
    assert found[f'{name}_limit'] + found[f'{name}_slope'] / 4000 == pytest.approx(found[name], abs=3 * found[f'{name}_residual'])
    assert found[f'{name}_limit'] == pytest.approx(found[name], rel=0.05)


def test_notes_say_what_is_singular(network):
    few = next(iter(evaluate([parse('fd_efficientnet-lite0')], Subject(Pictures(3), images=Pictures(3, seed=1)))))
    assert 'singular covariance of 3 features' in few.notes[0] and few.facts['num'] == few.facts['num_real'] == 3
    with pytest.raises(UserError, match='pr: features .* N, M > k = 3'):
        scores('pr_efficientnet-lite0', Subject(Pictures(3), images=Pictures(3)))
    with pytest.raises(UserError, match='1 image, at least 2'):
        scores('fd_efficientnet-lite0', Subject(Pictures(1), images=Pictures(3)))


def test_a_failing_metric_leaves_the_others(network, tmp_path):
    network.has_distance = network.has_probabilities = False
    told = []
    found = scores('ppl2_wend,is50k,fd_efficientnet-lite0', Subject(Pictures(), images=Pictures(seed=1)),
                   on_error=lambda group, err: told.append((group[0].variant, str(err))))
    assert told == [('ppl2_wend', 'ppl2_wend looks at a generator: give --network, not --images'),
                    ('is', 'is50k: efficientnet-lite0 has no classes; take is50k or cs_efficientnet-lite0')]
    assert list(found) == ['fd_efficientnet-lite0_64']
    with pytest.raises(UserError, match='ppl2_wend: efficientnet-lite0 has no perceptual distance'):
        scores('ppl2_wend', Subject(None, tiny_snapshots.stylegan2()))


# ---- Generators


def test_images_do_not_depend_on_the_batch(network):
    G = tiny_snapshots.stylegan2(noise_strength=0.0)
    latents = image_sources.Latents(G.eval(), seed=3)
    images = image_sources.DrawnImages(latents, 10)
    with torch.no_grad():
        whole, part = images.batch(range(10)), images.batch(range(4, 6))
    assert (whole[4:6].int() - part.int()).abs().max() <= 1 and whole.dtype == torch.uint8 and len(torch.unique(whole)) > 10
    assert not torch.equal(whole[0], whole[1])
    other = image_sources.DrawnImages(image_sources.Latents(G, seed=4), 10)
    assert images.digest != other.digest == image_sources.DrawnImages(image_sources.Latents(G, seed=4), 10).digest


def test_classes_follow_the_data(network):
    G = tiny_snapshots.stylegan2(c_dim=2).eval()
    latents = image_sources.Latents(G, (lambda i: np.eye(2, dtype=np.float32)[0 if i < 9 else 1], 10))
    c = latents(range(200))[1]
    assert c.shape == (200, 2) and 5 < c[:, 1].sum() < 40  # one in ten
    # sums on the disk of labels of another set are not gone on with
    others = image_sources.Latents(G, (lambda i: np.eye(2, dtype=np.float32)[0 if i < 8 else 1], 10))
    again = image_sources.Latents(G, (lambda i: np.eye(2, dtype=np.float32)[0 if i < 9 else 1], 10))
    digests = [image_sources.DrawnImages(each, 10).digest for each in (latents, again, others)]
    assert digests[0] == digests[1] != digests[2]


def test_noise_is_the_same_for_the_same_seed_and_global_state_stays():
    G = tiny_snapshots.stylegan2(noise_strength=1.0).eval()
    ws = torch.randn(1, G.num_ws, 8)
    state = torch.get_rng_state()
    with torch.no_grad():
        a, b, c = (image_sources.synthesize(G, ws, seed) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c) and torch.equal(torch.get_rng_state(), state)


def test_path_length_of_a_generator_that_is_linear(network):
    """w is z and the image a matrix times w: the length is the mean squared distance of two images."""

    class Linear(torch.nn.Module):
        z_dim, c_dim, img_resolution = 4, 0, 8

        def __init__(self):
            super().__init__()
            self.matrix = torch.nn.Parameter(torch.randn(4, 3 * 64) / 10)

        def mapping(self, z, c, truncation_psi=1):
            return z[:, None].double()

        def synthesis(self, ws, noise_mode, force_fp32):
            return (ws[:, 0] @ self.matrix.double()).reshape(-1, 3, 8, 8)

    G = Linear()
    metric = parse('ppl2_wend_efficientnet-lite0').with_num(400)
    score = next(iter(evaluate([metric], Subject(None, G, batch=50, seed=1))))
    z = image_sources.Latents(G, seed=1)(range(400), count=2)[0].double()
    lengths = ((z[1] - z[0]) @ G.matrix.double()).square().sum(dim=1).sort().values.detach()
    low, high = np.percentile(lengths, 1, method='lower'), np.percentile(lengths, 99, method='higher')
    expected = lengths[(lengths >= low) & (lengths <= high)].mean().item()
    assert score.values == {'ppl2_wend_efficientnet-lite0_400': pytest.approx(expected, rel=1e-2)}


@pytest.mark.parametrize('precision', ['fp16', 'bf16'])
def test_path_length_is_drawn_in_float32(precision, network):
    """Half precision would round a step of 1e-4 away: the length of what is left would be noise, many times the true one."""
    G = tiny_snapshots.inr().eval()
    half = with_precision(G, precision)
    with torch.no_grad():
        ws = torch.randn(1, G.num_ws, 8)
        assert not torch.equal(half.synthesis(ws), G.synthesis(ws))  # it does draw in half precision

    def length(G):
        (score,) = evaluate([parse('ppl2_wend_efficientnet-lite0').with_num(20)], Subject(None, G))
        return score.values['ppl2_wend_efficientnet-lite0_20']

    whole = length(G)
    assert length(half) == pytest.approx(whole, rel=0.02)
    with torch.autocast('cpu', torch.bfloat16):
        assert length(G) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize('variant, space, at_end', [
    ('ppl2_wend', 'w', True), ('ppl_zfull', 'z', False), ('ppl_wfull', 'w', False), ('ppl_zend', 'z', True), ('ppl_wend', 'w', True),
])
def test_path_lengths_are_named_after_their_path(variant, space, at_end, network, monkeypatch):
    asked, pair = [], path_length.path_pair
    monkeypatch.setattr(path_length, 'path_pair', lambda mapping, z, c, *how: asked.append(how[:2]) or pair(mapping, z, c, *how))
    list(evaluate([parse(variant).with_num(4)], Subject(None, tiny_snapshots.stylegan2().eval())))
    assert asked == [(space, at_end)]


def test_sizes_need_a_generator_that_draws_them(network):
    G = tiny_snapshots.stylegan2()
    for text in ('scale_consistency', 'fd_efficientnet-lite0_2x'):
        with pytest.raises(UserError, match='takes a generator of inr; this one draws 16x16 only'):
            scores(text, Subject(Pictures(), G))
        with pytest.raises(UserError, match='give --network, not --images'):
            scores(text, Subject(Pictures(), images=Pictures()))


# ---- Collecting


def test_collecting_goes_on_after_a_kill(tmp_path, monkeypatch):
    monkeypatch.setattr(collection, 'SAVE_EVERY', -1)
    x = torch.randn(50, 3)

    def work(numbers):
        if numbers[0] == stop[0]:
            raise KeyboardInterrupt
        calls.append(numbers[0])
        return x[numbers.start:numbers.stop], None

    stop, calls, lines = [30], [], []
    with pytest.raises(KeyboardInterrupt):
        collect(work, FeatureStats(50, kept=20), 10, state=tmp_path / 'a.npz')
    stop[0] = -1
    stats = FeatureStats(50, kept=20)
    assert collect(work, stats, 10, state=tmp_path / 'a.npz', say=lines.append, title='t') == 20
    assert calls == [0, 10, 20, 30, 40] and lines == ['t: going on at 30 of 50']
    whole = FeatureStats(50, kept=20)
    assert collect(work, whole, 10) == 50
    assert np.array_equal(whole.mean_cov()[1], stats.mean_cov()[1]) and np.array_equal(whole.features, stats.features)
    assert whole.mean_cov()[1] == pytest.approx(np.cov(x.double().numpy(), rowvar=False))


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match='images 0 and after are not all finite'):
        collect(lambda numbers: (torch.full((len(numbers), 2), np.nan), None), FeatureStats(4), 2)


def test_a_disk_that_refuses_costs_a_line(tmp_path):
    (tmp_path / 'file').write_text('')
    lines = []
    stats = FeatureStats(2)
    stats.add(np.zeros((2, 1)))
    collection.keep(stats, tmp_path / 'file' / 'a.npz', lines.append)
    assert len(lines) == 1 and lines[0].startswith('Warning: sums are not kept:')


def test_errors_of_the_main_process(monkeypatch):
    assert from_main(lambda: {'a': 1.5}, ['a']) == {'a': 1.5}
    with pytest.raises(ZeroDivisionError):
        from_main(lambda: 1 / 0, ['a'])
    monkeypatch.setattr('torch_utils.distributed.is_main', lambda: False)
    monkeypatch.setattr('torch_utils.distributed.sum_', lambda x: x.fill_(1))
    with pytest.raises(OtherProcessFailed):
        from_main(lambda: {'a': 1.5}, ['a'])


WORKER = '''
import json, sys, torch
from metrics.collection import OtherProcessFailed, collect
from metrics import precision_recall
from metrics.feature_stats import FeatureStats
from metrics.subject import Subject
from torch_utils import distributed
distributed.init('cpu')
precision_recall.CHUNK = 20
rows_of = precision_recall.neighbour_radii
asked = []
precision_recall.neighbour_radii = lambda x, k, numbers: asked.append(len(numbers)) or rows_of(x, k, numbers)
x = torch.randn(103, 6, generator=torch.Generator().manual_seed(0))
stats = FeatureStats(103, kept=50, splits=3)
collect(lambda n: (x[n.start:n.stop] * 1.1, torch.softmax(x[n.start:n.stop], dim=1)), stats, 10)
def fails(n):
    if distributed.rank() == distributed.world_size() - 1:
        raise ValueError('mine')
    return x[n.start:n.stop], None
try:
    collect(fails, FeatureStats(103), 10)
except (ValueError, OtherProcessFailed) as err:
    told = type(err).__name__
other = FeatureStats(60, moments=False, kept=60)
collect(lambda n: (x[n.start:n.stop] * 0.9 + 0.5, None), other, 10)
both = precision_recall.figures(stats, other, Subject(None))
if distributed.is_main():
    mean, cov = stats.mean_cov()
    print(json.dumps([mean.tolist(), cov.tolist(), stats.features.tolist(), stats.score.result(), both, told, asked]))
distributed.shutdown()
'''


def test_two_processes_sum_as_one_does():
    outputs = []
    for world in (1, 2):
        with one_group(world, WORKER) as children:
            said, errors = zip(*(child.communicate(timeout=300) for child in children), strict=True)
            assert [child.returncode for child in children] == [0] * world, errors
        outputs.append(json.loads(said[0]))
    assert outputs[0][:5] == outputs[1][:5]  # bit for bit
    assert all(0.1 < figure < 1 for figure in outputs[0][4])
    assert [output[5] for output in outputs] == ['ValueError', 'OtherProcessFailed']
    assert [output[6] for output in outputs] == [[50, 60], [25, 30]]  # each does its part


def test_json_line(network):
    score = next(iter(evaluate([parse('fd_efficientnet-lite0')], Subject(Pictures(), images=Pictures(seed=1)))))
    line = json.loads(json.dumps(metric_main.as_json(score, network=None)))
    assert line['metric'] == 'fd_efficientnet-lite0_64' and line['detector'] == 'efficientnet-lite0' and line['num'] == 64
    assert {'reading', 'features', 'mathematics'} == set(line['seconds_of']) and line['results'] == score.values
