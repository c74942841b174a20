"""Runs with --instances: what phases are given, going on, and options."""

import json

import numpy as np
import pytest
import torch

from dnnlib.util import UserError
from tests.training.runs import assert_resumes, steps, weights
from tests.training.test_graphs import assert_same, trained
from tests.training.test_projected import FEATURES
from tests.training.test_windows import pictures, windows_run  # noqa: F401  (pictures is a fixture)
from tests.training.tiny import make_images, tiny_run
from training import checkpoint, resuming, starting
from training.config_json import from_json, to_json
from training.state import expect_state
from training.training_loop import Training, train

ROW = dict(pl_weight=0, style_mixing=0)


class Spied:
    """A training whose heads, and whose distance of looks, write down what they are given."""

    def __init__(self, folder, **given):
        dataset, settings = tiny_run(folder, row=dict(ROW, r1_interval=1), use_labels=True, instances=1.0, **given, **FEATURES)
        self.training, self.judged, self.measured = Training(settings, dataset), [], []
        D, looks = self.training.D, self.training.looks
        judge, distances, of = D.judge_features, looks.distances, looks.of
        D.judge_features = lambda maps, c, looks=None: self.judged.append((c, looks)) or judge(maps, c, looks)
        looks.distances = lambda drawn, asked: self.measured.append(asked) or distances(drawn, asked)
        looks.of = lambda maps, c: self.measured.append(c) or of(maps, c)

    def step(self):
        pixels, c = (torch.from_numpy(np.stack(each)) for each in zip(*(self.training.dataset[i] for i in range(4)), strict=True))
        self.training.step(pixels, c)
        return self.training.looks.of(self.training.features(pixels / 127.5 - 1), c), c


def test_every_phase_gets_the_looks_and_labels_of_its_pictures(images):
    spied = Spied(images)
    looks, c = spied.step()
    assert len(spied.judged) == 4  # G, D's fakes, its reals, these under the looks of others
    assert all(torch.equal(labels, c) for labels, _ in spied.judged)
    for _, given in spied.judged[:3]:
        stands = given.any(dim=1)
        assert stands.any() and torch.cosine_similarity(given, looks, dim=1)[stands].mean() > 0.7  # NOISE apart
    assert torch.equal(spied.judged[3][1], spied.training.looks.of_others(spied.judged[2][1])[0])
    of_reals, of_fakes, asked = spied.measured[:3]
    assert torch.equal(of_reals, c) and torch.equal(of_fakes, c) and torch.equal(asked, spied.judged[0][1])


def test_pictures_under_the_looks_of_others_teach_the_heads(images, monkeypatch):
    def embedded(weight):
        monkeypatch.setattr('training.loss.MISMATCH', weight)
        spied = Spied(images)
        spied.step()
        return spied.training.D.heads[3].embed_look.weight.detach()

    assert not torch.allclose(embedded(0.5), embedded(0.0), atol=1e-5)


def test_the_distance_is_of_pictures_that_are_not_augmented(images):
    spied = Spied(images, aug='fixed', p=1.0, augpipe='color')
    seen, features = [], spied.training.loss.features
    spied.training.loss.features = lambda x: seen.append(x) or features(x)
    spied.step()
    augmented, drawn = seen[:2]
    assert not torch.allclose(augmented, drawn) and len(seen) == 4


