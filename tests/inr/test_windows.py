"""Windows that training draws are parts of the pictures that render draws, whatever the reads, features and family."""

import math
from dataclasses import replace

import pytest
import torch

from inr import grid, refinement, render, windows
from inr.footprint import kept_by_pixels
from inr.generator import Generator
from inr.hypernetwork import Generator as GeneratorA
from inr.periodic import on_circle, without_jumps
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
    'footprint': lambda: small(features=dict(FEATURES, fine=4, footprint='pixel', generated=2, damped=True), upsampling='linear'),
    'larger': lambda: small(features=dict(FEATURES, footprint='larger', learned=2)),
    'periodic': lambda: small(features=dict(FEATURES, constants=2), upsampling='linear', periodic='xy'),
    'generator A': lambda: GeneratorA(8, 0, 8, 32, 3, dict(num_layers=1), dict(channel_max=8, fmm_rank=2)).eval(),
}


@pytest.mark.parametrize('middles', [False, True])
@pytest.mark.parametrize('name', MODELS)
def test_a_window_is_a_tile_of_the_picture(name, middles):
    G = MODELS[name]()
    synthesis = G.synthesis
    synthesis.pyramid = replace(synthesis.pyramid, convention=replace(synthesis.pyramid.convention, middles=middles))
    ws = G.mapping(torch.randn(len(WINDOWS), 8), None)
    drawn = synthesis(ws, windows=torch.tensor(WINDOWS), noise_mode='const')
    assert drawn.shape == (len(WINDOWS), 3, 32, 32)
    for i, (size, left, top) in enumerate(WINDOWS):
        tile = render.render(G, ws[i : i + 1], size, size, tile=(top, left, 32, 32))
        assert (drawn[i] - tile[0]).abs().max() < 1e-5, WINDOWS[i]
    assert (drawn[0] - synthesis(ws[:1], noise_mode='const')[0]).abs().max() < 1e-5


@pytest.mark.parametrize('features', [dict(learned=2), dict(generated=2), dict(constants=2)])
def test_gradients_are_those_of_what_was_drawn(features):
    G = small(features=dict(FEATURES, **features))
    learned = [parameter.requires_grad_(False) for name, parameter in G.named_parameters() if '.coords.' in name]
    weights = [parameter for parameter in G.synthesis.parameters() if parameter.requires_grad]
    loss = G.synthesis(torch.randn(2, G.num_ws, 8), windows=torch.tensor(WINDOWS[2:4])).square().sum()
    before = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    with torch.no_grad():
        [parameter.add_(1) for parameter in learned]
    assert all(map(torch.equal, before, torch.autograd.grad(loss, weights))) and learned


def test_windows_have_gradients():
    G = MODELS['linear']()
    ws = G.mapping(torch.randn(2, 8), None).detach().requires_grad_()
    G.synthesis(ws, windows=torch.tensor([(64, 16, 8), (32, 0, 0)])).square().sum().backward()
    plain = ws.grad.clone()
    ws.grad = None
    for i, (size, left, top) in enumerate([(64, 16, 8), (32, 0, 0)]):
        points = G.synthesis.pyramid.plan(grid.lattice(size, size).tile(top, left, 32, 32))
        G.synthesis.draw(ws[i : i + 1], points, impl='ref').square().sum().backward()
    assert relative_error(plain, ws.grad) < 1e-5


@pytest.mark.parametrize('window', [(64, 1, 0), (64, 40, 0), (64, 0, -8), (16, 0, 0), (57, 0, 0)])
def test_windows_off_the_cells_or_outside_are_refused(window):
    with pytest.raises(ValueError, match='do not lie in their pictures'):
        windows.window_points(torch.tensor([window]), [8, 16, 32], grid.GENERATOR_B)


