"""Pictures of tiles: pixels of every level, taken up after a stop, shared by processes, and what generate.py makes of them."""

import threading
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import tifffile
from PIL import Image

import generate
from dnnlib.util import UserError
from inference import painter, pyramid
from tests import tiny_snapshots
from tests.tiny_snapshots import call, mistake

WIDTH, HEIGHT = 300, 170  # of tiles of 16 in blocks of 128: 3 x 2 blocks, and one more three levels up


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(pyramid, 'TILE', 16)
    monkeypatch.setattr(pyramid, 'WAIT', 0.01)
    monkeypatch.setattr(pyramid, 'SAY_EVERY', 0)


class Picture:
    """Random pixels, drawn in parts that are written down; stop: parts after which it is interrupted."""

    def __init__(self, channels=3, stop=None):
        self.pixels = np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, channels), np.uint8)
        self.drawn, self.stop = [], stop

    def __call__(self, top, left, height, width):
        if len(self.drawn) == self.stop:
            raise KeyboardInterrupt
        self.drawn.append((top, left))
        return self.pixels[top:top + height, left:left + width]

    def levels(self):
        """The picture and its halves, down to one pixel."""
        found = [self.pixels]
        while max(found[-1].shape[:2]) > 1:
            found.append(pyramid.halved(found[-1]))
        return found


def write(path, picture, plan=(), **options):
    lines = []
    kind = path.suffix[1:]
    done = pyramid.write(path, kind, picture, WIDTH, HEIGHT, picture.pixels.shape[2], dict(plan), say=lines.append, **options)
    return done, lines


def pages(path):
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff and all(page.is_tiled for page in file.pages)
        assert [page.subfiletype for page in file.pages] == [0] + [1] * (len(file.pages) - 1)
        return [page.asarray() for page in file.pages]


def level_of(folder, level):
    """A level of a Deep Zoom folder, put together."""
    tiles = {tuple(map(int, path.stem.split('_'))): np.asarray(Image.open(path)) for path in (folder / str(level)).iterdir()}
    columns, rows = (1 + max(place[i] for place in tiles) for i in (0, 1))
    return np.concatenate([np.concatenate([tiles[column, row] for column in range(columns)], 1) for row in range(rows)])


def test_halves_are_means_of_four():
    pixels = np.array([[[0], [1], [9]], [[2], [4], [10]], [[7], [8], [255]]], np.uint8)
    assert pyramid.halved(pixels)[:, :, 0].tolist() == [[2, 10], [8, 255]]
    assert pyramid.halved(pixels[:1, :1]).tolist() == [[[0]]]


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_every_level_of_a_tiff(tmp_path, channels):
    picture = Picture(channels)
    done, lines = write(tmp_path / 'a.tiff', picture)
    found = pages(tmp_path / 'a.tiff')
    assert done and len(found) == 6 and len(picture.drawn) == len(set(picture.drawn)) == 6
    for page, expected in zip(found, picture.levels(), strict=False):
        assert np.array_equal(page.reshape(expected.shape), expected)
    assert [path.name for path in tmp_path.iterdir()] == ['a.tiff']
    assert any(line.startswith('a.tiff: 2 of 6 blocks, 33.3%') and line.endswith('left') for line in lines)


def test_every_level_of_a_deep_zoom(tmp_path):
    picture = Picture()
    assert write(tmp_path / 'a b.dzi', picture)[0]
    levels = picture.levels()
    assert len(list((tmp_path / 'a b_files').iterdir())) == len(levels) == 10
    for level, expected in enumerate(reversed(levels)):
        assert np.array_equal(level_of(tmp_path / 'a b_files', level), expected)
    root = ElementTree.parse(tmp_path / 'a b.dzi').getroot()
    assert root.attrib == {'Format': 'png', 'Overlap': '0', 'TileSize': '16'} and root[0].attrib == {'Width': '300', 'Height': '170'}
    page = (tmp_path / 'a b.html').read_text()
    assert '"files": "a%20b_files"' in page and '"finest": 9' in page and 'http' not in page.replace('http-equiv', '')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a b.dzi', 'a b.html', 'a b_files']