def test_clusters_begin_to_be_told_apart_by_z_also_from_a_file(tmp_path):
    folder = make_images(tmp_path / 'images', count=40, classes=20)
    labels = json.loads((folder / 'dataset.json').read_text())
    (folder / 'dataset.json').write_text(json.dumps({**labels, 'classes': [f'{"ab"[i % 2]}/{i}' for i in range(20)]}))
    for name, more in (('one', {}), ('two', {'init_from': str(checkpoint.network_path(tmp_path / 'one', 4))})):
        (tmp_path / name).mkdir()
        dataset, settings = tiny_run(folder, use_labels=True, kimg=0.004, instances=1.0, **FEATURES)
        train(settings, dataset, tmp_path / name, **more)
        assert 'which begins as the columns of the classes tell looks apart' in (tmp_path / name / 'log.txt').read_text()
    alone = make_images(tmp_path / 'plain', count=40, classes=20)
    plain, settings = tiny_run(alone, use_labels=True, kimg=0.004, instances=1.0, **FEATURES)
    (tmp_path / 'three').mkdir()
    train(settings, plain, tmp_path / 'three')
    assert 'which G has yet to learn' in (tmp_path / 'three' / 'log.txt').read_text()


def test_heads_that_know_other_looks_begin_anew(images):
    dataset, settings = tiny_run(images, instances=1.0, **FEATURES)
    training = Training(settings, dataset)
    with torch.no_grad():
        training.D.heads[1].embed_look.weight.fill_(1)
    training.begin_looks()
    assert training.D.heads[1].embed_look.weight.abs().max() == 0


def test_looks_come_with_the_state_and_a_damaged_one_is_refused(images, tmp_path):
    dataset, settings = tiny_run(images, kimg=0.004, instances=1.0, **FEATURES)
    train(settings, dataset, tmp_path)
    network = checkpoint.network_path(tmp_path, 4)
    training = Training(settings, dataset)
    training.resume(network)
    state, _ = training.state_dict(), training.looks
    assert training.loss.looks.measured and state['looks'].keys() == {'means', 'directions', 'shares'}
    optimizers, path = training.optimizers, checkpoint.state_path(network)
    expect_state(path, state, optimizers, 0, 4)
    for change in ({'shares': torch.zeros(5)}, {'means': torch.full([1, 592], torch.nan)}, {'directions': None}):
        with pytest.raises(UserError, match='looks|directions'):
            expect_state(path, {**state, 'looks': {**state['looks'], **change}}, optimizers, 0, 4)


def test_no_fake_stands_for_a_picture_while_the_run_grows(images):
    dataset, settings = tiny_run(images, row=ROW, grow='8:0.008', fade=0.004, instances=1.0, **FEATURES)
    training = steps(Training(settings, dataset), 2)
    assert not training.loss.looks.measured and 'Loss/look' not in training.stats.collect()
    assert 'Loss/look' in steps(training, 1).stats.collect()


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('data') / 'images', classes=3)


@pytest.mark.parametrize('use_labels', [False, True])
def test_a_run_resumes_bit_for_bit(images, tmp_path, use_labels):
    dataset, settings = tiny_run(images, use_labels=use_labels, kimg=0.016, tick=0.008, snap=1, grow='8:0.008', fade=0.004, instances=1.0,
                                 **FEATURES)
    assert settings.look_dim == 4 and settings.discriminator_kwargs(1)['look_dim'] == 4
    whole = assert_resumes(settings, dataset, tmp_path, 8)
    D = checkpoint.load_networks(checkpoint.network_path(whole, 16))['D']
    assert D.init_kwargs['look_dim'] == 4 and D.heads[0].embed_look.weight.abs().sum() > 0


def test_looks_teach_both_networks(images):
    def trained_with(weight):
        dataset, settings = tiny_run(images, row=ROW, use_labels=True, instances=weight, **FEATURES)
        return steps(Training(settings, dataset), 2)

    one, two = trained_with(1.0), trained_with(5.0)
    assert not torch.equal(weights(one.G), weights(two.G))
    assert one.D.heads[0].embed_look.weight.abs().sum() > 0
    found = steps(one, 6).stats.collect()  # some step has two that stand for unlike pictures
    assert found['Loss/look']['mean'] > 0 and {'Scores/wrong_look', 'Scores/real_features'} <= found.keys()
    assert not {'Loss/look', 'Scores/wrong_look'} & trained_with(0.0).stats.collect().keys()


