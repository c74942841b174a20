"""Whatever types a generator is turned to, 'auto' gives the numbers of plain operators or one clear line: never those of other memory."""

import contextlib
import warnings

import pytest
import torch
from torch.nn.utils import parametrizations, parametrize

from inr import generator, hypernetwork
from inr.ops import native
from tests.helpers import needs_compiled_code, relative_error

needs_compiled_code(allow_module_level=True)

SYNTHESIS = {
    'A': (hypernetwork.Generator, dict(channel_max=5, fmm_rank=2)),
    'A equalized': (hypernetwork.Generator, dict(channel_max=5, fmm_rank=2, equalized_lr=True)),
    'B': (generator.Generator, dict(channel_base=80, channel_max=5, fmm_rank=2, input_resolution=8, upsampling='linear', coord_skips=True)),
}


class Doubled(torch.nn.Module):
    """Twice the stored tensor, in another memory layout."""

    def forward(self, stored):
        return (2 * stored.mT.contiguous()).mT if stored.ndim == 2 else 2 * stored

    def right_inverse(self, value):
        return value / 2


def weight_norm(layer):
    parametrizations.weight_norm(layer)


def old_weight_norm(layer):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # deprecated
        torch.nn.utils.weight_norm(layer)


def spectral_norm(layer):
    parametrizations.spectral_norm(layer)


def doubled(layer):
    parametrize.register_parametrization(layer, 'weight', Doubled())
    if isinstance(getattr(layer, 'bias', None), torch.nn.Parameter):
        parametrize.register_parametrization(layer, 'bias', Doubled())


def half_weights(layer):
    layer.weight.data = layer.weight.data.half()


PARAMETRIZED = (weight_norm, old_weight_norm, spectral_norm, doubled, half_weights)


def build(name):
    torch.manual_seed(5)
    cls, synthesis = SYNTHESIS[name]
    return cls(4, 0, 6, 16, 3, dict(num_layers=1), synthesis)


def run(G, z, training, impl):
    """The image and, in training, the gradients of what the host asks for."""
    G.zero_grad()
    if not training:
        with torch.no_grad():
            return [G.eval()(z, None, truncation_psi=0.7, impl=impl, noise_mode='const')]
    image = G.train()(z, None, impl=impl, noise_mode='const')
    image.square().mean().backward()
    return [image.detach(), *(p.grad for p in G.parameters() if p.grad is not None)]


def check(G, training, batch=1, allowed=1e-4):
    z = torch.randn(batch, 4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    state = {name: value.clone() for name, value in G.state_dict().items()}
    plain = run(G, z, training, 'ref')
    G.load_state_dict(state)  # running means, power iterations
    found = run(G, z, training, 'auto')
    assert len(plain) == len(found) and plain[0].isfinite().all() and plain[0].std() > 0
    largest = max((grad.norm() for grad in plain[1:]), default=0)
    for index, (ours, expected) in enumerate(zip(found, plain, strict=True)):
        assert ours.dtype == expected.dtype
        assert (ours - expected).norm() <= allowed * max(expected.norm(), 1e-3 * largest if index else 0)  # some are rounding alone
    return found[0]


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('name', SYNTHESIS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_generators_of_another_type(name, dtype, training):
    G = build(name)
    expected = check(G, training)
    image = check(G.to(dtype), training, allowed=2e-2 if dtype != torch.float64 else 1e-4)
    assert relative_error(image, expected) < {torch.float16: 5e-3, torch.bfloat16: 5e-2, torch.float64: 1e-4}[dtype]


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('name', SYNTHESIS)
def test_autocast_does_not_reach_the_layers(name, training):
    G, found = build(name).train(training), []
    if name.startswith('A'):  # B's mapping network is the host's
        with torch.autocast('cpu', torch.bfloat16):
            inside = G.mapping(torch.ones(1, 4), truncation_psi=0.7, skip_w_avg_update=True)
        assert torch.equal(inside, G.mapping(torch.ones(1, 4), truncation_psi=0.7, skip_w_avg_update=True))
    ws = torch.randn(1, G.num_ws, 6, requires_grad=training)
    for inside in (False, True):
        with torch.autocast('cpu', torch.bfloat16) if inside else contextlib.nullcontext():
            image = G.train(training).synthesis(ws, noise_mode='const')
        found.append([image, *torch.autograd.grad(image.square().mean(), [ws, *G.synthesis.parameters()])] if training else [image])
    with torch.autocast('cpu', torch.bfloat16):  # what autocast does to a backward pass is PyTorch's affair
        check(G, training, allowed=2e-2)
    for ours, expected in zip(*found, strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, expected)


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('name', SYNTHESIS)
def test_another_default_type(name, training):
    G = build(name)
    expected = check(G, training)
    torch.set_default_dtype(torch.float64)
    try:
        assert relative_error(check(G, training), expected) < 1e-6
        check(build(name), training)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('how', PARAMETRIZED, ids=lambda how: how.__name__)
@pytest.mark.parametrize('name', SYNTHESIS)
def test_parametrized_layers(name, how, training):
    G = build(name)
    for part in [*G.synthesis.modules()]:
        if isinstance(getattr(part, 'weight', None), torch.nn.Parameter):
            how(part)
    check(G, training)


@pytest.mark.parametrize('tensor, message', [
    (torch.zeros(3, dtype=torch.float64), r'reads 3 numbers of torch.float32, contiguous on the CPU, not \[3\] of torch.float64 on cpu'),
    (torch.zeros(3, 4).mT, r'not strided \[4, 3\]'), (torch.zeros(3, device='meta'), 'on meta'), (torch.zeros(4), 'reads 3 numbers'),
    (torch._neg_view(torch.zeros(3)), 'contiguous'),
])
def test_the_way_to_a_pointer_is_checked(tensor, message):
    with pytest.raises(ValueError, match=message):
        native.pointer(tensor, count=tensor.numel() if tensor.numel() != 4 else 3)
    assert native.pointer(None) == 0 and native.pointer(torch.zeros(3, dtype=torch.int32), torch.int32, 3) > 0


def test_structures_of_another_size_are_not_used(monkeypatch):
    native._library.cache_clear()
    monkeypatch.setattr(native, 'Layer', type('Layer', (native.Layer,), {'_fields_': [('more', native._int)]}))
    try:
        with pytest.raises(native.Unavailable, match='another Layer'):
            native.library()
    finally:
        native._library.cache_clear()


def test_points_of_other_grids_are_refused():
    from inr import grid, refinement

    G = build('B').eval()
    points = refinement.plan(grid.lattice(16, 16), [16, 32], 'last')
    wrong = [points[0], grid.Points(points[1].x, points[1].y, (refinement.AxisRead(torch.full([16], 99)),) * 2)]
    with pytest.raises(ValueError, match='points of other grids'), torch.no_grad():
        G.synthesis.draw(torch.zeros(1, G.num_ws, 6), wrong, impl='fused')
