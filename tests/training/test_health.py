"""The detectors by values on both sides of their bounds, and numbers that are not finite."""

import math

import pytest
import torch

from tests.training.runs import after_a_step
from training import health
from training.health import DETECTORS, Health, not_finite

GOOD = {'loss_G': 0.8, 'loss_D': 1.2, 'D_range': 0.5, 'average': 1.5, 'variety': 0.9, 'recall': 0.4, 'data_wait': 0.1}
BAD = {'loss_G': (0.009, '--gamma'), 'loss_D': (0.001, '--aug=ada'), 'D_range': (0.009, '--gamma'), 'average': (10.1, '--lr'),
       'variety': (0.089, '--resume=FILE'), 'recall': (0.039, '--resume=FILE'), 'data_wait': (0.31, '--workers')}


@pytest.fixture(scope='module')
def training(tmp_path_factory):
    return after_a_step(tmp_path_factory.mktemp('data') / 'images')


def test_every_detector_is_tried():
    assert [row.name for row in DETECTORS] == list(GOOD) == list(BAD)


@pytest.mark.parametrize('name', BAD)
def test_a_detector_says_it_when_it_begins_and_when_it_comes_back(training, name):
    doctor, said = Health(training.G_ema), []
    value, option = BAD[name]
    assert doctor.look(GOOD, said.append) == {f'Health/{key}': number for key, number in GOOD.items()} and said == []
    for values in ({name: value}, {name: value}, {name: math.nan}, {}, {name: value}):
        doctor.look(values, said.append)
    assert len(said) == 1 and said[0].startswith('Look: ') and option in said[0]
    doctor.look(GOOD, said.append)
    assert doctor.look({name: value}, said.append) == {f'Health/{name}': value} and len(said) == 2


@pytest.mark.parametrize('name, value', [('loss_G', 0.011), ('loss_D', 0.011), ('D_range', 0.011), ('average', 9.9), ('variety', 0.091),
                                         ('recall', 0.041), ('data_wait', 0.29)])
def test_a_detector_is_silent_up_to_its_bound(training, name, value):
    doctor, said = Health(training.G_ema), []
    doctor.look(GOOD, said.append)
    doctor.look({name: value}, said.append)
    assert said == []


def test_the_values_of_a_tick(training):
    doctor = Health(training.G_ema)
    stats = {'Loss/G': (0.5, 0), 'Loss/D_real': (0.25, 0), 'Loss/D_fake': (0.5, 0), 'Scores/real': (1, 3), 'Scores/fake': (-1, 4),
             'Brightness/real': (0, 0.5), 'Brightness/fake': (0, 0.125)}
    stats = {name: {'mean': mean, 'std': std} for name, (mean, std) in stats.items()}
    assert doctor.tick(stats, 0.25) == {'loss_G': 0.5, 'loss_D': 0.75, 'D_range': 7, 'average': 1, 'variety': 0.25, 'data_wait': 0.25}
    with torch.no_grad():
        for parameter in training.G_ema.parameters():
            parameter.mul_(3)
    stats['Brightness/real']['std'] = 0.0  # pictures that are alike say nothing
    values = doctor.tick(stats, None)
    assert values['average'] == pytest.approx(3) and math.isnan(values['variety']) and 'data_wait' not in values
    assert all(math.isnan(value) for name, value in doctor.tick({}, None).items() if name != 'average')
    assert health.recall({'fid5k': 3.0, 'pr50k3_precision': 0.5, 'pr50k3_recall': 0.25}) == {'recall': 0.25} and health.recall({}) == {}


def test_what_is_not_finite_is_found_wherever_it_is():
    nan = float('nan')
    tree = {'a': [torch.ones(2), torch.tensor([1, nan])], 'b': {'c': math.inf, 'd': 3}, 'e': torch.tensor([1]), 'f': 'word'}
    assert list(not_finite(tree, 'x')) == ['x.a.1', 'x.b.c']


@pytest.mark.parametrize('name', ['G.', 'D.', 'G_ema.', 'G.optimizer', 'pl_mean'])
def test_a_problem_names_its_place(training, name):
    assert health.problem(training) is None
    if name == 'pl_mean':
        tensor = training.loss.pl_mean
    elif name == 'G.optimizer':
        tensor = training.optimizers['G'].state[next(training.G.parameters())]['exp_avg']
    else:
        tensor = next(training.networks[name[:-1]].parameters()).detach()
    whole = tensor.clone()
    tensor.view(-1)[0] = float('-inf')
    assert health.problem(training).startswith(name) and health.problem(training).endswith(' is not finite at 0.004 kimg')
    tensor.copy_(whole)