@pytest.mark.parametrize('more', [{}, {'aug': 'fixed', 'p': 0.5, 'augpipe': 'blit'}, {'batch_gpu': 2}])
def test_steps_with_windows_augmentation_and_passes(pictures, more):  # noqa: F811
    dataset, settings = windows_run(pictures, instances=1.0, whole=0.5, **more, **FEATURES)
    training = steps(Training(settings, dataset), 2)
    found = training.stats.collect()
    assert torch.isfinite(weights(training.G)).all() and found['Loss/look']['mean'] > 0


def test_what_is_said_of_looks_is_the_same_in_passes(images):
    def said(at_once):
        dataset, settings = tiny_run(images, row=ROW, instances=1.0, batch_gpu=at_once, **FEATURES)
        return steps(Training(settings, dataset), 1).stats.collect()

    one, two = said(4), said(2)
    assert one['Loss/look']['num'] == two['Loss/look']['num'] in (1, 2, 3)  # of 4, those that stand for pictures
    assert one['Loss/look']['mean'] == pytest.approx(two['Loss/look']['mean'], rel=1e-3)


def test_recorded_steps_are_the_steps(pictures):  # noqa: F811
    dataset, settings = windows_run(pictures, instances=1.0, whole=0.5, **FEATURES)
    assert_same(trained(dataset, settings, 6, False), trained(dataset, settings, 6, True))


def test_a_mistake_is_a_line(images):
    with pytest.raises(UserError, match='--instances has no effect without --d-features'):
        tiny_run(images, instances=1.0)
    with pytest.raises(UserError, match='--instances needs a z of 2 numbers or more'):
        tiny_run(images, row=dict(z_dim=1), instances=1.0, **FEATURES)
    with pytest.raises(UserError, match='--instances with --periodic'):
        tiny_run(images, row=dict(synthesis={'periodic': 'x'}), instances=1.0, windows=True, **FEATURES)


def test_new_runs_have_fewer_numbers_than_older_ones(images, tmp_path):
    given = dict(cfg='inr-small', instances=1.0, res=16)
    settings = starting.new_run(str(images), None, given, 'cpu')[1]
    assert settings.look_dim == 32 and starting.new_run(str(images), None, {**given, 'look_dim': 9}, 'cpu')[1].look_dim == 9
    older = json.loads(to_json(settings))
    del older['loss']['look_dim']
    assert from_json(json.dumps(older)).look_dim == 64
    with pytest.raises(UserError, match='--look-dim has no effect without --instances'):
        starting.new_run(str(images), None, dict(cfg='inr-small', look_dim=9), 'cpu')
    assert starting.new_run(str(images), None, dict(cfg='inr-small', res=16), 'cpu')[1].look_dim == 0
    assert tiny_run(images, row=dict(instances=1.0), look_dim=3, **FEATURES)[1].look_dim == 3
    with pytest.raises(UserError, match='--look-dim has no effect without --instances'):
        tiny_run(images, row=dict(instances=1.0), instances=0.0, look_dim=3, **FEATURES)


def test_the_features_of_looks_stay_when_a_run_goes_on(images, tmp_path):
    for instances in (1.0, 0.0):
        folder = tmp_path / str(instances)
        folder.mkdir()
        dataset, settings = tiny_run(images, kimg=0.004, instances=instances, **FEATURES)
        train(settings, dataset, folder)
        assert resuming.resumed(folder, None, {'d_features_scale': 1.0}, 'cpu')[1] == settings
        if instances:
            for scale in (0.5, 2.0):
                with pytest.raises(UserError, match=f'--d-features-scale={scale:g} cannot change in a run with --instances'):
                    resuming.resumed(folder, None, {'d_features_scale': scale}, 'cpu')
        else:
            assert resuming.resumed(folder, None, {'d_features_scale': 2.0}, 'cpu')[1].loss.features_scale == 2
