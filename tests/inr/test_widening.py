"""A generator with more channels or random rows out of one with fewer: it draws the same."""

import pytest
import torch

from inr.generator import Generator
from tests.helpers import relative_error
from tests.inr.test_windows import small
from tests.training.test_config import data
from training import plugins, transfer
from training.checkpoint import save_networks
from training.config import build

ROWS = dict(log=8, random=3, raw=True)


def shapes_of(G):
    """{key: shape} as a file has them."""
    return {key: list(value.shape) for key, value in G.state_dict().items()}


def filled(wide, narrow):
    """wide with all that narrow has; the keys that were placed."""
    own, placed, given = wide.state_dict(), [], narrow.state_dict()
    for key, value in given.items():
        if value.shape == own[key].shape:
            own[key].copy_(value)
            continue
        wide.place(key, shapes_of(narrow)).fill(own[key], value)
        placed.append(key)
    return placed


@pytest.mark.parametrize('rank, squash', [(3, 'demod'), (None, 'demod'), ('full', 'demod'), (3, 'tanh'), ('full', 'sigmoid')])
@pytest.mark.parametrize('more', [dict(), dict(cosine=False), dict(constants=2, generated=2, learned=1)])
@pytest.mark.parametrize('coord_skips', [False, True])
@pytest.mark.parametrize('fine, channels', [(4, 8), (0, 12), (4, 11)])
def test_it_draws_the_same(rank, squash, more, coord_skips, fine, channels):
    knobs = dict(fmm_rank=rank, squash=squash, coord_skips=coord_skips, upsampling='nearest' if 'constants' in more else 'linear')
    narrow = small(features=dict(ROWS, **more), **knobs)
    wide = small(features=dict(ROWS, **more, fine=fine), channel_max=channels, **knobs)
    placed = filled(wide, narrow)
    assert any(key.endswith('affine.bias') for key in placed)
    assert any(key.endswith('coords.random_basis') for key in placed) == (fine > 0)
    assert any('torgb' in key for key in placed) == (channels > 8)
    ws = torch.randn(2, narrow.num_ws, 8)
    torch.testing.assert_close(wide.synthesis(ws), narrow.synthesis(ws), rtol=1e-4, atol=1e-5)
    loss = wide.synthesis(ws).square().sum()
    grads = torch.autograd.grad(loss, [p for name, p in wide.named_parameters() if name in placed])
    assert all(grad.norm() > 0 for grad in grads)
    if channels > 8:  # what is new learns too
        grad, = torch.autograd.grad(wide.synthesis(ws).square().sum(), wide.synthesis.b32.torgb.weight)
        assert (grad[:, 8:] != 0).all()


@pytest.mark.parametrize('key, shape', [
    ('synthesis.b32.layers.0.weight', [8, 20, 1, 1]), ('synthesis.b32.layers.0.weight', [9, 30, 1, 1]),
    ('synthesis.b32.layers.0.bias', [3]), ('synthesis.b32.layers.0.weight', [8, 22, 3, 3]),
    ('synthesis.b32.layers.0.affine.bias', [31]), ('synthesis.b32.coords.random_basis', [99, 2]), ('mapping.fc0.weight', [8, 9]),
    ('synthesis.b64.layers.0.weight', [8, 8, 1, 1]), ('synthesis.b32.layers.7.weight', [8, 8, 1, 1]), ('synthesis.b32.layers.0.weight', []),
])
def test_what_has_other_reasons_has_no_place(key, shape):
    shapes = shapes_of(small(features=ROWS))
    assert small(features=dict(ROWS, fine=4)).place(key, {**shapes, key: shape}) is None