def test_windows_of_a_periodic_picture_begin_within_it():
    convention = replace(grid.GENERATOR_B, periodic=(True, False))
    assert len(windows.window_points(torch.tensor([(64, 60, 32)]), [8, 16, 32], convention)) == 3
    for window in ((64, 64, 0), (64, 0, 36)):
        with pytest.raises(ValueError, match='do not lie in their pictures'):
            windows.window_points(torch.tensor([window]), [8, 16, 32], convention)


def test_rows_of_a_periodic_picture_have_the_nearest_whole_number_of_periods():
    rows = torch.tensor([[1.6, 1.6], [-1.4, -1.4], [0.4, 0.4], [-2.6, 7.0]]) * math.pi
    assert torch.allclose(on_circle(rows, (True, False)) / math.pi, torch.tensor([[2, 1.6], [-1, -1.4], [0, 0.4], [-3, 7]]))


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


# ---- Pixels have an area


def test_a_row_keeps_what_the_average_over_a_pixel_keeps():
    rows = torch.tensor([[1.0, 0], [0, 3], [2, -2], [5, 1]])
    corners = torch.linspace(-0.5, 0.5, 101)
    for width, height in ((0.1, 0.1), (0.6, 0.2), (0.2, 0.9)):
        waves = (rows[:, 0, None, None] * corners * width + rows[:, 1, None, None] * corners[:, None] * height).cos()
        assert torch.allclose(kept_by_pixels(rows, (width, height)), waves.mean((1, 2)), atol=0.03)
    assert kept_by_pixels(torch.tensor([[math.pi, 0]]), (1, 1)) == pytest.approx(0.663, abs=1e-3)


def test_weight_is_one_up_to_the_trained_size_where_that_is_chosen():
    plain, larger, pixel = (small(features=dict(FEATURES, footprint=footprint)) for footprint in (None, 'larger', 'pixel'))
    ws = plain.mapping(torch.randn(2, 8), None)
    for size, same in ((32, True), (80, True), (16, False)):
        drawn = [render.render(G, ws, size, size) for G in (plain, larger, pixel)]
        assert torch.equal(drawn[0], drawn[1]) == same and not torch.equal(drawn[0], drawn[2])


def test_damped_rows_count_less_the_finer_they_are():
    plain, damped = (small(features=dict(FEATURES, fine=4, damped=on, cosine=False)) for on in (False, True))
    points = plain.synthesis.pyramid.points('cpu')[-1]
    waves = [G.synthesis.b32.coords(points, None)[0] for G in (plain, damped)]
    rows = plain.synthesis.b32.coords.random_basis[4:]
    weights = torch.ones(len(waves[0]))
    weights[-4:] = 32 * math.pi / 2 / rows.norm(dim=1)
    assert 0.1 < weights.min() < 0.2 and 0.7 < weights[-4:].max() < 0.8
    torch.testing.assert_close(waves[1], waves[0] * weights[:, None, None])


@pytest.mark.parametrize('synthesis', [
    dict(features=dict(FEATURES, fine=4, footprint='pixel', damped=True)), dict(features=FEATURES, periodic='x'),
])  # fmt: skip
@pytest.mark.parametrize('size', [32, 20, 45])
def test_blocks_drawn_whole_have_footprints_and_circles_too(synthesis, size):
    G = small(upsampling='linear', **synthesis)
    ws = G.mapping(torch.randn(2, 8), None)
    points = G.synthesis.pyramid.plan(G.synthesis.pyramid.lattice(size))
    with torch.no_grad():
        assert (G.synthesis.draw(ws, points) - G.synthesis.draw(ws, points, impl='ref')).abs().max() < 1e-5


def test_a_smaller_picture_is_the_average_of_the_larger_one():
    """Rows finer than its pixels fade; middles put it where it belongs."""
    errors = {}
    for name, options in {'plain': {}, 'both': dict(middles=True)}.items():
        features = dict(log=10, random=8, raw=True, footprint='pixel' if options else None)
        G = small(features=features, upsampling='linear', **options)
        ws = G.mapping(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)), None)
        half, own = (render.render(G, ws, size, size) for size in (16, 32))
        errors[name] = (half - torch.nn.functional.avg_pool2d(own, 2)).square().mean() / own.var()
    assert errors['both'] < errors['plain'] / 3


