"""projector.py: targets and masks of every kind, the files it leaves, and what it says to mistakes."""

import csv
import gc
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

import generate
import projector
from dnnlib import image_io
from inference import latents
from inference.projection import w_statistics
from metrics.perceptual import Pixels
from tests import tiny_snapshots
from tests.helpers import relative_error
from tests.tiny_snapshots import call, mistake
from tests.training.tiny import make_set
from torch_utils.pixels import to_uint8
from training.data.files import ImageFiles

FILES = ['distance.csv', 'distance.png', 'projected_w.npz', 'projection.png', 'side_by_side.png', 'target.png']


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def image_of(G, seed, label=None):
    """What the generator draws for a seed: uint8 [R, R, C]."""
    ws = latents.latents_of(G.eval().requires_grad_(False), seed, label)
    return to_uint8(G.synthesis(ws, noise_mode='const'))[0]


def distances(out):
    """(start, end) as the last lines say."""
    return [float(x) for x in re.search(r'\): (\S+) at the mean w -> (\S+) after', out).groups()]


@pytest.mark.parametrize('make', [tiny_snapshots.stylegan2, tiny_snapshots.inr])
def test_an_own_image_is_found_and_drawn_again(tmp_path, make):
    torch.manual_seed(2)  # random networks have local minima; the way to this image has none
    G = make()
    for name, parameter in G.named_parameters():
        if name.endswith('torgb.weight'):
            parameter.data.mul_(0.2)  # untrained colours would be clipped, and a clipped image cannot be found
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    image_io.write_array(tmp_path / 'wanted.png', image_of(G, 1))
    outdir = tmp_path / 'found'
    code, out, _err = call(projector.main, f'--network={network}', f'--target={tmp_path}/wanted.png', '--num-steps=100',
                           '--distance=pixels', f'--outdir={outdir}')
    assert code == 0 and 'Distance pixels (asked for)' in out
    assert f'python generate.py --network={network} --projected-w={outdir}/projected_w.npz' in out
    start, end = distances(out)
    assert end < start / 10
    assert sorted(p.name for p in outdir.iterdir()) == FILES
    target, found, both = (pixels(outdir / f'{name}.png') for name in ('target', 'projection', 'side_by_side'))
    assert np.array_equal(target, pixels(tmp_path / 'wanted.png')) and np.array_equal(both, np.concatenate([target, found], axis=1))
    assert np.abs(found.astype(float) - target).mean() < 12
    rows = list(csv.reader((outdir / 'distance.csv').read_text().splitlines()))
    assert rows[0] == ['step', 'distance'] and len(rows) == 101 and float(rows[-1][1]) == pytest.approx(end, rel=0.05)
    with np.load(outdir / 'projected_w.npz') as archive:
        assert archive.files == ['w', 'network'] and archive['w'].shape == (1, G.num_ws, 8)
    assert call(generate.main, f'--network={network}', f'--projected-w={outdir}/projected_w.npz', f'--outdir={tmp_path}')[0] == 0
    assert np.abs(pixels(tmp_path / 'projected.png').astype(int) - found).max() <= 1


def test_target_is_the_first_image_of_the_data_set(tmp_path):
    G = tiny_snapshots.stylegan2(c_dim=2)
    first = np.random.RandomState(0).randint(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(first).save(tmp_path / 'a.png')
    Image.fromarray(255 - first).save(tmp_path / 'b.png')
    with zipfile.ZipFile(tmp_path / 'data.zip', 'w') as file:
        file.write(tmp_path / 'a.png', 'a.png')
        file.write(tmp_path / 'b.png', 'b.png')
        file.writestr('dataset.json', '{"labels": [["a.png", 1], ["b.png", 0]]}')
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G, data=tmp_path / 'data.zip', classes=['x', 'y'])
    args = [f'--network={network}', '--num-steps=2', '--distance=pixels', f'--outdir={tmp_path}/out']
    code, out, _err = call(projector.main, *args)
    assert code == 0 and f'Target a.png of {tmp_path}/data.zip' in out and 'Class 1, y' in out
    assert np.array_equal(pixels(tmp_path / 'out' / 'target.png'), first)
    assert 'Class 0, x' in call(projector.main, *args, '--class=x')[1]
    (tmp_path / 'data.zip').unlink()
    assert 'choose an image with --target=FILE' in mistake(projector.main, *args)


