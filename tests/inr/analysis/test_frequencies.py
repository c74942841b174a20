"""Frequencies by known answers: rows set by hand, both conventions, a generator without rows."""

import math

import pytest
import torch

from inr import hypernetwork
from inr.analysis.frequencies import row_frequencies
from inr.generator import Generator


def test_a_wave_of_three_cycles_an_image_is_told_as_three_in_both_conventions():
    A = hypernetwork.Generator(8, 0, 12, 32, 3, synthesis_kwargs=dict(channel_max=8)).eval()
    head = A.synthesis.b16.coords.head
    head.weight.data.zero_()
    head.bias.data = torch.tensor([3.0, 4.0] * 4) * 2 * math.pi / 10  # rows (3, 4) 2 pi: five cycles on [0, 1)
    found = row_frequencies(A, A.mapping(torch.randn(2, 8)))
    assert list(found) == ['b16', 'b32'] and list(found['b16']) == ['generated']
    assert found['b16']['generated'].shape == (8,) and torch.allclose(found['b16']['generated'], torch.tensor(5.0))
    spec = dict(random=2, learned=1, generated=1, log=2)
    B = Generator(8, 0, 12, 64, 3, dict(num_layers=1), dict(channel_max=8, input_features=spec, features={64: dict(constants=2)})).eval()
    coords = B.synthesis.b4.coords
    coords.random_basis.copy_(torch.tensor([[3 * math.pi, 0.0], [0.0, math.pi]]))  # on [-1, 1): three cycles, and one
    coords.shared_basis.data.copy_(torch.tensor([[0.0, 2 * math.pi]]))
    found = row_frequencies(B, B.mapping(torch.randn(5, 8), None))
    assert {source: values.shape[0] for source, values in found['b4'].items()} == {'log': 2, 'random': 2, 'learned': 1, 'generated': 5}
    assert torch.allclose(found['b4']['random'], torch.tensor([3.0, 1.0])) and torch.allclose(found['b4']['learned'], torch.tensor([2.0]))
    assert torch.allclose(found['b4']['log'], torch.tensor([0.5, 0.5]))  # the lowest of the basis: pi / 2


@pytest.mark.parametrize('decoder', ['basic', 'hyper'])
def test_generators_without_rows_are_told(decoder):
    G = hypernetwork.Generator(8, 0, 12, 32, 3, synthesis_kwargs=dict(channel_max=8, decoder=decoder)).eval()
    with pytest.raises(ValueError, match='no Fourier embedding'):
        row_frequencies(G, G.mapping(torch.randn(2, 8)))
