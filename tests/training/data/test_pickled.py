"""Plain data out of pickles of every protocol, and pickles made to do harm."""

import functools
import os
import pickle
import struct

import numpy as np
import pytest

from training.data.pickled import NotPlain, read_plain

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


class Evil:
    """Makes a folder when it is unpickled by pickle itself."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize('protocol', range(5))
def test_plain_data_comes_back(protocol):
    content = {b'data': PIXELS, b'labels': [0, 7, 300, -1, 2**40], 'name': 'x', 'others': (None, True, 1.5, ()), b'n': [b'cat', b'dog']}
    content['again'] = content[b'labels']
    found = read_plain(pickle.dumps(content, protocol))
    assert found.keys() == content.keys()
    np.testing.assert_array_equal(found.pop(b'data'), PIXELS)
    assert found == {key: value for key, value in content.items() if key != b'data'}


def test_columns_first_and_the_name_of_older_numpy():
    data = pickle.dumps(np.asfortranarray(PIXELS), 2)
    np.testing.assert_array_equal(read_plain(data), PIXELS)
    np.testing.assert_array_equal(read_plain(data.replace(b'numpy._core.multiarray', b'numpy.core.multiarray')), PIXELS)


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('kind', ['f4', 'f8', 'i8', 'b1', 'u2'])
def test_numbers_of_numpy(kind, protocol):
    value = np.array([[1, 0, 3]], kind)
    found = read_plain(pickle.dumps([value, value[0, 2]], protocol))
    assert found[0].dtype == kind and np.array_equal(found[0], value) and found[1] == value[0, 2] and type(found[1]) in (int, float, bool)


def test_numbers_in_another_order_of_bytes_are_refused():
    with pytest.raises(NotPlain, match='something else than numbers'):
        read_plain(pickle.dumps(np.arange(3, dtype='>i4')))


@pytest.mark.parametrize('protocol', range(6))
def test_nothing_is_called(protocol, tmp_path):
    with pytest.raises(NotPlain, match='it asks for'):
        read_plain(pickle.dumps({'data': Evil(str(tmp_path / 'made'))}, protocol))
    assert not (tmp_path / 'made').exists()


def array(dtype, content=b'\0' * 8, shape=b'K\x01'):
    """A pickle of an array whose dtype is what the opcodes `dtype` build."""
    return (b'\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R'
            b'(K\x01' + shape + b'\x85' + dtype + b'\x89T' + struct.pack('<I', len(content)) + content + b'tb.')


def test_a_forged_dtype_makes_no_pointer():
    """numpy.dtype with a state of one's choice once gave an array of objects over bytes of one's choice: a read at any address."""
    flags = b'J?\x00\x00\x00'  # says: holds references
    state = b'(K\x03U\x01|NNNK\x08K\x01' + flags + b'tb'
    pointer = struct.pack('<Q', 0x4141414141414141)
    for code in (b'O8', b'V8', b'S8'):
        with pytest.raises(NotPlain, match='an array of something else than numbers'):
            read_plain(array(b'cnumpy\ndtype\nU\x02' + code + b'K\x00K\x01\x87R' + state, pointer))
    found = read_plain(array(b'cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R' + state, pointer, shape=b'K\x08'))
    assert found.dtype == np.uint8 and found.tobytes() == pointer  # the state of the dtype is not looked at


@pytest.mark.parametrize('data, message', [
    (b'', 'damaged'), (b'junk', 'damaged'),
    (pickle.dumps({'a': 1})[:-3], 'damaged'), (b'\x80\x02.', 'damaged'), (b'K\x01K\x02a.', 'damaged'),
    (b'(K\x01K\x02K\x03d.', 'damaged'), (b'N(.', 'damaged'), (b'cposix\nsystem\n.', 'it asks for posix.system'),
    (b'cposix\nsystem\nU\x04true\x85R.', r'it asks for posix.system'), (b'K\x01Nb.', 'damaged'), (b'N\x81.', 'damaged'),
    (b'N\x92.', 'it uses NEWOBJ_EX'), (b'cos\nsystem\n)\x81.', 'asks for os.system'),
    (b'h\x07.', 'damaged'), (b']q\x00h\x00a.', 'nested too deep'), (pickle.dumps(np.array(['text']), 2), 'something else than numbers'),
    (array(b'cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R', shape=b'K\x09'), r'an array of \(9,\) with 8 bytes'),
    (array(b'cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R', shape=b'J\xf8\xff\xff\xff'), 'an array of'),
    (b'c_codecs\nencode\nX\x01\x00\x00\x00aU\x03zip\x86R.', 'asks for _codecs.encode'),
    (pickle.dumps(functools.reduce(lambda nested, _: [nested] * 10, range(7), [])), 'more values'),
    (b'}Q.', 'something that is kept outside'), (b'}(G\0\0\0\0\0\0\0\0Nu.', 'a float as a key'), (b'})Ns.', 'a tuple as a key'),
])
def test_what_is_not_plain_ends_in_one_line(data, message):
    with pytest.raises(NotPlain, match=message) as caught:
        read_plain(data)
    assert '\n' not in str(caught.value)
