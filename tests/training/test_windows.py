"""Windows: real ones are parts of shrunk pictures, D gets which, runs resume with the same ones, mistakes get a line."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import train
from dnnlib.util import UserError
from tests.helpers import relative_error
from tests.tiny_snapshots import call
from tests.training.runs import steps
from tests.training.tiny import ROW, make_images
from training import checkpoint, config, memory, options, starting
from training.data.transforms import part_of_square
from training.dataset import ImageDataset
from training.latents import draw_latents
from training.loading import batches
from training.training_loop import Training
from training.windows import Windows, consistency, coverage, label

pytest.importorskip('inr')  # whose generators draw windows
INR = {**ROW, 'G': 'inr.generator.Generator', 'pl_weight': 0, 'style_mixing': 0, 'r1_interval': 2,
       'synthesis': dict(fmm_rank=2, input_resolution=8, upsampling='linear', features=dict(log=8, random=4, raw=True))}


def synthesis(periodic=(False, False)):
    return SimpleNamespace(pyramid=SimpleNamespace(step=2, convention=SimpleNamespace(periodic=periodic)))


SYNTHESIS = synthesis()


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('data') / 'pictures', count=6, resolution=48)


def windows_run(folder, use_labels=False, mirror=False, row=INR, **given):
    """(data set, configuration) of a run at 16 pixels on pictures of 48."""
    dataset = ImageDataset(folder, use_labels=use_labels, mirror=mirror, resolution=16)
    data = config.DataConfig(str(folder), dataset.digest, 16, 3, len(dataset), dataset.label_dim, None, mirror, None, 16)
    return dataset, config.build('tiny', row, data, **{'windows': True, 'scale_max': 3.0, **given})


@pytest.mark.parametrize('shape', [(3, 48, 48), (1, 40, 70), (4, 90, 33)])
@pytest.mark.parametrize('window', [(16, 0, 0), (24, 8, 0), (32, 4, 16)])
def test_a_real_window_is_a_part_of_the_shrunk_square(shape, window):
    picture = np.random.RandomState(0).randint(90, 160, shape, np.uint8)  # no overshoot is cut off between rows and columns
    picture = picture if shape[0] < 4 else np.concatenate([picture[:3], np.full_like(picture[:1], 255)])
    size, left, top = window
    side = min(shape[1:])
    x, y = (shape[2] - side) // 2, (shape[1] - side) // 2
    square = Image.fromarray(picture.transpose(1, 2, 0).squeeze()).resize((size, size), Image.LANCZOS, box=(x, y, x + side, y + side))
    expected = np.atleast_3d(np.asarray(square)).transpose(2, 0, 1)[:, top : top + 16, left : left + 16]
    found = part_of_square(picture, *window, 16)
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= 1


def test_the_square_moves_along_the_longer_side():
    picture = np.arange(100, dtype=np.uint8)[None, None].repeat(20, 1)                          # [1, 20, 100], grows to the right
    means = [part_of_square(picture, 20, 0, 0, 20, place).mean() for place in (0, 0.5, 1)]
    assert np.allclose(means, [9.5, 49.5, 89.5], atol=0.5)


def test_mirrored_windows_are_parts_of_the_mirrored_picture(pictures):
    dataset, settings = windows_run(pictures, mirror=True, whole=0.0)
    source = Windows(settings, dataset, SYNTHESIS)
    for position in range(5):
        (pixels, _, window), (other, _, other_window) = (source[i, position] for i in (1, 1 + 6))
        flipped = part_of_square(dataset.picture(dataset.files.names[1])[:, :, ::-1], *other_window, 16)
        assert np.array_equal(window, other_window) and not np.array_equal(pixels, other)
        assert np.abs(flipped.astype(int) - other).max() <= 1


def test_windows_keep_to_their_bounds(pictures):
    dataset, settings = windows_run(pictures, whole=0.25, scale_min=1.5, batch=4)
    source = Windows(settings, dataset, SYNTHESIS)
    drawn = source.of_items([0] * 800, np.random.RandomState(0).random_sample([800, 5]), 0)
    size, left, top = drawn.unbind(1)
    parts = size > 16
    assert 0.2 < 1 - parts.float().mean() < 0.3 and (drawn % 2 == 0).all()
    assert size[parts].min() == 24 and size.max() == 46 and len(size.unique()) == 13
    assert (left + 16 <= size).all() and (top + 16 <= size).all() and left.max() > 20 and not torch.equal(left, top)
    assert (source.of_items([0] * 9, np.full([9, 5], 0.999), 0) == torch.tensor([46, 30, 30])).all()


def test_fakes_are_judged_wherever_a_periodic_picture_begins(pictures):
    dataset, settings = windows_run(pictures, whole=0.5)
    source = Windows(settings, dataset, synthesis(periodic=(True, False)))
    drawn = source.of_items([0] * 400, np.random.RandomState(0).random_sample([400, 5]), 0)
    size, left, top = drawn.unbind(1)
    assert (left[size == 16].unique() == torch.arange(0, 16, 2)).all() and (top[size == 16] == 0).all()
    assert ((left + 16 > size) & (size > 16)).any() and (left < size).all() and (top + 16 <= size).all()
    assert all(source[0, position][2][1] + 16 <= source[0, position][2][0] for position in range(8))  # real ones are what there is
    seen = source.labels(torch.zeros(400, 0), drawn)
    assert seen[:, [1, 4, 7]].std(0).max() < 1e-6 and seen[:, 2].std() > 0.1 and source.are_parts(drawn)


def test_scales_grow_with_the_run(pictures):
    dataset, settings = windows_run(pictures, grow='8:0.02', fade=0.02, scale_ramp=0.1)
    source = Windows(settings, dataset, SYNTHESIS)
    assert [source.highest(images) for images in (0, 20, 39, 40)] == [1, 1, 1, 1]
    assert source.highest(90) == pytest.approx(3 ** 0.5) and source.highest(140) == source.highest(10 ** 6) == 3
    assert all(source[0, position][2][0] == 16 for position in range(40))  # positions of the steps of before


def test_all_images_of_a_step_have_its_scale(pictures):
    dataset, settings = windows_run(pictures, scale_ramp=0.001, whole=0.0)
    source = Windows(settings, dataset, SYNTHESIS)
    assert source.highest(0) == 1 and source.highest(1) == 3
    sizes = [int(source[0, position][2][0]) for position in range(12)]
    assert sizes[:4] == [16] * 4 and max(sizes[4:]) > 16


def test_pixels_that_a_window_has_all_of_count():
    shares, has = coverage(torch.tensor([0.0, 16.0, 8.0]), torch.tensor([16.0, 32.0, 32.0]), 16)
    assert torch.equal(shares[0], torch.eye(16)) and has.sum(1).tolist() == [16, 8, 8]
    assert has[1].tolist() == [False] * 8 + [True] * 8 and has[2].tolist() == [False] * 4 + [True] * 8 + [False] * 4


def test_labels_and_windows_are_told_apart():
    windows = torch.tensor([[16, 0, 0], [48, 0, 0], [48, 32, 0], [48, 0, 32], [32, 8, 8], [48, 16, 16]])
    seen = label(windows, 16, 3.0)
    assert seen.shape == (6, options.WINDOW_LABEL_DIM) and seen.abs().max() <= 1
    assert (torch.cdist(seen, seen) + 9 * torch.eye(6)).min() > 0.5
    assert torch.allclose(seen[0], torch.tensor([1.0, 0, 0, 0, 1, 1, 1, -1, -1]), atol=1e-6)  # scale 1, in the middle


@pytest.mark.parametrize('window', [(32, 6, 10), (48, 32, 0), (40, 8, 14), (16, 0, 0)])
def test_a_window_that_is_the_enlarged_picture_is_consistent(window):
    whole = torch.rand(1, 3, 16, 16)
    size, left, top = window
    at = [(torch.arange(first, first + 16) * 16) // size for first in (top, left)]
    drawn = whole[:, :, at[0]][..., at[1]].requires_grad_()
    if size % 16:  # some pixels lie on borders of larger ones
        drawn = torch.full_like(whole, 0.25).requires_grad_()
        whole = torch.full_like(whole, 0.25)
    distance = consistency(drawn, torch.tensor([window]), whole)
    assert distance.item() < 1e-10
    moved = consistency(drawn + 0.5, torch.tensor([window]), whole)
    assert moved.item() == pytest.approx(0.25, rel=1e-4)
    moved.sum().backward()
    assert (drawn.grad != 0).float().mean() > 0.5


def test_a_run_on_windows_resumes_bit_for_bit(pictures, tmp_path):
    dataset, settings = windows_run(pictures, consistency=1.0)
    whole, half = steps(Training(settings, dataset), 4), steps(Training(settings, dataset), 2)
    path = checkpoint.network_path(tmp_path, half.images)
    checkpoint.save_state(checkpoint.state_path(path), half.state_dict())
    checkpoint.save_networks(path, half.networks, settings, half.images)
    resumed = Training(settings, dataset)
    resumed.resume(path)
    steps(resumed, 2)
    for name, network in whole.networks.items():
        other = resumed.networks[name].state_dict()
        assert all(torch.equal(value, other[key]) for key, value in network.state_dict().items()), name


def test_a_resumed_run_takes_another_share_of_whole_pictures(pictures):
    dataset, settings = windows_run(pictures, whole=1.0)
    settings = config.override(settings, whole=0.0)
    windows = Windows(settings, dataset, SYNTHESIS)
    sizes = [windows[i % 6, i][2][0].item() for i in range(32)]
    assert settings.windows.whole == 0 and min(sizes) >= 16 and len(set(sizes)) > 4 and sizes.count(16) < 8
    with pytest.raises(UserError, match='--whole has no effect without --windows'):
        config.override(windows_run(pictures, windows=False, scale_max=None)[1], whole=0.5)


def test_the_command_that_resumes_takes_it_too(pictures, tmp_path):
    def go(*args):
        return call(train.main, '--kimg=0.008', '--device=cpu', f'--outdir={tmp_path}', *args)

    assert go('--cfg=inr-tiny', f'--data={pictures}', '--res=16', '--windows', '--batch=4', '--kimg=0.004')[0] == 0
    code, out, err = go('--resume=latest', '--whole=0.2')
    assert code == 0 and '20% whole pictures' in out, err
    small = make_images(tmp_path / 'small', count=4, resolution=16)
    whole = ['--windows', '--whole=1', '--periodic=x']
    assert go('--cfg=inr-tiny', f'--data={small}', '--res=16', *whole, '--batch=4', '--kimg=0.004')[0] == 0
    code, _, err = go('--resume=latest', '--whole=0.5')
    assert code == 2 and '--whole=0.5 has no effect' in err


def test_two_passes_have_the_gradients_of_one(pictures):
    runs = []
    for batch_gpu in (4, 2):
        dataset, settings = windows_run(pictures, whole=0.3, consistency=0.5, batch_gpu=batch_gpu)
        runs.append(steps(Training(settings, dataset), 1))
    for name in ('G', 'D'):
        one, two = (torch.cat([p.detach().flatten() for p in run.networks[name].parameters()]) for run in runs)
        assert relative_error(two, one) < 1e-4


def test_d_is_told_the_window_of_each_image(pictures):
    dataset, settings = windows_run(pictures, whole=0.0, use_labels=False)
    training, seen = Training(settings, dataset), []
    training.D.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    data = batches(training.source, settings, 0, pin=False)
    reals, labels, windows = next(data)
    data.close()
    training.step(reals, labels, windows)
    numbers = label(windows, 16, 3.0)
    assert len(windows.unique(dim=0)) > 1 and any(torch.equal(c, numbers) for c in seen)  # of the reals
    assert len(seen) == 4 and all(c.shape == (4, options.WINDOW_LABEL_DIM) for c in seen)
    assert not torch.equal(seen[0], seen[1])                                           # fakes of G's and of D's phase


def test_without_windows_nothing_changes(pictures):
    """The latents of a run on whole pictures are drawn as before, and `--res` alone trains on them."""
    dataset, settings = windows_run(pictures, windows=False, scale_max=None)
    training = steps(Training(settings, dataset), 2)
    assert training.source is dataset and training.D.c_dim == 0 and training.images == 8
    latents = draw_latents(settings, dataset, 8, 'G')
    same = draw_latents(*windows_run(pictures)[::-1], 8, 'G', Windows(windows_run(pictures)[1], dataset, SYNTHESIS))
    assert latents.windows is None and torch.equal(latents.z, same.z) and same.windows.shape == (4, 3)


def test_what_windows_take_is_counted(pictures):
    """The coarse grids have a cell more on each side, every image has features of its own; up to a half more for a tiny G."""
    whole, windows = (memory.needs(windows_run(pictures, **given)[1]) for given in (dict(windows=False, scale_max=None), {}))
    assert whole.macs['G'] < windows.macs['G'] < 1.5 * whole.macs['G'] and whole.per_image < windows.per_image


@pytest.mark.parametrize('given, says', [
    (dict(windows=False, scale_max=None, whole=0.5), '--whole has no effect without --windows'),
    (dict(scale_min=4.0), '--scale-min=4 is above the highest scale of windows, 3'),
    (dict(row=ROW), '--windows: the generator of --cfg=tiny draws no windows'),
])
def test_mistakes(pictures, given, says):
    with pytest.raises(UserError, match=says):
        dataset, settings = windows_run(pictures, **given)
        Training(settings, dataset)


def test_mistakes_about_pictures(pictures, tmp_path):
    small = make_images(tmp_path / 'small', count=2, resolution=16)
    with pytest.raises(UserError, match='is 16x16, smaller than 32x32'):
        ImageDataset(small, resolution=32)
    (small / 'dataset.json').write_text('{"native": 16}')
    with pytest.raises(UserError, match='with --res=N'):
        ImageDataset(small)
    assert starting.highest_scale(ImageDataset(pictures, resolution=16), None) == 3
    for dataset, asked, says in ((ImageDataset(pictures, resolution=16), 4, '--scale-max=4: the pictures of .* at most 3 times'),
                                 (ImageDataset(small, resolution=16), None, 'a smaller --res, or larger pictures')):
        with pytest.raises(UserError, match=says):
            starting.highest_scale(dataset, asked)
    with pytest.raises(UserError, match='--res=17: give one of 16, 32, 64'):
        starting.new_run(str(pictures), None, dict(cfg='inr-tiny', res=17, windows=True), 'cpu')
    assert starting.highest_scale(ImageDataset(small, resolution=16), None, whole=1.0) == 1  # a texture or panorama of whole pictures


def test_an_unreadable_picture_is_passed_over(pictures, tmp_path, capsys):
    folder = make_images(tmp_path / 'some', count=3, resolution=48)
    (folder / '01.png').write_bytes((folder / '01.png').read_bytes()[:200])
    dataset, settings = windows_run(folder)
    pixels, _, window = Windows(settings, dataset, SYNTHESIS)[1, 0]
    assert pixels.shape == (3, 16, 16) and '01.png' in capsys.readouterr().err
    assert dataset.side(1) == 48  # its header is whole
