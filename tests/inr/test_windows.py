"""Windows that training draws are parts of the pictures that render draws, whatever the reads, features and family."""

import pytest
import torch

from inr import grid, refinement, render
from inr.generator import Generator
from inr.hypernetwork import Generator as GeneratorA
from tests.helpers import relative_error

WINDOWS = [(32, 0, 0), (64, 0, 32), (64, 16, 8), (56, 24, 24), (128, 96, 40), (40, 8, 0)]  # (size, left, top)


def small(**synthesis):
    torch.manual_seed(0)
    base = dict(channel_base=512, channel_max=8, fmm_rank=2, input_resolution=8)
    return Generator(8, 0, 8, 32, 3, dict(num_layers=1), {**base, **synthesis}).eval()


FEATURES = dict(log=8, random=4, raw=True)
MODELS = {
    'nearest': lambda: small(features=FEATURES),
    'linear': lambda: small(features=FEATURES, upsampling='linear'),
    'constants': lambda: small(features=dict(log=8, constants=3)),
    'one grid': lambda: small(features=FEATURES, input_resolution='full', upsampling='linear'),
    'generator A': lambda: GeneratorA(8, 0, 8, 32, 3, dict(num_layers=1), dict(channel_max=8, fmm_rank=2)).eval(),
}


@pytest.mark.parametrize('middles', [False, True])
@pytest.mark.parametrize('name', MODELS)
def test_a_window_is_a_tile_of_the_picture(name, middles):
    G = MODELS[name]()
    synthesis = G.synthesis
    synthesis.convention = grid.Convention(synthesis.convention.lower_corner, synthesis.convention.centred, middles)
    ws = G.mapping(torch.randn(len(WINDOWS), 8), None)
    drawn = synthesis(ws, windows=torch.tensor(WINDOWS), noise_mode='const')
    assert drawn.shape == (len(WINDOWS), 3, 32, 32)
    for i, (size, left, top) in enumerate(WINDOWS):
        tile = render.render(G, ws[i : i + 1], size, size, tile=(top, left, 32, 32))
        assert (drawn[i] - tile[0]).abs().max() < 1e-5, WINDOWS[i]
    assert (drawn[0] - synthesis(ws[:1], noise_mode='const')[0]).abs().max() < 1e-5


def test_windows_have_gradients():
    G = MODELS['linear']()
    ws = G.mapping(torch.randn(2, 8), None).detach().requires_grad_()
    G.synthesis(ws, windows=torch.tensor([(64, 16, 8), (32, 0, 0)])).square().sum().backward()
    plain = ws.grad.clone()
    ws.grad = None
    for i, (size, left, top) in enumerate([(64, 16, 8), (32, 0, 0)]):
        points = G.synthesis.plan(grid.lattice(size, size).tile(top, left, 32, 32))
        G.synthesis.draw(ws[i : i + 1], points, impl='ref').square().sum().backward()
    assert relative_error(plain, ws.grad) < 1e-5


@pytest.mark.parametrize('window', [(64, 1, 0), (64, 40, 0), (64, 0, -8), (16, 0, 0), (57, 0, 0)])
def test_windows_off_the_cells_or_outside_are_refused(window):
    with pytest.raises(ValueError, match='do not lie in their pictures'):
        refinement.window_points(torch.tensor([window]), [8, 16, 32], grid.GENERATOR_B)


def test_networks_without_windows_say_so():
    for G in (small(features=FEATURES, upsampling='bilinear'), small(features=FEATURES, instance_norm=True)):
        assert not G.synthesis.draws_windows
        with pytest.raises(ValueError, match='no windows in training'):
            G.synthesis(torch.zeros(1, G.num_ws, 8), windows=torch.tensor([(32, 0, 0)]))


@pytest.mark.parametrize('refine', refinement.REFINEMENTS)
@pytest.mark.parametrize('convention', [grid.GENERATOR_A, grid.GENERATOR_B])
def test_middles_of_pixels_sample_what_trained_pixels_there_do(convention, refine):
    """A larger or smaller picture of a linear function lies on the trained one: pixel i of n has the value of its middle."""
    middles = grid.Convention(convention.lower_corner, convention.centred, middles=True)
    for size in (32, 64, 20, 50, 160):
        finest = refinement.plan(grid.lattice(size, size, convention=middles), [8, 16, 32], refine, middles)[-1]
        trained = refinement.plan(grid.lattice(32, 32, convention=middles), [8, 16, 32], refine, middles)[-1]
        at_edge, step = trained.x[0] - (trained.x[1] - trained.x[0]) / 2, trained.x[1] - trained.x[0]  # of the place of the left edge
        expected = at_edge + step * (torch.arange(size) + 0.5) * 32 / size
        assert torch.allclose(finest.x, expected, atol=1e-6)
        step = trained.y[1] - trained.y[0]
        assert torch.allclose(finest.y, trained.y[0] - step / 2 + step * (torch.arange(size) + 0.5) * 32 / size, atol=1e-6)
