"""Running means."""

import math

import pytest
import torch

from torch_utils.training_stats import Averages


def test_mean_std_and_number_over_all_elements():
    stats = Averages()
    stats.report('a', torch.tensor([[1.0], [2.0]]))
    stats.report('a', 6)
    stats.report('b', torch.tensor(3.0, requires_grad=True))
    result = stats.collect()
    assert result['a'] == {'num': 3, 'mean': 3.0, 'std': pytest.approx(math.sqrt((4 + 1 + 9) / 3))}
    assert result['b'] == {'num': 1, 'mean': 3.0, 'std': 0.0}
    assert stats.collect() == {}


def test_state_goes_on_bit_for_bit():
    values = torch.randn(10)
    whole, first, second = Averages(), Averages(), Averages()
    for value in values:
        whole.report('a', value)
    for value in values[:4]:
        first.report('a', value)
    second.load_state_dict(first.state_dict())
    for value in values[4:]:
        second.report('a', value)
    assert second.collect() == whole.collect()


def test_rows_that_are_not_counted():
    stats = Averages()
    stats.report('a', torch.tensor([[1.0, 2], [9, math.nan], [3, 6]]), counted=torch.tensor([True, False, True]))
    stats.report('b', torch.tensor([1.0, 2]), counted=torch.tensor([False, False]))
    found = stats.collect()
    assert found.keys() == {'a'} and (found['a']['num'], found['a']['mean']) == (4, 3)


def test_values_that_are_not_finite_show():
    stats = Averages()
    stats.report('a', torch.tensor([1.0, float('nan')]))
    result = stats.collect()['a']
    assert math.isnan(result['mean']) and math.isnan(result['std'])
