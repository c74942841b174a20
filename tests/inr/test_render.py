"""Any size, window and tile from one generator."""

import pytest
import torch

from inference import painter
from inr import render
from inr.generator import Generator, from_inr_gan
from inr.grid import WHOLE
from inr.ops import block_cpu
from inr.refinement import REFINEMENTS
from tests.helpers import needs_compiled_code, relative_error
from tests.inr.test_generator import load_public

WINDOW = (-0.3, -0.2, 1.4, 1.1)


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(1)
    synthesis = dict(channel_base=512, channel_max=8, fmm_rank=2, features={128: dict(log=32, random=4, constants=2)})
    G = Generator(8, 0, 8, 128, 3, dict(num_layers=1), synthesis).eval()
    return G, G.mapping(torch.randn(2, 8), None).detach()


@pytest.mark.parametrize('refine', REFINEMENTS)
def test_the_training_size_is_the_training_image(model, refine):
    G, ws = model
    trained = G.synthesis(ws)
    assert torch.equal(render.render(G, ws, 128, 128, refine=refine), trained)
    assert (render.render(G, ws, 128, 128, refine=refine, max_bytes=100_000) - trained).abs().max() < 1e-5


@pytest.mark.parametrize('refine', REFINEMENTS)
@pytest.mark.parametrize('height, width, window', [(300, 512, (0, 0, 1, 1)), (100, 150, WINDOW), (90, 48, (0.25, 0.25, 0.5, 0.5))])
def test_tiles_and_bands_agree_with_the_whole(model, refine, height, width, window):
    G, ws = model
    whole = render.render(G, ws, height, width, window, refine)
    assert whole.shape == (2, 3, height, width)
    for tile in [(0, 0, 17, 21), (13, 7, 30, 33), (height - 1, 0, 1, width), (0, width - 1, height, 1)]:
        top, left, rows, cols = tile
        part = render.render(G, ws, height, width, window, refine, tile)
        assert (part - whole[:, :, top : top + rows, left : left + cols]).abs().max() < 1e-5
    starts, parts = zip(*render.bands(G, ws, height, width, window, refine, max_bytes=400_000), strict=True)
    assert len(parts) > 2 and list(starts) == [sum(p.shape[2] for p in parts[:i]) for i in range(len(parts))]
    assert (torch.cat(parts, 2) - whole).abs().max() < 1e-5
    in_parts = render.render(G, ws, height, width, window, refine, tile=(5, 0, 2, width), max_bytes=40_000)
    assert (in_parts - whole[:, :, 5:7]).abs().max() < 1e-5


def test_finer_pictures_pass_through_the_trained_pixels(model):
    """Of a grid four times as fine, every fourth column from the first and every fourth row from the fourth are trained points."""
    G, ws = model
    fine = render.render(G, ws, 512, 512, refine='last')
    assert (fine[:, :, 3::4, ::4] - G.synthesis(ws)).abs().max() < 1e-4


@pytest.mark.parametrize('refine', REFINEMENTS)
def test_smaller_pictures_are_made_of_trained_pixels(model, refine):
    G, ws = model
    assert (render.render(G, ws, 32, 64, refine=refine) - G.synthesis(ws)[:, :, 3::4, ::2]).abs().max() < 1e-5


def test_a_window_is_the_part_of_the_whole_picture(model):
    G, ws = model
    whole = render.render(G, ws, 256, 256)
    part = render.render(G, ws, 64, 128, window=(0.25, 0.5, 0.75, 0.75))
    assert (part - whole[:, :, 128:192, 64:192]).abs().max() < 1e-5


def test_zooming_out_keeps_the_picture_in_the_middle(model):
    G, ws = model
    wide = render.render(G, ws, 256, 256, window=(-0.5, -0.5, 1.5, 1.5))
    assert (wide[:, :, 64:192, 64:192] - G.synthesis(ws)).abs().max() < 1e-5