@pytest.mark.parametrize('name', ['a.tiff', 'a.dzi'])
def test_a_stopped_picture_goes_on(tmp_path, name):
    path, first, second = tmp_path / name, Picture(stop=4), Picture()
    with pytest.raises(KeyboardInterrupt):
        write(path, first, {'seed': 1})
    assert not path.exists()
    with pytest.raises(UserError, match='holds a picture that was not finished: go on with --resume'):
        write(path, second, {'seed': 1})
    with pytest.raises(UserError, match='begun with another seed'):
        write(path, second, {'seed': 2}, resume=True)
    done, lines = write(path, second, {'seed': 1}, resume=True)
    assert done and f'{name}: 4 of 6 blocks are there' in lines and len(second.drawn) == 2 and not {*first.drawn} & {*second.drawn}
    found = pages(path)[0] if name == 'a.tiff' else level_of(tmp_path / 'a_files', 9)
    assert np.array_equal(found, second.pixels)
    third = Picture()
    assert write(path, third, {'seed': 1}, resume=True)[0] and not third.drawn  # finished: left as it is
    assert write(path, third, {'seed': 1})[0] and len(third.drawn) == 6  # drawn anew


def test_a_smaller_deep_zoom_leaves_no_tiles_of_a_larger_one(tmp_path):
    write(tmp_path / 'a.dzi', Picture())
    small = Picture()
    small.pixels = small.pixels[:40, :50]
    pyramid.write(tmp_path / 'a.dzi', 'dzi', small, 50, 40, 3, {}, say=lambda line: None)
    assert {path.name for path in (tmp_path / 'a_files').iterdir()} == set('0123456')
    assert np.array_equal(level_of(tmp_path / 'a_files', 6), small.pixels)


@pytest.mark.parametrize('name', ['a.tiff', 'a.dzi'])
def test_processes_share_the_blocks(tmp_path, name):
    ranks = [Picture() for _ in range(3)]
    threads = [threading.Thread(target=write, args=(tmp_path / name, picture), kwargs=dict(rank=rank, world=3))
               for rank, picture in enumerate(ranks)]
    for thread in reversed(threads):  # the main process comes last
        thread.start()
    for thread in threads:
        thread.join(300)
    drawn = [place for picture in ranks for place in picture.drawn]
    assert len(drawn) == len(set(drawn)) == 6 and [len(picture.drawn) for picture in ranks] == [2, 2, 2]
    found = pages(tmp_path / name)[0] if name == 'a.tiff' else level_of(tmp_path / 'a_files', 9)
    assert np.array_equal(found, ranks[0].pixels)


def test_generate_draws_them(tmp_path, monkeypatch):
    monkeypatch.setattr(painter, 'STREAM_FROM', 0)
    for name, G in (('inr', tiny_snapshots.inr(upsampling='linear')), ('stylegan2', tiny_snapshots.stylegan2())):
        network = tiny_snapshots.save(tmp_path / name / 'a.safetensors', G)
        args = [f'--network={network}', '--seeds=1', '--res=200x140', f'--outdir={tmp_path / name}']
        for image_format in ('png', 'tiff', 'dzi'):
            code, out, err = call(generate.main, *args, f'--format={image_format}')
            assert code == 0 and f'seed0001.{image_format}' in out, err
        expected = np.asarray(Image.open(tmp_path / name / 'seed0001.png'))
        assert expected.std() > 3
        assert np.abs(pages(tmp_path / name / 'seed0001.tiff')[0].astype(int) - expected).max() <= 1
        assert np.abs(level_of(tmp_path / name / 'seed0001_files', 8).astype(int) - expected).max() <= 1


def test_mistakes(tmp_path):
    args = [f'--network={tiny_snapshots.save(tmp_path / "a.safetensors", tiny_snapshots.inr())}', '--seeds=1', f'--outdir={tmp_path}']
    assert '--grid: a sheet of many images is no dzi' in mistake(generate.main, *args, '--format=dzi', '--grid')
    assert '--resume: goes on with dzi' in mistake(generate.main, *args, '--resume')
    (tmp_path / 'seed0001.dzi.parts').mkdir()
    assert 'go on with --resume' in mistake(generate.main, *args, '--format=dzi')
