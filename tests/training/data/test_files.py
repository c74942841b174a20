"""One image of every kind, zips and folders, labels, and what is said about broken ones."""

import io
import json
import pickle
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from dnnlib.util import UserError
from training.data.files import BadImage, ImageFiles, decode, decode_8bit, read_header, shape_problem

RNG = np.random.RandomState(0)
GREY = RNG.randint(0, 256, (16, 16), dtype=np.uint8)
RGB = RNG.randint(0, 256, (16, 16, 3), dtype=np.uint8)
RGBA = RNG.randint(0, 256, (16, 16, 4), dtype=np.uint8)


def encoded(image, kind='png', **options):
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize('kind, pixels', [
    *(('png', pixels) for pixels in (GREY, RGB, RGBA)), *(('tiff', pixels) for pixels in (GREY, RGB, RGBA)),
    ('bmp', GREY), ('bmp', RGB), ('webp', RGB), ('webp', RGBA),
], ids=lambda value: value if isinstance(value, str) else 'x'.join(map(str, value.shape)))
def test_lossless_formats_give_the_pixels_back(kind, pixels):
    data = encoded(pixels, kind, **({'lossless': True, 'exact': True} if kind == 'webp' else {}))
    expected = np.atleast_3d(pixels).transpose(2, 0, 1)
    actual = decode(data)
    assert actual.dtype == np.uint8 and actual.flags.c_contiguous
    np.testing.assert_array_equal(actual, expected)
    assert read_header(io.BytesIO(data)) == (16, 16, len(expected))


def test_png_that_pyspng_cannot_read_goes_through_pillow():
    wide = np.array([[0, 128, 129, 257], [65535, 65406, 65407, 1000]], np.uint16)
    np.testing.assert_array_equal(decode(encoded(wide)), [[[0, 0, 1, 1], [255, 254, 255, 4]]])  # v / 257, rounded
    palette = Image.fromarray(RGB).quantize(8)
    np.testing.assert_array_equal(decode(encoded(palette)), np.asarray(palette.convert('RGB')).transpose(2, 0, 1))
    bits = Image.fromarray(GREY).convert('1')
    np.testing.assert_array_equal(decode(encoded(bits)), np.asarray(bits)[None] * np.uint8(255))
    clear = Image.fromarray(RGB).quantize(8)
    data = encoded(clear, transparency=0)
    assert decode(data).shape == (4, 16, 16) and read_header(io.BytesIO(data))[2] == 4
    assert (decode(data)[3] == 0).sum() == (np.asarray(clear) == 0).sum() > 0
    both = np.dstack([GREY, RGBA[:, :, 3]])
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(both, 'LA'))), np.stack([GREY] * 3 + [RGBA[:, :, 3]]))


def test_other_colour_spaces_orientation_and_animation():
    red = encoded(Image.new('CMYK', (16, 16), (0, 255, 255, 0)), 'jpeg')
    assert decode(red).shape == (3, 16, 16) and np.abs(decode(red)[:, 8, 8].astype(int) - [255, 0, 0]).max() <= 2
    picture = Image.new('RGB', (8, 4), 'black')
    picture.paste('white', (0, 0, 2, 4))  # white at the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned right: left becomes top
    upright = decode_8bit(encoded(picture, 'png', exif=exif))
    assert upright.size == (4, 8) and upright.getpixel((1, 0)) == (255, 255, 255) and upright.getpixel((1, 7)) == (0, 0, 0)
    frames = [Image.new('L', (16, 16), value) for value in (10, 200)]
    animation = encoded(frames[0], 'gif', save_all=True, append_images=frames[1:])
    assert (decode(animation)[0] == 10).all()


def test_broken_images_say_why():
    data = encoded(RGB)
    flipped = bytearray(data)
    flipped[60] ^= 255  # one byte of the pixels: only a checksum tells
    floats = encoded(Image.fromarray(np.zeros((4, 4), np.float32)), 'tiff')
    for broken, reason in [(b'', 'not an image'), (b'hello' * 20, 'not an image'), (data[:20], 'cut short'), (data[:-5], 'cut short'),
                           (bytes(flipped), 'a checksum does not fit'), (floats, "mode 'F'"),
                           (encoded(RGB, 'jpeg')[:-40], 'cannot be decoded')]:
        with pytest.raises(BadImage, match=reason) as caught:
            decode(broken)
        assert '\n' not in str(caught.value)
    huge = bytearray(encoded(GREY))
    huge[16:24] = (200000).to_bytes(4, 'big') * 2
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, 'big')
    with pytest.raises(BadImage, match='200000x200000'):
        read_header(io.BytesIO(bytes(huge)))