def test_a_preview_costs_a_fraction(model):
    from torch.utils.flop_counter import FlopCounterMode

    G, ws = model
    counts = []
    for size in (32, 128, 256):
        with FlopCounterMode(display=False) as counter:
            render.render(G, ws, size, size)
        counts.append(counter.get_total_flops())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        G.synthesis(ws)
    assert counts[0] < 0.4 * counts[1] and counts[1] == counter.get_total_flops()


def test_cells_show_in_one_refinement_only(model):
    """Steps along a row at 8x, by place in a cell of the 64 grid: 'last' has them at the border alone."""
    G, ws = model
    shares = {}
    for refine in REFINEMENTS:
        image = render.render(G, ws, 64, 1024, refine=refine)
        steps = (image[..., 1:] - image[..., :-1]).abs().mean(dim=(0, 1, 2))
        profile = torch.stack([steps[phase::16].mean() for phase in range(16)])
        shares[refine] = (profile.max() / profile.sum()).item()
    assert shares['last'] > 0.4 and shares['smooth'] < 0.15 and shares['all'] < 0.2


def test_models_whose_pixels_depend_on_each_other_refuse_tiles():
    stored, state, config = load_public('inr_gan_bil_64')
    G = from_inr_gan(config, state).eval()
    ws = torch.from_numpy(stored['ws'])
    assert torch.equal(render.render(G, ws, 64, 64, max_bytes=1), G.synthesis(ws))
    assert render.render(G, ws, 100, 37, max_bytes=1).shape == (2, 3, 100, 37)
    with pytest.raises(render.CannotTile, match='ask for the whole picture'):
        render.render(G, ws, 64, 64, tile=(0, 0, 8, 8))
    with pytest.raises(render.CannotTile, match='GiB at once'):
        render.render(G, ws, 20000, 20000)


@pytest.mark.parametrize('by_layers', [False, True], ids=['whole blocks', 'by layers'])
@pytest.mark.parametrize('upsampling', ['linear', 'bilinear'])
def test_models_that_read_between_samples_draw_any_part(upsampling, by_layers, monkeypatch):
    """Whole, bands, tiles, windows and zooms are one function of the point; bit for bit by the compiled code."""
    torch.manual_seed(1)
    synthesis = dict(channel_base=512, channel_max=8, fmm_rank=2, upsampling=upsampling, features={64: dict(log=32, constants=2)})
    G = Generator(8, 0, 8, 64, 3, dict(num_layers=1), synthesis).eval()
    with torch.no_grad():
        ws = G.mapping(torch.randn(2, 8), None)
    assert G.synthesis.pointwise
    if by_layers:
        monkeypatch.setattr(block_cpu, 'why_not', lambda *_: 'not here')
    else:
        needs_compiled_code()

    def same(a, b):
        assert relative_error(a, b) < 1e-5 if by_layers else torch.equal(a, b)

    trained = G.synthesis(ws)
    same(render.render(G, ws, 64, 64), trained)
    same(render.render(G, ws, 64, 64, max_bytes=100_000), trained)
    same(render.render(G, ws, 64, 64, tile=(3, 20, 40, 21)), trained[:, :, 3:43, 20:41])
    for size, window in ((90, WHOLE), (48, (-0.3, -0.2, 1.4, 1.1))):
        for refine in ('last', 'all'):
            whole = render.render(G, ws, size, size, window, refine)
            same(render.render(G, ws, size, size, window, refine, max_bytes=400_000), whole)
            same(render.render(G, ws, size, size, window, refine, tile=(1, 20, size - 3, 21)), whole[:, :, 1 : size - 2, 20:41])
    part = painter.points_in(G, (slice(3, 43), slice(20, 41)))
    with torch.no_grad():
        same(G.synthesis.draw(ws, part), trained[:, :, 3:43, 20:41])
    wide = render.render(G, ws, 128, 128, window=(-0.5, -0.5, 1.5, 1.5))
    same(wide[:, :, 32:96, 32:96], trained)
    assert relative_error(render.render(G, ws, 128, 128, refine='last')[:, :, 1::2, ::2], trained) < 1e-5