def test_the_demo_set_is_found_wherever_the_network_was_trained(tmp_path):
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.stylegan2(resolution=64), data='/elsewhere/assets/demo.zip')
    code, out, _err = call(projector.main, f'--network={network}', '--num-steps=1', '--distance=pixels', f'--outdir={tmp_path}/out')
    assert code == 0 and f'Target {ImageFiles("demo").names[0]} of' in out


def test_class_whose_mean_is_nearest(tmp_path):
    G = tiny_snapshots.stylegan2(c_dim=3)
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    for index in (0, 2):
        mean = w_statistics(G.eval().requires_grad_(False).mapping, G.z_dim, latents.one_hot(G, index))[0].expand(-1, G.num_ws, -1)
        image_io.write_array(tmp_path / 'target.png', to_uint8(projector.draw(G, mean))[0])
        out = call(projector.main, f'--network={network}', f'--target={tmp_path}/target.png', '--num-steps=1', '--distance=pixels',
                   f'--outdir={tmp_path}/out')[1]
        assert f'Class {index}\n' in out


def test_the_nearest_class_of_a_group(tmp_path):
    G = tiny_snapshots.stylegan2(c_dim=3)
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G, classes=['x/1', 'y/1', 'x/2'])
    for index in (1, 2):  # of class 1, which is not in the group, another one is found
        mean = w_statistics(G.eval().requires_grad_(False).mapping, G.z_dim, latents.one_hot(G, index))[0].expand(-1, G.num_ws, -1)
        image_io.write_array(tmp_path / 'target.png', to_uint8(projector.draw(G, mean))[0])
        out = call(projector.main, f'--network={network}', f'--target={tmp_path}/target.png', '--num-steps=1', '--distance=pixels',
                   '--class=x', f'--outdir={tmp_path}/out')[1]
        assert ('Class 2, x/2\n' in out) == (index == 2) and 'Class 1' not in out


def test_a_target_whose_class_is_a_group_of_the_networks(tmp_path):
    make_set(tmp_path / 'data.zip', 3, labels=[1, 0, 0], classes=['x', 'y'])
    G = tiny_snapshots.stylegan2(c_dim=3)
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G, data=tmp_path / 'data.zip', classes=['x/1', 'y/1', 'x/2'])
    args = (f'--network={network}', '--num-steps=1', '--distance=pixels', f'--outdir={tmp_path}/out')
    assert 'Class 1, y/1\n' in call(projector.main, *args)[1]
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G, data=tmp_path / 'data.zip', classes=['x/1', 'z/1', 'x/2'])
    assert 'is not what the network was trained on' in mistake(projector.main, *args)


def test_masked_pixels_do_not_matter(tmp_path):
    G = tiny_snapshots.stylegan2()
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    wanted = image_of(G, 1)
    mask = np.zeros((16, 16), np.uint8)
    mask[:, :8] = 255
    Image.fromarray(mask).save(tmp_path / 'mask.png')
    found = []
    for hidden in (0, 255):
        target = wanted.copy()
        target[:, 8:] = hidden
        image_io.write_array(tmp_path / 'target.png', target)
        for distance in ('pixels', 'efficientnet-lite0'):
            code, out, _err = call(projector.main, f'--network={network}', f'--target={tmp_path}/target.png', f'--mask={tmp_path}/mask.png',
                                   '--num-steps=8', f'--distance={distance}', f'--outdir={tmp_path}/out')
            assert code == 0 and 'fits 50% of the target' in out
            found.append(np.load(tmp_path / 'out' / 'projected_w.npz')['w'])
    assert np.array_equal(found[0], found[2]) and np.array_equal(found[1], found[3])
    assert not np.array_equal(found[0], found[1])
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / 'mask.png')
    assert 'it is black all over' in mistake(projector.main, f'--network={network}', f'--target={tmp_path}/target.png',
                                             f'--mask={tmp_path}/mask.png')