def test_shapes_that_training_takes():
    first = (64, 64, 3)
    assert shape_problem(first, first, 'a.png') is None
    assert shape_problem((64, 32, 3), first, 'a.png') == 'is 64x32, but a.png is 64x64: training needs one size'
    assert shape_problem((64, 32, 3), (64, 32, 3), 'a.png') is None
    assert 'or WIDTHxHEIGHT in multiples of 16' in shape_problem((64, 40, 3), (64, 40, 3), 'a.png')
    assert 'power of two from 16 to 1024' in shape_problem((48, 48, 3), (48, 48, 3), 'a.png')
    for side in (8, 2048):
        assert 'power of two' in shape_problem((side, side, 3), (side, side, 3), 'a.png')
    assert shape_problem((64, 64, 1), first, 'a.png') == 'has 1 channels, but a.png has 3: training needs one number of channels'


@pytest.fixture
def folder(tmp_path):
    """A folder with images at three depths, a label for each, and things that are no images."""
    for i, name in enumerate(['b/x.png', 'a/deep/y.PNG', 'z.jpg']):
        path = tmp_path / 'set' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(np.full((16, 16, 3), 40 * i, np.uint8), 'jpeg' if name.endswith('jpg') else 'png'))
    labels = [['z.jpg', 2], ['a\\deep\\y.PNG', 0], ['b/x.png', 1]]
    (tmp_path / 'set' / 'dataset.json').write_text(json.dumps({'labels': labels, 'classes': ['p', 'q', 'r']}))
    for name in ('.hidden.png', 'notes.txt', '__MACOSX/._z.png'):
        (tmp_path / 'set' / name).parent.mkdir(exist_ok=True)
        (tmp_path / 'set' / name).write_bytes(b'no image')
    return tmp_path / 'set'


def zipped(folder, prefix=''):
    path = folder.parent / f'set{len(prefix)}.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for file in folder.rglob('*'):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def test_zip_and_folder_agree(folder):
    inside, packed, nested = ImageFiles(folder), ImageFiles(zipped(folder)), ImageFiles(zipped(folder, 'some/folder/'))
    assert inside.names == packed.names == ['a/deep/y.PNG', 'b/x.png', 'z.jpg']
    assert nested.names == ['some/folder/' + name for name in inside.names]
    assert inside.labels().by_name == packed.labels().by_name == {'a/deep/y.PNG': 0, 'b/x.png': 1, 'z.jpg': 2}
    assert nested.labels().by_name['some/folder/b/x.png'] == 1 and nested.labels().classes == ['p', 'q', 'r']
    assert [inside.read(name) for name in inside.names] == [packed.read(name) for name in packed.names]
    digest = inside.digest(inside.labels())
    assert digest == packed.digest(packed.labels()) == nested.digest(nested.labels()) and len(digest) == 64
    assert digest != inside.digest(None)
    (folder / 'b/x.png').write_bytes(encoded(RGB))
    assert ImageFiles(folder).digest(inside.labels()) != digest
    for files in (packed, nested):
        files.close()


def test_pickled_and_closed_files_open_again(folder):
    files = ImageFiles(zipped(folder))
    content = files.read('z.jpg')
    copy = pickle.loads(pickle.dumps(files))
    files.close()
    assert copy.read('z.jpg') == files.read('z.jpg') == content
    copy.close()
    files.close()


def test_damaged_zip_entry_is_named(folder):
    path = zipped(folder)
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo('b/x.png').header_offset + 30 + len('b/x.png') + 20
    data = bytearray(path.read_bytes())
    data[offset] ^= 255
    path.write_bytes(data)
    files = ImageFiles(path)
    with pytest.raises(BadImage, match='cannot be read'):
        files.read('b/x.png')
    assert files.read('z.jpg')
    files.close()


@pytest.mark.parametrize('content, message', [
    ('{', 'is not valid JSON'),
    ('[]', 'must hold an object'),
    ('{"labels": [["z.jpg"]]}', 'must be a list of'),
    ('{"labels": [["z.jpg", -1]]}', 'the label of z.jpg is -1: it must be a class index from 0 or a vector'),
    ('{"labels": [["z.jpg", 0], ["b/x.png", "dog"]]}', 'the label of b/x.png is "dog"'),
    ('{"labels": [["z.jpg", [1, 2]], ["b/x.png", [1]]]}', 'a vector of 2 numbers'),
    ('{"labels": [["z.jpg", 3]], "classes": ["p", "q", "r"]}', 'a class index from 0 to 2'),
    ('{"labels": [["z.jpg", 0]], "classes": 3}', '"classes" must be a list of names'),
])
def test_malformed_labels(folder, content, message):
    (folder / 'dataset.json').write_text(content)
    with pytest.raises(UserError) as caught:
        ImageFiles(folder).labels()
    assert message in str(caught.value) and 'dataset.json' in str(caught.value) and '\n' not in str(caught.value)


