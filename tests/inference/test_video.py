"""Paths by their numbers, and videos read back by Pillow and ffmpeg."""

import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest
from PIL import Image

from dnnlib.util import UserError
from inference import video
from inference.latents import Walk, class_means, latents_of, one_hot
from tests import tiny_snapshots

COLOURS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [250, 250, 10]], np.uint8)


def frames(count=4, height=20, width=30):
    return [np.broadcast_to(COLOURS[i % 4], (height, width, 3)).copy() for i in range(count)]


def test_moments_of_a_loop_have_no_seam():
    linear = video.moments(3, 4, loop=True, easing='linear')
    assert [stop + share for stop, share in linear] == [i / 4 for i in range(12)]  # the step from the last to the first is like all others
    assert [stop + share for stop, share in video.moments(3, 4, loop=False, easing='linear')] == [i / 4 for i in range(9)]
    smooth = [share for _, share in video.moments(2, 10, loop=True)]
    assert smooth[0] == 0 and smooth[5] == pytest.approx(0.5) and smooth[1] < 0.03 and smooth[9] > 0.97


def test_zoom_grows_by_the_same_factor_about_one_point():
    a, b = (0, 0, 1, 1), (-3, -1, 5, 3)
    path = [video.between_windows(a, b, i / 10) for i in range(11)]
    assert path[0] == pytest.approx(a) and path[-1] == pytest.approx(b)
    for low, high, fixed in ((0, 2, 3 / 7), (1, 3, 1 / 3)):
        sizes = [window[high] - window[low] for window in path]
        assert np.allclose(np.divide(sizes[1:], sizes[:-1]), (sizes[-1] / sizes[0])**0.1)
        assert np.allclose([(fixed - window[low]) / size for window, size in zip(path, sizes, strict=True)], fixed)
    assert video.between_windows((0, 0, 1, 1), (2, 0, 3, 1), 0.25) == pytest.approx((0.5, 0, 1.5, 1))  # a pan


@pytest.mark.parametrize('fps', [30, 7])
@pytest.mark.parametrize('video_format', ['webp', 'gif'])
def test_animations_are_read_back(tmp_path, video_format, fps):
    path = tmp_path / f'a.{video_format}'
    video.write(path, iter(frames(9)), video_format, fps)
    with Image.open(path) as image:
        assert image.n_frames == 9 and image.size == (30, 20) and image.info['loop'] == 0
        total = 0
        for i in range(9):
            image.seek(i)
            assert np.abs(np.asarray(image.convert('RGB')).astype(int) - COLOURS[i % 4]).max() < 12
            total += image.info['duration']
        assert total == pytest.approx(9000 / fps, abs=10 if video_format == 'gif' else 1)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('video_format', ['webp', 'gif'])
def test_frames_are_not_held(tmp_path, video_format):
    seen = []

    def one_by_one():
        for _ in range(12):
            frame = frames(1)[0]
            seen.append(weakref.ref(frame))
            yield frame
            del frame
            assert sum(each() is not None for each in seen) <= 1

    video.write(tmp_path / f'a.{video_format}', one_by_one(), video_format)
    assert len(seen) == 12


def test_webp_is_a_riff_of_even_chunks(tmp_path):
    video.write(tmp_path / 'a.webp', iter(frames(5)), 'webp')
    data, position, kinds = (tmp_path / 'a.webp').read_bytes(), 12, []
    assert data[:4] == b'RIFF' and int.from_bytes(data[4:8], 'little') == len(data) - 8
    while position < len(data):
        kinds.append(data[position:position + 4])
        position += 8 + (int.from_bytes(data[position + 4:position + 8], 'little') + 1) // 2 * 2
    assert kinds == [b'VP8X', b'ANIM', *[b'ANMF'] * 5] and position == len(data)


def test_mp4(tmp_path):
    ffmpeg = pytest.importorskip('imageio_ffmpeg')
    video.write(tmp_path / 'a.mp4', iter(frames(10, 32, 48)), 'mp4', 10)
    gc.collect()  # pipes left open would be told of here
    raw = subprocess.run([ffmpeg.get_ffmpeg_exe(), '-v', 'error', '-i', tmp_path / 'a.mp4', '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-'],
                         capture_output=True, check=True).stdout
    shown = np.frombuffer(raw, np.uint8).reshape(10, 32, 48, 3).astype(int)
    assert np.abs(shown[1].mean(axis=(0, 1)) - COLOURS[1]).max() < 25
    assert list(tmp_path.iterdir()) == [tmp_path / 'a.mp4']


def test_mp4_without_ffmpeg_and_sizes(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'imageio_ffmpeg', None)
    with pytest.raises(UserError, match='pip install imageio-ffmpeg, or give --format=webp'):
        video.write(tmp_path / 'a.mp4', iter(frames()), 'mp4')
    assert list(tmp_path.iterdir()) == []
    for video_format, width, message in [('mp4', 31, 'mp4 needs even sides, not 31x16'), ('webp', 20000, 'webp holds at most 16384')]:
        with pytest.raises(UserError, match=message):
            video.check(video_format, width, 16)
    with pytest.raises(UserError, match='mp4 needs even sides, not 16x31'):
        video.check('mp4', 16, 31)
    video.check('gif', 31, 17)
    video.check('webp', 16384, 16384)


def test_a_gif_shows_fifty_frames_a_second_at_most():
    with pytest.raises(UserError, match='--fps=51: gif shows at most 50 frames a second; give --format=webp or mp4'):
        video.check('gif', 16, 16, fps=51)
    video.check('gif', 16, 16, fps=50)
    video.check('webp', 16, 16, fps=100)


def test_quality_is_that_of_webp(tmp_path):
    noise, sizes = np.random.RandomState(0).randint(0, 256, (32, 32, 3), np.uint8), []
    for quality in (5, 95):
        video.write(tmp_path / 'a.webp', iter([noise]), 'webp', quality=quality)
        sizes.append((tmp_path / 'a.webp').stat().st_size)
    assert sizes[0] < sizes[1] / 2


@pytest.mark.parametrize('space, to_class', [('w', False), ('z', False), ('w', True), ('z', True)])
def test_a_walk_passes_its_stops(space, to_class):
    G = tiny_snapshots.stylegan2(c_dim=2).eval().requires_grad_(False)
    labels = [one_hot(G, i) for i in (0, 1, 0)]
    walk = Walk(G, [3, 4, 5], labels, psi=0.5, space=space, to_class=to_class)
    means = class_means(G, labels) if to_class else [None] * 3
    ends = [latents_of(G, seed, label, 0.5, mean=mean) for seed, label, mean in zip([3, 4, 5], labels, means, strict=True)]
    for stop in range(3):
        assert (walk.at(stop, 0) - ends[stop]).abs().max() < 1e-5 and (walk.at(stop, 1) - ends[(stop + 1) % 3]).abs().max() < 1e-5
    middle = walk.at(0, 0.5)
    assert ((middle - ends[0].lerp(ends[1], 0.5)).abs().max() < 1e-6) == (space == 'w')