@pytest.mark.parametrize('make, alone', [(tiny_snapshots.inr, True), (tiny_snapshots.stylegan2, False)])
def test_only_the_part_that_counts_is_compared(make, alone):
    G = make(resolution=64).eval().requires_grad_(False)
    target, ws = torch.randn(1, 3, 64, 64), torch.randn(1, G.num_ws, 8)
    mask = np.zeros((64, 64), bool)
    mask[3:40, 20:60] = True
    drawn = []
    for name, module in G.synthesis.named_modules():
        if name == 'b64.torgb':
            module.register_forward_hook(lambda module, args, out: drawn.append(tuple(out.shape[2:])))
    grads, parts = [], []
    for draw in (projector.Comparison(G, target, mask, Pixels()).draw, lambda ws: G.synthesis(ws, noise_mode='const')[:, :, 3:40, 20:60]):
        w = ws.clone().requires_grad_()
        parts.append(draw(w))
        grads.append(torch.autograd.grad(parts[-1].square().sum(), w)[0])
    assert drawn[0] == ((37, 40) if alone else (64, 64)) and parts[0].shape == (1, 3, 37, 40)
    assert relative_error(parts[0], parts[1]) < 1e-5 and relative_error(grads[0], grads[1]) < 1e-4
    mask[10, 30] = False
    for hidden, counts in (((10, 30), False), ((50, 30), False), ((10, 31), True)):
        changed = target.clone()
        changed[0, :, hidden[0], hidden[1]] += 1
        distances = [projector.Comparison(G, x, mask, Pixels()).distance(ws) for x in (target, changed)]
        assert (distances[0] != distances[1]) == counts


def test_interrupted_it_writes_what_it_has(tmp_path, monkeypatch):
    G = tiny_snapshots.stylegan2()
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    image_io.write_array(tmp_path / 'wanted.png', image_of(G, 1))
    add = projector.Result.add

    def interrupted(self, step):
        add(self, step)
        if step.index == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(projector.Result, 'add', interrupted)
    args = [f'--network={network}', f'--target={tmp_path}/wanted.png', f'--outdir={tmp_path}/out', '--distance=pixels']
    code, out, _err = call(projector.main, *args)
    assert code == 130 and 'Interrupted after 5 of 1000 steps' in out and 'after 5 steps' in out
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == FILES


def test_noise_maps_travel_with_w(tmp_path):
    G = tiny_snapshots.stylegan2(noise_strength=0.3)
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    image_io.write_array(tmp_path / 'wanted.png', image_of(G, 1))
    outdir = tmp_path / 'found'
    assert call(projector.main, f'--network={network}', f'--target={tmp_path}/wanted.png', '--num-steps=4', '--distance=pixels',
                '--noise-maps', f'--outdir={outdir}')[0] == 0
    with np.load(outdir / 'projected_w.npz') as archive:
        assert set(archive.files) == {'w', 'network', *(name for name, _ in G.synthesis.named_buffers() if name.endswith('noise_const'))}
    assert call(generate.main, f'--network={network}', f'--projected-w={outdir}/projected_w.npz', f'--outdir={tmp_path}')[0] == 0
    assert np.abs(pixels(tmp_path / 'projected.png').astype(int) - pixels(outdir / 'projection.png')).max() <= 1
    without = tiny_snapshots.save(tmp_path / 'b.safetensors', tiny_snapshots.inr())
    assert '--noise-maps: this network has none' in mistake(projector.main, f'--network={without}', '--noise-maps')