def test_aligned_bilinear_reads_agree_with_the_layer_they_replace():
    """A window of the trained size that is the whole but for its name goes through reads instead of interpolate."""
    from inr import grid, refinement

    stored, state, config = load_public('inr_gan_bil_64')
    G = from_inr_gan(config, state).eval()
    ws = torch.from_numpy(stored['ws'])
    points_per_grid = refinement.plan(grid.lattice(64, 64), G.synthesis.pyramid.sizes, upsampling='bilinear')
    assert points_per_grid[1].parent[0].frac is not None
    assert (G.synthesis.draw(ws, points_per_grid) - G.synthesis(ws)).abs().max() < 1e-4


@pytest.mark.parametrize('tile', [(0, 0, 0, 4), (-1, 0, 4, 4), (60, 0, 5, 4), (0, 64, 1, 1)])
def test_tiles_outside_the_picture_are_refused(model, tile):
    G, ws = model
    with pytest.raises(ValueError, match='outside the 64x64 picture'):
        render.render(G, ws, 64, 64, tile=tile)


def test_only_generators_that_draw_points_are_supported(model):
    assert render.supports(model[0])
    assert not render.supports(torch.nn.Linear(2, 2))


@pytest.mark.parametrize('height, width, max_bytes', [(256, 256, 2e6), (40, 5000, 4e6), (1000, 1000, 3e6)])
@pytest.mark.parametrize('refine', REFINEMENTS)
def test_a_band_keeps_to_its_memory(model, height, width, max_bytes, refine):
    """What the layers of one part hold at once, counted through hooks, stays near the bound and well above a small share of it."""
    G, ws = model
    held = []
    hooks = [b.register_forward_hook(lambda block, _i, out: held.append(4 * out[0].numel() // block.spec.channels * _floats(block)))
             for b in (G.synthesis.b128, G.synthesis.b64)]  # fmt: skip
    try:
        for _ in render.bands(G, ws, height, width, refine=refine, max_bytes=max_bytes):
            pass
    finally:
        for hook in hooks:
            hook.remove()
    assert 0.2 * max_bytes < max(held) < 1.3 * max_bytes


def _floats(block):
    return 3 * block.spec.channels + 2 * block.coords.num_features


def test_parts_end_where_coarse_cells_end():
    """8 finest points lie in a coarsest cell: bands are multiples of it where they can be, and long rows are cut at multiples too."""
    assert render._part_shape(1000, 100, 3000, 8) == (24, 100)
    assert render._part_shape(1000, 100, 900, 8) == (8, 100)
    assert render._part_shape(1000, 100, 500, 8) == (8, 56)
    assert render._part_shape(3, 1000, 600, 8) == (3, 200)
    assert render._part_shape(1000, 100, 5, 8) == (8, 1)
    assert render._part_shape(10, 10, 10**9, 8) == (10, 10)


def test_full_precision_can_be_forced():
    options = dict(channel_base=512, channel_max=8, fmm_rank=2, num_fp16_res=3, half_dtype='bfloat16', features={64: dict(log=32)})
    G = Generator(8, 0, 8, 64, 3, dict(num_layers=1), options).eval()
    ws = G.mapping(torch.randn(2, 8), None).detach()
    for size in (64, 100):
        half, full = (render.render(G, ws, size, size, force_fp32=force) for force in (False, True))
        assert 1e-4 < (half - full).norm() / full.norm() < 0.05
    assert torch.equal(render.render(G, ws, 64, 64, force_fp32=True), G.synthesis(ws, force_fp32=True))


def test_mistakes_are_told_before_the_first_band(model):
    G, ws = model
    with pytest.raises(ValueError, match='at least 1'):
        render.bands(G, ws, 0, 5)
    with pytest.raises(ValueError, match="unknown refinement 'best'"):
        render.bands(G, ws, 128, 128, refine='best')
    with pytest.raises(ValueError, match='too far'):
        render.bands(G, ws, 4, 4, window=(-1e300, 0, 1e300, 1))


def test_one_point_of_a_model_with_instance_norm_is_finite():
    _, state, config = load_public('inr_gan_bil_64')
    G = from_inr_gan(config, state).eval()
    assert render.render(G, torch.randn(1, 11, 24), 1, 1, window=(0.3, 0.3, 0.4, 0.4)).isfinite().all()