def test_label_kinds(folder):
    for content, dim, value in [('{"labels": [["z.jpg", 4]]}', 5, 4), ('{"labels": [["z.jpg", 1]], "classes": ["p", "q", "r"]}', 3, 1),
                                ('{"labels": [["z.jpg", [0.5, -1]]]}', 2, (0.5, -1))]:
        (folder / 'dataset.json').write_text(content)
        labels = ImageFiles(folder).labels()
        assert labels.dim == dim and labels.by_name == {'z.jpg': value}
    (folder / 'dataset.json').write_text('{"labels": null}')
    assert ImageFiles(folder).labels() is None


def test_paths_that_are_no_data_set(tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text.zip').write_text('no zip')
    with zipfile.ZipFile(tmp_path / 'bare.zip', 'w') as archive:
        archive.writestr('readme.txt', 'nothing')
    for name, message in [('missing', 'does not exist'), ('empty', 'holds no images (png, jpg'), ('bare.zip', 'holds no images'),
                          ('text.zip', 'is neither a zip nor a folder')]:
        with pytest.raises(UserError) as caught:
            ImageFiles(tmp_path / name)
        assert message in str(caught.value) and str(tmp_path / name) in str(caught.value)
        assert name == 'missing' or 'python dataset_tool.py convert' in str(caught.value)


def test_pictures_of_any_size_are_cut_without_a_guard(monkeypatch):
    """Pillow's own limit, lowered here to what a test can hold, once ended a whole conversion at center-crop."""
    from training.data.transforms import Target, convert

    data = encoded(np.zeros((40, 60, 3), np.uint8))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert decode(convert(data, Target(16, 16, 'center-crop', 3))[0]).shape == (3, 16, 16)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_picture_that_memory_cannot_hold_is_refused(monkeypatch):
    import collections

    monkeypatch.setattr('training.data.files.UNASKED_BYTES', 0)
    monkeypatch.setattr('psutil.virtual_memory', lambda: collections.namedtuple('Memory', 'available')(16 * 16 * 12 - 1))
    with pytest.raises(BadImage, match='^16x16 needs 3.0 KiB to decode, 3.0 KiB are free$'):
        decode_8bit(encoded(RGB, 'bmp'))


def test_avif_is_read():
    data = encoded(RGB // 8 + 100, 'avif', quality=100, subsampling='4:4:4')
    assert np.abs(decode(data).transpose(1, 2, 0).astype(int) - RGB // 8 - 100).max() <= 3


def test_kinds_that_pillow_does_not_know_are_named(monkeypatch):
    data = encoded(RGB, 'avif')
    monkeypatch.delitem(Image.OPEN, 'AVIF')  # as in a Pillow without it
    monkeypatch.setattr(Image, 'ID', [name for name in Image.ID if name != 'AVIF'])
    cases = [(data, 'AVIF, which this Pillow does not read'), (b'\0\0\0\x18ftypheic' + bytes(20), 'HEIC, which is not read')]
    for content, message in [*cases, (b'junk', '^not an image$'), (b'', '^not an image$')]:
        with pytest.raises(BadImage, match=message):
            decode(content)


@pytest.mark.parametrize('kind', ['png', 'tiff', 'jpeg', 'webp'])
def test_every_kind_is_turned_upright(kind):
    exif = Image.Exif()
    exif[274] = 6  # turn it clockwise
    picture = Image.fromarray(np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((16, 16), np.uint8))).convert('RGB')
    options = {'quality': 100, 'subsampling': 0} if kind == 'jpeg' else {'lossless': True} if kind == 'webp' else {}
    found = decode(encoded(picture, kind, exif=exif, **options))[0, ::31, ::31]
    assert np.abs(found.astype(int) - [[160, 0], [240, 80]]).max() <= 2


def test_integers_without_a_range_are_refused():
    """32-bit TIFF: 8-bit values in it once came out as black."""
    with pytest.raises(BadImage, match="mode 'I' have no fixed range"):
        decode(encoded(Image.fromarray(np.arange(256, dtype=np.int32).reshape(16, 16)), 'tiff'))
    wide = np.arange(0, 65536, 256).astype(np.uint16).reshape(16, 16)
    found = decode(b'P5 16 16 65535\n' + wide.astype('>u2').tobytes())
    np.testing.assert_array_equal(found[0], (wide.astype(int) + 128) // 257)