# ---- Pictures that close


@pytest.mark.parametrize('upsampling', ['nearest', 'linear'])
@pytest.mark.parametrize('axes', ['x', 'y', 'xy'])
def test_a_periodic_picture_goes_on_at_its_beginning(axes, upsampling):
    G = small(features=dict(FEATURES, constants=2), upsampling=upsampling, periodic=axes, middles=True)
    ws = G.mapping(torch.randn(2, 8), None)
    for size in (32, 72):
        own = render.render(G, ws, size, size)
        wide = render.render(G, ws, 2 * size, 2 * size, window=(-0.5, -0.5, 1.5, 1.5))  # the picture and half of the next ones
        columns, rows = (wide[:, :, size // 2 : -size // 2], wide[:, :, :, size // 2 : -size // 2])
        for axis, part, dim in (('x', columns, 3), ('y', rows, 2)):
            moved = own.roll(size // 2, dim)
            agrees = (part.narrow(dim, 0, size) - moved).abs().max() < 1e-5
            assert agrees == (axis in axes), (axis, size)
    points = G.synthesis.pyramid.convention.coordinates(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    assert [bool(axis[0] == axis[1]) for axis in points] == [axis in axes for axis in 'xy']


def test_a_window_goes_on_at_the_beginning_of_a_periodic_picture():
    G = small(features=FEATURES, upsampling='linear', periodic='x')
    ws = G.mapping(torch.randn(2, 8), None)
    shifted = G.synthesis(ws, windows=torch.tensor([(32, 20, 0), (64, 48, 16)]))
    assert (shifted[0] - G.synthesis(ws)[0].roll(-20, 2)).abs().max() < 1e-5
    whole = render.render(G, ws[1:], 64, 64)[0].roll(-48, 2)
    assert (shifted[1] - whole[:, 16:48, :32]).abs().max() < 1e-5
    with pytest.raises(ValueError, match='do not lie'):
        G.synthesis(ws, windows=torch.tensor([(64, 0, 48)] * 2))


@pytest.mark.parametrize('options, says', [
    (dict(upsampling='bilinear'), 'bilinear reads and stored noise'), (dict(noise=True), 'bilinear reads and stored noise'),
    (dict(features=dict(learned=4)), 'no whole periods'), (dict(periodic='z'), "unknown periodic 'z'"),
    (dict(features=dict(log=4, footprint='round')), "unknown footprint 'round'"),
    (dict(features=dict(fine=4, reach=1)), 'give more than 1'),
])
def test_mistakes(options, says):
    with pytest.raises(ValueError, match=says):
        small(**{'periodic': 'x', **options})


def test_coordinates_that_jump_are_left_out():
    x, y = torch.tensor([-1.0, 0.5]), torch.tensor([0.25, 1.0])
    assert [axis.tolist() for axis in without_jumps(x, y, (True, False))] == [[0, 0], [0.25, 1]]
    assert [axis.tolist() for axis in without_jumps(x, y, (False, True))] == [[-1, 0.5], [0, 0]]


@pytest.mark.parametrize('name', MODELS)
def test_places_stand_for_windows(name):
    G = MODELS[name]().synthesis
    ws = torch.randn(3, G.num_ws, 8)
    held = [part.clone() for part in G.places(torch.tensor([[32, 0, 0]] * 3))]
    for parts in ([[32, 0, 0], [64, 8, 24], [96, 64, 0]], [[48, 16, 8]] * 3):
        for own, part in zip(held, G.places(torch.tensor(parts)), strict=True):
            own.copy_(part)
        assert torch.equal(G(ws, windows=tuple(held)), G(ws, windows=torch.tensor(parts)))
    for count in (2, 5):
        with pytest.raises(ValueError, match='another number of images'):
            G(ws[:1].expand(count, -1, -1), windows=tuple(held))
