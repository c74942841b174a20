"""What the commands make of networks whose images are no squares."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import calc_metrics
import generate
import projector
import walk
from dnnlib.cli import Side
from dnnlib.util import UserError
from inference import WHOLE, targets
from inference.painter import Painter, asked_size, fitting_size, picture, points_in, stretched
from metrics import patches, path_length, sliced_wasserstein
from tests import tiny_snapshots
from tests.helpers import relative_error
from tests.tiny_snapshots import call, mistake
from torch_utils.misc import size_of
from viewing.drawing import Drawing


def size(path):
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    return tiny_snapshots.save(tmp_path_factory.mktemp('oblong') / 'inr.safetensors', tiny_snapshots.inr(img_size=[32, 16]))


def test_sizes_that_are_asked_for():
    G, square = SimpleNamespace(img_resolution=64, img_size=(128, 64)), SimpleNamespace(img_resolution=64)
    assert size_of(G) == (128, 64) and size_of(square) == (64, 64)
    assert fitting_size(G) == (128, 64) and fitting_size(G, (0, 0, 0.5, 1)) == (128, 128) and fitting_size(G, WHOLE, 1000) == (1000, 500)
    assert asked_size(G, WHOLE, Side((300, 300))) == (300, 150) and asked_size(G, WHOLE, (300, 300)) == (300, 300)
    assert asked_size(square, WHOLE, Side((300, 300))) == (300, 300) and asked_size(square, (0, 0, 2, 1), None) == (64, 32)
    assert stretched(G, 1500, 640, WHOLE) == 'stretched to 1.17 times its width' and stretched(G, 1500, 750, WHOLE) == ''
    assert stretched(G, 300, 300, WHOLE) == 'stretched to 2 times its height' and stretched(G, 301, 150, WHOLE) == ''


def test_generate(network, tmp_path):
    code, out, _ = call(generate.main, f'--network={network}', '--seeds=1', f'--outdir={tmp_path}')
    assert code == 0 and size(tmp_path / 'seed0001.png') == (32, 16) and 'stretched' not in out
    code, out, _ = call(generate.main, f'--network={network}', '--seeds=1', f'--outdir={tmp_path}', '--res=90', '--grid')
    assert code == 0 and size(tmp_path / 'grid.png') == (90, 45) and 'stretched' not in out
    code, out, _ = call(generate.main, f'--network={network}', '--seeds=1', f'--outdir={tmp_path}', '--res=75x32')
    assert code == 0 and size(tmp_path / 'seed0001.png') == (75, 32) and 'stretched to 1.17 times its width; --res=75 alone keeps it' in out
    for written in ('function', 'html', 'onnx'):
        assert call(generate.main, f'--network={network}', '--seeds=1', f'--outdir={tmp_path}', f'--format={written}')[0] == 0


def test_stylegan2_is_resized_in_proportion(tmp_path):
    network = tiny_snapshots.save(tmp_path / 'stylegan2.safetensors', tiny_snapshots.stylegan2(img_size=[16, 32]))
    code, out, _ = call(generate.main, f'--network={network}', '--seeds=0', f'--outdir={tmp_path}', '--res=64')
    assert code == 0 and size(tmp_path / 'seed0000.png') == (32, 64) and 'draws 16x32 only: resized to 32x64 (Lanczos)\n' in out


def test_walk(network, tmp_path):
    code, out, _ = call(walk.main, f'--network={network}', '--seeds=0,1', '--seconds=0.1', '--fps=10', f'--out={tmp_path / "w.gif"}')
    assert code == 0 and size(tmp_path / 'w.gif') == (256, 128)


def test_projector(network, tmp_path):
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (60, 80, 3), np.uint8)).save(tmp_path / 'target.png')
    mask = np.zeros((60, 80), np.uint8)
    mask[:, :40] = 255
    Image.fromarray(mask).save(tmp_path / 'mask.png')
    code, out, _ = call(projector.main, f'--network={network}', f'--target={tmp_path / "target.png"}', f'--outdir={tmp_path}',
                        '--num-steps=1', f'--mask={tmp_path / "mask.png"}', '--distance=pixels')
    assert code == 0 and 'cut to its middle 80x40, resized to 32x16 (Lanczos)' in out
    assert size(tmp_path / 'projection.png') == (32, 16)
    code, _, _ = call(generate.main, f'--network={network}', f'--projected-w={tmp_path / "projected_w.npz"}', f'--outdir={tmp_path}',
                      '--res=150x64')
    assert code == 0 and size(tmp_path / 'projected.png') == (150, 64)


def test_targets_are_cut_to_the_proportions(tmp_path, capsys):
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[10:30] = 255
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    assert (targets.read_target(tmp_path / 'a.png', (40, 20), 3) == 255).all()
    assert targets.read_mask(tmp_path / 'a.png', (8, 4)).all() and targets.read_mask(tmp_path / 'a.png', (8, 4)).shape == (4, 8)


def test_parts_of_the_trained_picture_and_pictures_of_a_longer_side():
    G = tiny_snapshots.inr(img_size=[32, 16]).eval().requires_grad_(False)
    ws = torch.randn(1, G.num_ws, 8)
    part = G.synthesis.draw(ws, points_in(G, (slice(3, 12), slice(8, 31))))
    assert relative_error(part, G.synthesis(ws)[:, :, 3:12, 8:31]) < 1e-5
    assert picture(G, ws, 64).shape == (32, 64, 3) and picture(G, ws).shape == (16, 32, 3)


def test_the_page_shows_it_in_the_middle_of_a_square():
    drawing = SimpleNamespace(G=SimpleNamespace(img_size=(128, 64)))
    assert Drawing.in_image(drawing, (0.0, 0.25, 1.0, 0.75)) == WHOLE
    assert Drawing.in_image(drawing, (0.25, 0.25, 0.5, 0.5)) == (0.25, 0.0, 0.5, 0.5)  # a square of pixels
    drawing.G.img_size = (64, 64)
    assert Drawing.in_image(drawing, (0.1, 0.2, 0.3, 0.4)) == (0.1, 0.2, 0.3, 0.4)


def test_scores_work_or_say_why_not(network, tmp_path):
    assert path_length.prepared(torch.zeros(1, 3, 512, 1024), crop=False).shape == (1, 3, 256, 512)
    assert path_length.prepared(torch.zeros(1, 3, 64, 128), crop=True).shape == (1, 3, 32, 64)
    G = tiny_snapshots.inr(img_size=[32, 16])
    with pytest.raises(UserError, match='@32 takes square windows; this generator draws 32x16'):
        patches.DrawnPatches(SimpleNamespace(G=G, seed=0), 10, 1.0, 32)
    folder = tmp_path / 'data'
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.random.RandomState(i).randint(0, 256, (16, 32, 3), np.uint8)).save(folder / f'{i}.png')
    common = f'--network={network}', f'--data={folder}', '--num=3', f'--record={tmp_path / "record.jsonl"}'
    assert 'swd halves square images, these are 32x16' in mistake(calc_metrics.main, *common, '--metrics=swd2k')
    code, out, err = call(calc_metrics.main, *common, '--metrics=scale_consistency')
    assert code == 0, err
    assert sliced_wasserstein.level_sizes(64) == [64, 32, 16]


def test_a_painter_draws_what_it_is_asked_for(network):
    G = tiny_snapshots.inr(img_size=[32, 16]).eval()
    assert Painter(G, 75, 32, (-0.1, 0, 1.1, 1)).whole(torch.randn(1, G.num_ws, 8)).shape == (1, 32, 75, 3)
