"""Images that are no squares: pixels stay squares, and the plane is the one that a square network knows."""

import pytest
import torch

from inr import generator, grid, hypernetwork, render
from inr.fixed import function_of
from inr.fourier import log_basis
from inr.function import load
from tests.helpers import relative_error

SMALL = dict(channel_base=128, channel_max=8, fmm_rank=2)


def network(size=None, module=generator, **options):
    torch.manual_seed(0)
    return module.Generator(8, 0, 8, 32, 3, dict(num_layers=1), {**SMALL, **options}, img_size=size).eval().requires_grad_(False)


def some_ws(G, count=2):
    return G.mapping(torch.randn(count, 8, generator=torch.Generator().manual_seed(1)), None)


def test_pixels_are_squares_and_the_middle_is_zero():
    for resolution in (8, 32):
        points = grid.training_points([resolution], grid.Convention(True, True, extent=(1.5, 1)))[0]
        assert points.shape == (resolution, 3 * resolution // 2)
        assert torch.allclose(points.x.diff(), torch.tensor(2 / resolution))
        assert torch.allclose(points.y.diff(), torch.tensor(-2 / resolution))
        assert points.x[0] == -1.5 and points.y[-1] == -1 and points.pixel == (2 / resolution,) * 2


@pytest.mark.parametrize('options', [
    dict(), dict(upsampling='linear', middles=True), dict(upsampling='bilinear', instance_norm=True), dict(noise=True),
    dict(upsampling='linear', periodic='x'), dict(module=hypernetwork, channel_base=None),
], ids=lambda options: ' '.join(options) or 'inr')
def test_the_trained_picture_its_tiles_and_its_layers(options):
    G = network([48, 32], **options)
    ws = some_ws(G)
    image = G.synthesis(ws, noise_mode='const')
    assert image.shape == (2, 3, 32, 48) and G.img_size == (48, 32) and type(G)(**G.init_kwargs).img_size == (48, 32)
    assert relative_error(G.synthesis(ws, noise_mode='const', impl='ref'), image) < 1e-4
    assert torch.equal(render.render(G, ws, 32, 48), image)
    assert G.synthesis(ws, resolution=16).shape == (2, 3, 16, 24) and G.synthesis(ws, resolution=8).shape == (2, 3, 8, 12)
    if G.synthesis.pointwise:
        large = render.render(G, ws, 70, 90)
        assert relative_error(render.render(G, ws, 70, 90, tile=(11, 5, 40, 30)), large[:, :, 11:51, 5:35]) < 1e-5
        assert relative_error(render.render(G, ws, 32, 48, tile=(1, 7, 20, 33)), image[:, :, 1:21, 7:40]) < 1e-5


@pytest.mark.parametrize('size, options', [
    ([64, 32], dict(features=dict(log=16))), ([64, 32], dict(features=dict(random=6, raw=True), upsampling='linear')),
    ([32, 80], dict(features=dict(random=6, raw=True), upsampling='linear', middles=True)),
], ids=['log basis', 'linear', 'high'])
def test_the_plane_is_that_of_a_square_network(size, options):
    square, oblong = network(**options), network(size, **options)
    oblong.load_state_dict(square.state_dict())
    ws, (width, height) = some_ws(square), size
    middle = render.render(oblong, ws, height, width)
    left, top = (width - 32) // 2, (height - 32) // 2
    inside = slice(2, -2)  # at the square's ends linear reads hold the border
    part = middle[:, :, top:top + 32, left:left + 32]
    assert relative_error(part[:, :, inside, inside], render.render(square, ws, 32, 32)[:, :, inside, inside]) < 1e-5


def test_long_images_have_octaves_below():
    def lowest(extent):
        return log_basis(16, extent=extent).abs().amax(1).min().item() / torch.pi

    assert [lowest(extent) for extent in (1, 2, 2.5, 4, 9)] == pytest.approx([1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 16])


def test_constants_and_noise_have_the_shape_of_their_grid():
    G = network([48, 32], noise=True)
    assert G.synthesis.b4.coords.const_embs.shape[2:] == (32, 48) and G.synthesis.b32.layers[0].noise.noise_const.shape == (32, 48)
    square = network(noise=True)
    assert list(G.state_dict()) == list(square.state_dict()) and 'img_size' not in square.init_kwargs


def test_a_periodic_picture_closes_after_its_own_length():
    G = network([64, 32], upsampling='linear', periodic='x', features=dict(random=6, raw=True, cosine=True))
    ws = some_ws(G)
    image = render.render(G, ws, 32, 64)
    assert relative_error(render.render(G, ws, 32, 64, (1, 0, 2, 1)), image) < 1e-5
    assert relative_error(render.render(G, ws, 32, 64, (0.5, 0, 1.5, 1)), image.roll(32, 3)) < 1e-5
    assert relative_error(image[..., :32], image[..., 32:]) > 0.1


def test_a_part_of_a_larger_picture_is_drawn_as_that():
    G = network([48, 32], upsampling='linear')
    ws, windows = some_ws(G), torch.tensor([[64, 32, 8], [32, 0, 0]])
    parts = G.synthesis(ws, windows=windows)
    assert parts.shape == (2, 3, 32, 48)
    assert relative_error(parts[:1], render.render(G, ws[:1], 64, 96)[:, :, 8:40, 32:80]) < 1e-5
    assert relative_error(parts[1:], render.render(G, ws[1:], 32, 48)) < 1e-5


def test_a_function_keeps_its_shape(tmp_path):
    G = network([48, 32])
    ws = some_ws(G, 1)
    (tmp_path / 'f.safetensors').write_bytes(function_of(G, ws).to_bytes(half=False))
    function = load(tmp_path / 'f.safetensors')
    assert function.img_size == (48, 32) and function.form.version == 2
    assert relative_error(function.render(32, 48), G.synthesis(ws)) < 1e-5
    assert b'extent' not in function_of(network(), ws).to_bytes()


@pytest.mark.parametrize('size', [[48, 16], [50, 32], [48]])
def test_sizes_that_do_not_fit(size):
    with pytest.raises(ValueError, match='img_size='):
        network(size)