def test_video_is_written(tmp_path):
    ffmpeg = pytest.importorskip('imageio_ffmpeg')
    G = tiny_snapshots.stylegan2(channels=1)
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    image_io.write_array(tmp_path / 'wanted.png', image_of(G, 1))
    assert call(projector.main, f'--network={network}', f'--target={tmp_path}/wanted.png', '--num-steps=20', '--distance=pixels',
                '--save-video', f'--outdir={tmp_path}/out')[0] == 0
    gc.collect()  # pipes left open would be told of here
    raw = subprocess.run([ffmpeg.get_ffmpeg_exe(), '-v', 'error', '-i', tmp_path / 'out' / 'projection.mp4', '-f', 'rawvideo',
                          '-pix_fmt', 'rgb24', '-'], capture_output=True, check=True).stdout
    shown = np.frombuffer(raw, np.uint8).reshape(20, 256, 512, 3)
    last = pixels(tmp_path / 'out' / 'side_by_side.png').repeat(16, axis=0).repeat(16, axis=1)
    assert np.abs(shown[-1].mean(axis=2) - last).mean() < 6


def test_without_ffmpeg_a_video_is_refused_before_the_search(tmp_path, monkeypatch):
    G = tiny_snapshots.stylegan2()
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    image_io.write_array(tmp_path / 'wanted.png', image_of(G, 1))
    monkeypatch.setitem(sys.modules, 'imageio_ffmpeg', None)
    line = mistake(projector.main, f'--network={network}', f'--target={tmp_path}/wanted.png', '--num-steps=1', '--distance=pixels',
                   '--save-video', f'--outdir={tmp_path}/out')
    assert '--save-video needs imageio-ffmpeg' in line and not (tmp_path / 'out').exists()  # before the search, not after it


def test_curve_falls_from_left_to_right():
    image = projector.curve([10.0, 1.0, 0.1], 'distance')
    blue = (image == (30, 90, 200)).all(axis=2)
    rows, columns = np.nonzero(blue)
    assert image.shape == (360, 640, 3)
    assert rows[columns == columns.min()].mean() < 40 and rows[columns == columns.max()].mean() > 320
    middle = rows[columns == 342].mean()
    assert middle == pytest.approx(180, abs=4)  # 1 is half way between 10 and 0.1 on a logarithmic axis
    assert projector.curve([0.0], 'one step').shape == (360, 640, 3)


@pytest.mark.parametrize('args, line', [
    (['--target=none.png'], 'none.png: no such image file'),
    (['--target=a.safetensors'], 'a.safetensors: not an image'),
    ([], "the network's own data set cannot be read"),
    (['--target=t.png', '--distance=lpip'], "--distance=lpip: not known. Did you mean 'lpips-vgg'?"),
    (['--target=t.png', '--mask=none.png'], 'none.png: no such image file'),
    (['--target=.'], '. is a folder: give one image file'),
    (['--target=t.png', '--num-steps=1', '--distance=pixels', '--outdir=t.png'], 't.png is there already and is not a folder'),
    (['--seed=99999999999999999999'], '--seed'),
    (['--taget=t.png'], "Did you mean '--target'?"),
    (['--num-steps=0'], '--num-steps'),
    (['--space=z'], '--space'),
    (['--device=cuda:77'], '--device=cuda:77'),
])
def test_mistakes_get_one_line(tmp_path, monkeypatch, args, line):
    monkeypatch.chdir(tmp_path)
    Image.new('RGB', (9, 9)).save('t.png')
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.stylegan2())
    assert line in mistake(projector.main, f'--network={network}', *args)


def test_same_seed_same_w(tmp_path):
    G = tiny_snapshots.stylegan2()
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    image_io.write_array(tmp_path / 'wanted.png', image_of(G, 1))
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(found))
        assert call(projector.main, f'--network={network}', f'--target={tmp_path}/wanted.png', '--num-steps=3', '--distance=pixels',
                    f'--seed={seed}', f'--outdir={tmp_path}/out')[0] == 0
        found.append(np.load(tmp_path / 'out' / 'projected_w.npz')['w'])
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])
