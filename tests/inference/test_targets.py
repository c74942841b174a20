"""Targets and masks of every kind, by pixels known beforehand."""

import numpy as np
import pytest
from PIL import Image

from dnnlib.util import UserError
from inference.targets import box_of, read_mask, read_picture, read_target


@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('mode, suffix', [('RGB', 'png'), ('RGBA', 'png'), ('L', 'png'), ('P', 'png'), ('LA', 'png'), ('I;16', 'png'),
                                          ('1', 'png'), ('CMYK', 'tiff'), ('CMYK', 'jpg'), ('P', 'gif'), ('RGB', 'bmp'), ('RGBA', 'webp')])
def test_targets_of_any_mode_and_size(tmp_path, capsys, mode, suffix, channels):
    grey = np.full((24, 40), 255, np.uint8)
    grey[:, :8] = grey[:, -8:] = 0  # outside the middle 24x24
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == 'I;16' else Image.fromarray(grey).convert(mode)
    path = tmp_path / f'x.{suffix}'
    image.save(path)
    made = read_target(path, (8, 8), channels)
    assert made.shape == (8, 8, channels) and (made > 250).all()
    out = capsys.readouterr().out
    assert out.startswith(f'Target {path}: 40x24, ') and 'cut to its middle 24x24, resized to 8x8 (Lanczos)' in out
    assert 'laid over white' not in out  # all of it is opaque


def test_target_colours(tmp_path, capsys):
    clear = Image.new('RGBA', (8, 8), (255, 0, 0, 0))
    clear.save(tmp_path / 'clear.png')
    for channels, expected in ((3, [255, 255, 255]), (4, [255, 0, 0, 0]), (1, [255])):
        assert read_target(tmp_path / 'clear.png', (8, 8), channels)[3, 3].tolist() == expected
        assert ('laid over white' in capsys.readouterr().out) == (channels != 4)
    clear.convert('RGB').save(tmp_path / 'red.png')
    assert read_target(tmp_path / 'red.png', (8, 8), 1)[0, 0].tolist() == [76]
    assert capsys.readouterr().out == f'Target {tmp_path}/red.png: 8x8, made grey\n'


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new('RGB', (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    for suffix in ('gif', 'webp', 'png'):
        frames[0].save(tmp_path / f'a.{suffix}', save_all=True, append_images=frames[1:], duration=100)
        assert np.abs(read_target(tmp_path / f'a.{suffix}', (8, 8), 3)[0, 0].astype(int) - [250, 0, 0]).max() <= 8, suffix


def test_target_held_upright(tmp_path, capsys):
    pixels = np.random.RandomState(0).randint(0, 256, (8, 8, 3), np.uint8)
    for orientation in (1, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation  # 8: the camera was turned, show rotated by 90 degrees counter-clockwise
        Image.fromarray(pixels).save(tmp_path / 'a.png', exif=exif)
        made = read_target(tmp_path / 'a.png', (8, 8), 3)
        assert np.array_equal(made, pixels if orientation == 1 else np.rot90(pixels))
        assert ('turned upright (EXIF)' in capsys.readouterr().out) == (orientation == 8)


@pytest.mark.parametrize('mode', ['L', 'RGB', 'RGBA', 'LA', '1'])
def test_masks(tmp_path, capsys, mode):
    white = np.zeros((16, 24), np.uint8)
    white[:8, 12:] = 255  # upper right quarter
    image = Image.fromarray(white).convert(mode)
    if mode == 'RGBA':  # transparent white does not count either
        image = Image.merge('RGBA', [Image.new('L', image.size, 255)] * 3 + [Image.fromarray(white)])
    image.save(tmp_path / 'm.png')
    mask = read_mask(tmp_path / 'm.png', (4, 4))
    assert mask.tolist() == [[False, False, True, True]] * 2 + [[False] * 4] * 2
    assert 'fits 25% of the target' in capsys.readouterr().out
    Image.new('L', (4, 4), 100).save(tmp_path / 'm.png')
    with pytest.raises(UserError, match='black all over'):
        read_mask(tmp_path / 'm.png', (4, 4))


@pytest.mark.parametrize('rows, columns, expected', [
    ((10, 50), (40, 90), ((10, 50), (40, 90))), ((0, 1), (99, 100), ((0, 32), (68, 100))), ((50, 60), (0, 100), ((39, 71), (0, 100))),
])
def test_box_around_what_counts(rows, columns, expected):
    mask = np.zeros((100, 100), bool)
    mask[rows[0], columns[0]] = mask[rows[1] - 1, columns[1] - 1] = True  # two corners
    box = box_of(mask)
    assert tuple((side.start, side.stop) for side in box) == expected and mask[box].sum() == mask.sum()
    assert mask[:16, :16][box_of(np.ones((16, 16), bool))].shape == (16, 16)  # no more than there is


def test_files_that_are_no_pictures(tmp_path):
    Image.new('RGB', (50, 50), 'red').save(tmp_path / 'whole.png')
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'whole.png').read_bytes()[:60])
    (tmp_path / 'three.png').write_bytes(b'PNG')
    (tmp_path / 'text.png').write_text('hello')
    (tmp_path / 'empty.png').touch()
    for name, line in [('cut.png', 'cannot be decoded'), ('three.png', 'not an image'), ('text.png', 'not an image'),
                       ('empty.png', 'not an image'), ('.', 'is a folder: give one image file'), ('none.png', 'no such image file')]:
        with pytest.raises(UserError, match=line) as error:
            read_picture(tmp_path / name)
        assert '\n' not in str(error.value)
