"""Adam: rates by group, steps of finite gradients alone, moments that lie as their parameters do."""

import copy

import pytest
import torch

from dnnlib.util import UserError
from torch_utils import distributed
from training.optimizer import make_optimizer, restore, step_if_finite
from training.options import OptimizerConfig


def test_optimizer_takes_a_rate_for_each_group():
    network = torch.nn.ModuleDict({'trunk': torch.nn.Linear(2, 2), 'rest': torch.nn.Linear(2, 1)})
    network.parameter_groups = lambda: {name: list(part.parameters()) for name, part in network.items()}
    optimizer = make_optimizer(network, OptimizerConfig({'trunk': 1e-5, 'rest': 5e-4}, (0.0, 0.98), 1e-8))
    assert [(group['lr'], len(group['params']), group['betas']) for group in optimizer.param_groups] == \
        [(1e-5, 2, (0.0, 0.98)), (5e-4, 2, (0.0, 0.98))]
    with pytest.raises(UserError, match=r"parameter groups \['rest', 'trunk'\], the recipe gives rates for \['trunk'\]"):
        make_optimizer(network, OptimizerConfig({'trunk': 1e-5}, (0.0, 0.98), 1e-8))


def test_step_if_finite_leaves_the_weights_alone():
    first, weight, unused = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
    steps = torch.optim.SGD([first, unused, weight], lr=1.0)
    first.grad = torch.zeros(3)
    weight.grad = torch.tensor([1.0, float('inf'), 2.0])
    assert not step_if_finite(steps) and weight.tolist() == [1, 1, 1]
    weight.grad = torch.tensor([1.0, 3.0, 2.0])
    assert step_if_finite(steps) and weight.tolist() == [0, -2, -1]


def test_gradients_are_averaged_over_processes(monkeypatch):
    weight, bias = torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(1))
    weight.grad, bias.grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0])
    monkeypatch.setattr(distributed, 'world_size', lambda: 2)
    monkeypatch.setattr(distributed, 'sum_', lambda tensor: tensor.mul_(5))  # the other one's are four times as large
    assert step_if_finite(torch.optim.SGD([weight, bias], lr=1.0))
    assert weight.tolist() == [[-2.5, -5], [-7.5, -10]] and bias.tolist() == [-12.5]


@pytest.mark.parametrize('saved, now', [(torch.contiguous_format, torch.channels_last), (torch.channels_last, torch.contiguous_format)])
def test_restored_moments_step_as_before_in_another_memory_format(saved, now):
    weight = torch.randn(4, 3, 3, 3)
    settings, moved = OptimizerConfig(0.1, (0.5, 0.9), 1e-8), []
    state = None
    for layout in (saved, saved, now):
        layer = torch.nn.Conv2d(3, 4, 3)
        layer.weight.data = weight.clone(memory_format=layout)
        optimizer = make_optimizer(layer, settings)
        if state is None:
            layer.weight.grad = torch.arange(108.0).reshape(4, 3, 3, 3).sub(50).contiguous(memory_format=layout)
            optimizer.step()
            state = copy.deepcopy(optimizer.state_dict())
            continue
        stored = copy.deepcopy(state)  # what is loaded becomes the optimizer's own
        restore(optimizer, {**stored, 'param_groups': [dict(group, lr=5.0) for group in stored['param_groups']]})
        assert optimizer.param_groups[0]['lr'] == 0.1
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step()
        moved.append(layer.weight.detach() - weight)
    torch.testing.assert_close(*moved)
