"""What a query becomes: views, windows, saved pictures, and one line for what cannot be."""

import pytest

from viewing import MAX_LEVEL, MAX_SAVED
from viewing.kept import Kept
from viewing.state import BadQuery, Limits, Picture, View, read_picture, read_view, tile_window

pytest.importorskip('inr')  # which names the refinements
LIMITS = Limits(num_ws=10, c_dim=9, directions=4, snapshots=(0, 12288))
SIZE = {'x0': '0', 'y0': '-0.5', 'x1': '1', 'y1': '1.5', 'width': '30', 'height': '60', 'format': 'png'}


def test_views():
    assert read_view({}, LIMITS) == View()
    words = {'seed': '4294967295', 'psi': '-0.5', 'cutoff': '10', 'label': '3:0.25,0:-1e-3', 'style': '0', 'layers': '9,0', 'to': '7',
             'share': '1',
             'space': 'z', 'refine': 'last', 'snapshot': '12288', 'directions': '0:2,3:-1.5'}
    assert read_view(words, LIMITS) == View(
        seed=4294967295, psi=-0.5, cutoff=10, label=((3, 0.25), (0, -0.001)), style=0, layers=(9, 0), to=7, share=1.0, space='z',
        refine='last', snapshot=12288, directions=((0, 2.0), (3, -1.5)))
    assert read_view({'label': '', 'layers': ''}, LIMITS) == View()


@pytest.mark.parametrize('name, text, said', [
    ('sead', '1', 'not known'), ('seed', '-1', 'seed: a whole number'), ('seed', '4294967296', 'from 0 to 4294967295'),
    ('seed', '1.0', 'whole'),
    ('seed', '٣', 'whole'), ('seed', '', 'whole'), ('seed', '9' * 5000, 'whole'), ('psi', 'nan', 'psi: a number from -5 to 5'),
    ('psi', 'inf', 'number'), ('psi', '5.1', 'number'), ('psi', '0' * 41, 'number'), ('cutoff', '11', '0 to 10'),
    ('label', '9:1', '0 to 8'),
    ('label', '1:1,1:2', 'twice'), ('label', '1', 'number'), ('label', '1:1,', 'whole'), ('layers', '10', '0 to 9'),
    ('layers', '1,1', 'twice'),
    ('layers', ','.join(['1'] * 65), 'at most 64'), ('share', '1.01', '0 to 1'), ('space', 'W', 'one of w, z'),
    ('refine', 'none', 'one of'),
    ('snapshot', '1', 'no such snapshot'), ('directions', '4:1', '0 to 3'), ('directions', '1:101', '-100 to 100'),
])
def test_words_out_of_range(name, text, said):
    with pytest.raises(BadQuery, match=said) as error:
        read_view({name: text}, LIMITS)
    assert len(str(error.value)) < 200


def test_no_classes_and_no_directions():
    for name in ('label', 'directions'):
        with pytest.raises(BadQuery, match='has none'):
            read_view({name: '0:1'}, Limits(10, 0, 0, ()))


def test_tiles_of_a_level_cover_the_plane():
    margin = 2**-8
    assert tile_window(4, 8, 8) == (-margin, -margin, 1 + margin, 1 + margin)
    assert tile_window(4, 0, 15) == (-8 - margin, 7 - margin, -7 + margin, 8 + margin)
    left, top, right, bottom = tile_window(MAX_LEVEL, 8 * 2**15, 8 * 2**15 + 1)
    margin = 2**-23
    assert (left, top) == (-margin, 2**-15 - margin) and (right, bottom) == (2**-15 + margin, 2**-14 + margin)
    for place in [(1, 0, 0), (20, 0, 0), (4, 16, 0), (4, 0, 16), (4, -1, 0), (4, 0, -1)]:
        with pytest.raises(BadQuery):
            tile_window(*place)


def test_saved_pictures():
    given = SIZE | {'seed': '3'}
    assert read_picture(given) == Picture((0, -0.5, 1, 1.5), 30, 60, 'png') and given == {'seed': '3'}


@pytest.mark.parametrize('change, said', [
    ({'width': '0'}, 'whole'), ({'width': '8193', 'height': '8192'}, 'megapixels'), ({'x1': '0'}, 'empty'), ({'y1': '-1'}, 'empty'),
    ({'x0': '-1001'}, 'number'), ({'x0': 'nan'}, 'number'), ({'format': 'jpg'}, 'one of png, tiff'), ({'format': '../a.png'}, 'one of'),
])
def test_pictures_that_cannot_be(change, said):
    with pytest.raises(BadQuery, match=said):
        read_picture(SIZE | change)
    with pytest.raises(BadQuery, match='height is missing'):
        read_picture({name: text for name, text in SIZE.items() if name != 'height'})
    assert MAX_SAVED == 8192**2


def test_kept_is_bounded_and_forgets_the_oldest():
    kept = Kept(10, len)
    for key, size in (('a', 4), ('b', 4), ('c', 11)):
        kept.put(key, b'x' * size)
    assert kept.get('c') is None and kept.get('a') == b'xxxx'
    kept.put('d', b'xx') and kept.put('e', b'xx')
    assert kept.get('b') is None and kept.get('a') and kept.get('d') and kept.total == 8
    kept.put('d', b'other')
    assert kept.get('d') == b'xx' and kept.total == 8
