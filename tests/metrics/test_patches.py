"""Scores of windows: the same places of drawn and real pictures, nothing drawn beside them, known answers."""

import numpy as np
import pytest
import torch
from PIL import Image

from dnnlib.util import UserError
from metrics import detectors
from metrics.image_sources import Latents
from metrics.metric_main import Subject, evaluate
from metrics.patches import DataPatches, DrawnPatches, places
from metrics.registry import parse, parse_list
from tests.metrics.test_metric_main import Means
from tests.training.tiny import make_images
from torch_utils.pixels import quantized
from training.data.transforms import part_of_square
from training.dataset import AnySize, ImageDataset, open_set

Generator = pytest.importorskip('inr.generator').Generator
render = pytest.importorskip('inr.render').render


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = make_images(tmp_path_factory.mktemp('data') / 'pictures', count=6, resolution=48)
    Image.new('RGB', (40, 90)).save(folder / '90.png')
    return ImageDataset(folder, resolution=16)


@pytest.fixture(scope='module')
def G():
    torch.manual_seed(0)
    return Generator(8, 0, 8, 16, 3, dict(num_layers=1), dict(channel_base=128, channel_max=8, fmm_rank=2, input_resolution=8)).eval()


@pytest.mark.parametrize('name, size, num', [('patch_fd_dinov2@256', 256, 50_000), ('patch_kd_efficientnet-lite0_5k@128', 128, 5000)])
def test_names(name, size, num):
    metric = parse(name)
    assert (metric.window_of, metric.num) == (size, num) and not metric.higher_is_better
    assert metric.score_name() == name.replace('dinov2@', 'dinov2_50k@')
    assert metric.with_num(100).score_name('file-1') == f'{metric.kind}_file-1_100@{size}'
    for wrong in ('patch_fd_dinov2', 'patch_kd_dinov2@0', 'fd_dinov2@256', 'patch_kd@64'):
        with pytest.raises(UserError, match='is not known'):
            parse(wrong)


def test_places_are_a_function_of_the_number():
    found = places(range(300), 48, 16, 4)
    assert np.array_equal(places([7, 299], 48, 16, 4), found[[7, 299]]) and (found[:, 0] == 48).all()
    assert all(np.array_equal(np.unique(found[:, i]), np.arange(0, 33, 4)) for i in (1, 2))


def test_real_windows_are_those_of_pictures_that_are_large_enough(pictures):
    source = DataPatches(pictures, None, 48, 16)
    assert source.total == 6 and DataPatches(pictures, None, 40, 16).total == 7 and DataPatches(pictures, 3, 48, 16).total == 3
    window = places([2], 48, 16)[0]
    expected = part_of_square(pictures.picture(pictures.files.names[2]), *window, 16)
    assert np.array_equal(source.batch([2])[0], expected) and len(source.batch([0, 5])) == 2
    assert len({DataPatches(pictures, None, *sizes).digest for sizes in ((48, 16), (40, 16), (48, 8))}) == 3
    with pytest.raises(UserError, match='@100: 0 of the 7 images .* the largest have 48'):
        DataPatches(pictures, None, 100, 16)


def test_drawn_windows_are_parts_of_the_drawn_picture(G):
    latents = Latents(G)
    with torch.no_grad():
        found = DrawnPatches(latents, 8, 1.0, 40).batch([3, 5])
        for i, (size, left, top) in zip((0, 1), places([3, 5], 40, 16, 2), strict=True):
            ws = G.mapping(latents([(3, 5)[i]])[0][0], None)
            whole = quantized(render(G, ws, size, size))[0, :, top : top + 16, left : left + 16]
            assert (found[i].int() - whole.int()).abs().max() <= 1
    for size in (8, 41):
        with pytest.raises(UserError, match=f'@{size}: give 16 or more, a multiple of 2'):
            DrawnPatches(latents, 8, 1.0, size)


def test_scores(pictures, G, monkeypatch, tmp_path):
    monkeypatch.setattr(detectors, 'load', lambda name, files=None, device='cpu': Means())
    metrics = [metric.with_num(6) for metric in parse_list('patch_fd_efficientnet-lite0@48,patch_kd_efficientnet-lite0@48')]
    same = {score.metric.kind: score for score in evaluate(metrics, Subject(pictures, images=pictures, cache=tmp_path))}
    fd, kd = (same[kind].values[f'{kind}_efficientnet-lite0_6@48'] for kind in ('patch_fd', 'patch_kd'))
    assert fd < 1e-6 and kd < 1 and same['patch_fd'].facts['windows_of'] == 48 and same['patch_fd'].facts['num_real'] == 6
    drawn = next(evaluate(metrics, Subject(pictures, G, cache=tmp_path)))
    assert drawn.values['patch_fd_efficientnet-lite0_6@48'] > 1


def test_pictures_as_they_were_are_seen_at_the_networks_size(tmp_path):
    folder = make_images(tmp_path / 'native', count=2, resolution=40)
    (folder / 'dataset.json').write_text('{"native": 32}')
    with pytest.raises(AnySize):
        open_set(folder, None)
    assert open_set(folder, 32).resolution == 32 and open_set(folder, 32)[0][0].shape == (3, 32, 32)
    assert open_set(make_images(tmp_path / 'plain', count=2, resolution=64), 32).resolution == 64