@pytest.mark.parametrize('had, has, options', [
    (dict(ROWS, fine=4), ROWS, {}), (dict(ROWS, raw=False), ROWS, {}), (dict(ROWS, raw=False), dict(ROWS, fine=4), {}),
    (dict(ROWS, log=4), dict(ROWS, fine=4), {}), (dict(ROWS, log=4), dict(ROWS, fine=4), dict(channel_max=12)),
    (ROWS, dict(ROWS, fine=4), dict(channel_max=6)),
    (ROWS, dict(ROWS, fine=4), dict(periodic='x', upsampling='linear')), (dict(ROWS, constants=2), dict(ROWS, fine=4), {}),
])
def test_layers_that_differ_by_more_than_random_rows_have_no_place(had, has, options):
    narrow, wide = small(features=had, **{**options, 'periodic': 'none', 'channel_max': 8}), small(features=has, **options)
    shapes, own = shapes_of(narrow), wide.state_dict()
    others = [key for key, shape in shapes.items() if '.layers.0.' in key and shape != list(own[key].shape)]
    assert others and not any(wide.place(key, shapes) for key in others if key.startswith('synthesis.b32'))


@pytest.mark.parametrize('name, options, tolerance', [
    ('inr-any', {}, 0.02), ('inr-medium', {}, 1e-5), ('inr-medium', dict(equalized_lr=False), 1e-5),
    ('inr-any', dict(equalized_lr=False), 0.02),  # its low rows fade a little too
])
def test_presets_go_on_from_inr_small(tmp_path, name, options, tolerance):
    settings = {name: build(name, plugins.presets()[name], data(64), **options) for name in ('inr-small', name)}
    narrow, *wide = (plugins.build_generator(settings[each]) for each in ('inr-small', name, name))
    save_networks(tmp_path / 'a.safetensors', {'G_ema': narrow}, settings['inr-small'], 1000)
    given = dict(zip(('G', 'G_ema'), wide, strict=True))
    lines = transfer.load(tmp_path / 'a.safetensors', given)
    assert lines == [line for line in transfer.check(tmp_path / 'a.safetensors', settings[name]) if line.startswith('G')]
    assert '100% of' not in lines[0] and 'with room for more, of which images show nothing yet: synthesis.b' in lines[0]
    assert 'as initialized' not in lines[0]
    ws = torch.randn(2, narrow.num_ws, narrow.w_dim)
    assert relative_error(wide[1].synthesis(ws), narrow.synthesis(ws)) < tolerance


@pytest.mark.parametrize('channels', [1, 3])
def test_more_channels_of_images_too(channels):
    narrow, wide = (Generator(8, 0, 8, 32, img_channels, dict(num_layers=1), dict(channel_base=512, channel_max=width, fmm_rank=2))
                    for img_channels, width in ((channels, 8), (4, 12)))
    key = 'synthesis.b32.torgb.weight'
    own, given = wide.state_dict()[key], narrow.state_dict()[key]
    rest = own[channels:].clone()
    wide.place(key, shapes_of(narrow)).fill(own, given)
    assert relative_error(own[:channels, :8], given * 1.5**0.5) < 1e-6 and (own[:channels, 8:] == 0).all()
    assert torch.equal(own[channels:], rest)


def test_nothing_is_placed_where_modulation_is_not():
    """Another width of w: trained weights would meet random modulation."""
    narrow = Generator(8, 0, 8, 32, 3, dict(num_layers=1), dict(channel_base=512, channel_max=8, fmm_rank=2))
    wide = Generator(8, 0, 12, 32, 3, dict(num_layers=1), dict(channel_base=512, channel_max=12, fmm_rank=2))
    shapes = shapes_of(narrow)
    assert not any(wide.place(key, shapes) for key in shapes)


@pytest.mark.parametrize('key, shape', [
    ('synthesis.b32.coords.random_basis', []), ('synthesis.b32.layers.1.weight', [8]), ('synthesis.b32.layers.1.weight', [0, 8, 1, 1]),
    ('synthesis.b32.torgb.affine.weight', []), ('synthesis.b32.layers.0.affine.weight', [8]), ('synthesis.b16.layers.1.weight', []),
])
def test_odd_shapes_have_no_place(key, shape):
    narrow, wide = (small(features=dict(ROWS, fine=fine), channel_max=width) for fine, width in ((0, 8), (4, 12)))
    shapes = {**shapes_of(narrow), key: shape}
    places = {each: wide.place(each, shapes) for each in shapes}
    assert places[key] is None
