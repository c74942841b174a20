"""walk.py: what its frames show, and what it says to mistakes."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

import generate
import walk
from inference import latents, painter, video
from tests import tiny_snapshots
from tests.tiny_snapshots import call, mistake


def shown(path):
    """uint8 [frames, H, W, 3] of an animation."""
    with Image.open(path) as image:
        return np.stack([np.asarray(frame.convert('RGB')) for frame in ImageSequence.Iterator(image)])


@pytest.mark.parametrize('make', [tiny_snapshots.stylegan2, tiny_snapshots.inr])
def test_a_walk_visits_its_seeds(tmp_path, make, monkeypatch):
    network, frames = tiny_snapshots.save(tmp_path / 'a.safetensors', make(c_dim=2), classes=['cat', 'dog']), []

    def keep(path, drawn, fps, quality):
        frames.extend(drawn)
        path.write_bytes(b'')

    monkeypatch.setattr(video, 'write_webp', keep)
    code, out, err = call(walk.main, f'--network={network}', '--seeds=3,5', '--class=cat', '--class=dog', '--res=16', '--seconds=0.4',
                          '--fps=10', f'--out={tmp_path}/out/a.webp')
    assert code == 0 and '8 frames of 16x16, 0.8 s' in out, err
    frames = np.stack(frames).astype(int)
    for seed, name, frame in ((3, 'cat', frames[0]), (5, 'dog', frames[4])):
        assert call(generate.main, f'--network={network}', f'--seeds={seed}', f'--class={name}', f'--outdir={tmp_path}')[0] == 0
        assert np.abs(frame - np.asarray(Image.open(tmp_path / f'seed{seed:04d}.png').convert('RGB')).astype(int)).max() <= 1
    assert np.abs(frames[1] - frames[7]).max() <= 1 < np.abs(frames[1] - frames[4]).max()  # back on the same way


def test_zoom_and_no_loop(tmp_path, monkeypatch):
    windows, made = [], painter.Painter.__init__
    monkeypatch.setattr(painter.Painter, '__init__', lambda self, *args: windows.append(args[3]) or made(self, *args))
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.inr())
    code, out, err = call(walk.main, f'--network={network}', '--window=0,0,1,1', '--window=-1,-1,2,2', '--res=24x16',
                          '--no-loop', '--seconds=0.3', '--fps=10', f'--out={tmp_path}/a.gif')
    assert code == 0 and '4 frames of 24x16' in out, err
    assert len(shown(tmp_path / 'a.gif')) == 4
    assert windows[0] == (0, 0, 1, 1) and windows[3] == pytest.approx((-1, -1, 2, 2))
    widths = [x1 - x0 for x0, _, x1, _ in windows]
    assert widths == sorted(widths) and len(set(widths)) == 4


def test_size_and_refinement_reach_the_painter(tmp_path, monkeypatch):
    asked = []

    class Painter:
        def __init__(self, G, *args):
            asked.append(args)

        def whole(self, ws):
            return np.zeros([1, 8, 8, 3], np.uint8)

    monkeypatch.setattr(painter, 'Painter', Painter)
    for resolution, options in ((16, ['--refine=smooth']), (512, [])):
        network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.inr(resolution, channel_base=1024))
        code, _, err = call(walk.main, f'--network={network}', '--seeds=0,1', '--seconds=0.1', '--fps=10', f'--out={tmp_path}/a.webp',
                            *options)
        assert code == 0, err
    assert asked == [(256, 256, (0, 0, 1, 1), 'smooth'), (512, 512, (0, 0, 1, 1), None)]


def test_options_reach_what_they_are_for(tmp_path, monkeypatch):
    network, asked = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.stylegan2(c_dim=2)), []
    ways, moments = latents.Walk.__init__, video.moments

    def write(path, frames, *args):
        asked.append(args)
        path.write_bytes(b'')

    monkeypatch.setattr(latents.Walk, '__init__',
                        lambda self, *args, **more: asked.append((*args[3:], more)) or ways(self, *args, **more))
    monkeypatch.setattr(video, 'moments', lambda *args: asked.append(args) or moments(*args))
    monkeypatch.setattr(video, 'write', write)
    code, _, err = call(walk.main, f'--network={network}', '--seeds=0-2', '--psi=0.5', '--psi-to=class', '--space=z', '--seconds=0.3',
                        '--fps=10', '--no-loop', '--easing=linear', '--quality=7', f'--out={tmp_path}/a.webp')
    assert code == 0, err
    assert asked == [(0.5, 'z', {'to_class': True}), (3, 3, False, 'linear'), ('webp', 10, 7)]


def test_mistakes(tmp_path):
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.stylegan2())
    for args, line in [(['--seeds=1'], 'one stop is no walk: give several --seeds, --window or --class'),
                       ([f'--out={tmp_path}/a.avi'], 'a.avi: give a name that ends in .mp4, .webp, .gif'),
                       (['--psi=1e39'], '1e+39 is not in the range -100<=x<=100'), (['--format=gif', '--fps=60'], 'gif shows at most 50'),
                       (['--res=33', '--format=mp4'], 'mp4 needs even sides, not 33x33'), ([f'--seeds={2**32},1'], 'is too large'),
                       (['--window=0,0,1,1', '--window=0,0,2,2'], 'need a generator of inr')]:
        assert line in mistake(walk.main, f'--network={network}', f'--out={tmp_path}/walk.webp', *args)
    assert [path.name for path in tmp_path.iterdir()] == ['a.safetensors']


def test_a_swing_along_a_direction(tmp_path, monkeypatch):
    network, frames = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.inr()), []

    def keep(path, drawn, fps, quality):
        frames.extend(drawn)
        path.write_bytes(b'')

    monkeypatch.setattr(video, 'write_webp', keep)
    code, out, err = call(walk.main, f'--network={network}', '--seeds=3', '--direction=0', '--strength=-2..1', '--res=16', '--seconds=0.2',
                          '--fps=10',
                          f'--out={tmp_path}/a.webp')
    assert code == 0 and '4 frames' in out, err
    assert call(generate.main, f'--network={network}', '--seeds=3', '--direction=0', '--strength=-2..1:2', f'--outdir={tmp_path}')[0] == 0
    for name, frame in (('seed0003-2.00', frames[0]), ('seed0003+1.00', frames[2])):
        assert np.abs(frame.astype(int) - np.asarray(Image.open(tmp_path / f'{name}.png').convert('RGB'))).max() <= 1
    assert np.abs(frames[1].astype(int) - frames[3]).max() <= 1 < np.abs(frames[0].astype(int) - frames[2]).max()
    assert 'give --direction=N' in mistake(walk.main, f'--network={network}', '--directions=a.npz')
