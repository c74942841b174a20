import errno
import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dnnlib import util
from dnnlib.util import UserError
from tests.helpers import file_size_limit

CONTENT = b'weights' * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


# ---- Objects by name


def test_get_obj_by_name_finds_modules_classes_and_attributes():
    import collections
    assert util.get_obj_by_name('collections') is collections
    assert util.get_obj_by_name('collections.OrderedDict') is collections.OrderedDict
    assert util.get_obj_by_name('collections.OrderedDict.fromkeys') == collections.OrderedDict.fromkeys
    assert util.get_obj_by_name('dnnlib.util.UserError') is UserError


@pytest.mark.parametrize('name', [
    'no_such_module.Thing', 'collections.NoSuchClass', 'collections.OrderedDict.nothing', '', 'a b', 'dnnlib.',
])
def test_get_obj_by_name_raises_import_error(name):
    with pytest.raises(ImportError, match='does not exist|not a dotted'):
        util.get_obj_by_name(name)


def test_get_obj_by_name_shows_an_error_inside_a_module(tmp_path, monkeypatch):
    (tmp_path / 'asks_for_more.py').write_text('import missing_dependency\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match='missing_dependency'):
        util.get_obj_by_name('asks_for_more.Thing')


def test_construct_class_by_name():
    assert util.construct_class_by_name(7, class_name='fractions.Fraction', denominator=2) == 3.5


# ---- Files


def test_atomic_path_replaces_the_file(tmp_path):
    target = tmp_path / 'a.txt'
    target.write_text('old')
    with util.atomic_path(target) as temporary:
        assert temporary.parent == tmp_path and temporary.name.endswith('a.txt')
        temporary.write_text('new')
        assert target.read_text() == 'old'
    assert target.read_text() == 'new'
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_path_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(util.os, 'fsync', lambda handle: order.append(os.fstat(handle).st_ino) or fsync(handle))
    monkeypatch.setattr(util.os, 'replace', lambda *paths: order.append('replace') or replace(*paths))
    with util.atomic_path(tmp_path / 'a.txt') as temporary:
        temporary.write_text('new')
    assert order == [(tmp_path / 'a.txt').stat().st_ino, 'replace', tmp_path.stat().st_ino]

    def refused(handle):
        raise OSError(errors.pop(), 'refused')

    (tmp_path / 'a.txt').write_text('old')
    monkeypatch.setattr(util.os, 'fsync', refused)
    errors = [errno.ENOSPC]
    with pytest.raises(OSError) as full, util.atomic_path(tmp_path / 'a.txt') as temporary:
        temporary.write_text('half')
    assert full.value.filename == str(tmp_path / 'a.txt') and (tmp_path / 'a.txt').read_text() == 'old'
    errors = [errno.EINVAL, errno.EINVAL]                                      # a file system without fsync
    with util.atomic_path(tmp_path / 'a.txt') as temporary:
        temporary.write_text('whole')
    assert (tmp_path / 'a.txt').read_text() == 'whole'


def test_atomic_path_keeps_the_old_file_when_the_block_fails(tmp_path):
    target = tmp_path / 'a.txt'
    target.write_text('old')
    with pytest.raises(KeyboardInterrupt), util.atomic_path(target) as temporary:
        temporary.write_text('half')
        raise KeyboardInterrupt
    assert target.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_path_names_the_final_file_in_errors(tmp_path):
    target = tmp_path / 'a.txt'
    with pytest.raises(OSError) as full, util.atomic_path(target):
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert full.value.filename == str(target)
    with pytest.raises(FileNotFoundError) as missing, util.atomic_path(tmp_path / 'no_folder' / 'a.txt') as temporary:
        temporary.write_text('x')
    assert missing.value.filename == str(tmp_path / 'no_folder' / 'a.txt') and missing.value.filename2 is None
    with pytest.raises(FileNotFoundError) as other, util.atomic_path(target):
        open(tmp_path / 'other')
    assert str(other.value.filename) == str(tmp_path / 'other')


def test_atomic_path_learns_what_torch_and_safetensors_hide(tmp_path):
    import safetensors.torch
    import torch

    tensors = {'a': torch.zeros(100_000)}
    for save in (lambda path: torch.save(tensors, path), lambda path: safetensors.torch.save_file(tensors, path)):
        with pytest.raises(FileNotFoundError) as missing, util.atomic_path(tmp_path / 'no_folder' / 'a.bin') as temporary:
            save(temporary)
        assert missing.value.filename == str(tmp_path / 'no_folder' / 'a.bin')
        with pytest.raises(OSError) as full, file_size_limit(10_000), util.atomic_path(tmp_path / 'a.bin') as temporary:
            save(temporary)
        assert (full.value.errno, full.value.filename) == (errno.EFBIG, str(tmp_path / 'a.bin'))
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match='a bug'), util.atomic_path(tmp_path / 'a.bin'):
        raise RuntimeError('a bug')


# ---- Downloads


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith('/missing'):
            return self.send_error(404)
        self.send_response(200)
        self.send_header('Content-Length', str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:100] if self.path.startswith('/broken') else CONTENT)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    with ThreadingHTTPServer(('127.0.0.1', 0), _Handler) as server:
        server.asked = []
        server.url = f'http://127.0.0.1:{server.server_address[1]}'
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_fetch_downloads_once(server, tmp_path):
    first = util.fetch(server.url + '/net.pkl', cache_dir=tmp_path / 'cache')
    second = util.fetch(server.url + '/net.pkl', sha256=DIGEST[:8].upper(), cache_dir=tmp_path / 'cache')
    assert first == second and first.read_bytes() == CONTENT
    assert first.name.endswith('-net.pkl') and list(first.parent.iterdir()) == [first]
    assert server.asked == ['/net.pkl']


def test_fetch_tells_urls_of_the_same_name_apart(server, tmp_path):
    a, b = (util.fetch(server.url + path, cache_dir=tmp_path) for path in ('/a/net.pkl', '/b/net.pkl?dl=1'))
    assert a != b and a.name.endswith('-net.pkl') and b.name.endswith('-net.pkl')


def test_fetch_replaces_a_damaged_file_in_the_cache(server, tmp_path):
    path = util.fetch(server.url + '/net.pkl', cache_dir=tmp_path)
    path.write_bytes(b'damaged')
    assert util.fetch(server.url + '/net.pkl', sha256=DIGEST, cache_dir=tmp_path).read_bytes() == CONTENT


def test_fetch_refuses_a_wrong_checksum(server, tmp_path):
    with pytest.raises(UserError, match=f'SHA-256 {DIGEST[:10]}, expected 0123456789'):
        util.fetch(server.url + '/net.pkl', sha256='0123456789', cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fetch_reports_a_missing_page_and_a_broken_download(server, tmp_path):
    with pytest.raises(UserError, match='the server answered 404') as missing:
        util.fetch(server.url + '/missing.pkl', cache_dir=tmp_path)
    assert f'put the file by hand at {tmp_path}' in str(missing.value)
    with pytest.raises(UserError, match='100 bytes read'):
        util.fetch(server.url + '/broken.pkl', cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fetch_offline_says_where_to_put_the_file(server, tmp_path):
    url = server.url + '/net.pkl'
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match='[Rr]efused') as err:
        util.fetch(url, cache_dir=tmp_path)
    line = str(err.value)
    assert url in line and '\n' not in line and ' at 0x' not in line
    by_hand = line.rsplit(' at ', 1)[1]
    with open(by_hand, 'wb') as file:
        file.write(CONTENT)
    assert util.fetch(url, sha256=DIGEST, cache_dir=tmp_path).read_bytes() == CONTENT


def test_fetch_passes_local_files_through(tmp_path):
    path = tmp_path / 'with space.pkl'
    path.write_bytes(CONTENT)
    assert util.fetch(path) == path
    assert util.fetch(str(path), sha256=DIGEST) == path
    assert util.fetch(path.as_uri()) == path
    with util.open_url(path.as_uri()) as file:
        assert file.read() == CONTENT
    with pytest.raises(UserError, match='expected aaaaaaaa'):
        util.fetch(path, sha256='a' * 8)
    with pytest.raises(UserError, match='no such file'):
        util.fetch(tmp_path / 'absent.pkl')
    with pytest.raises(ValueError, match='8 to 64 hex digits'):
        util.fetch(path, sha256=DIGEST[:7])


def test_cached_path_is_where_fetch_puts_it(server, tmp_path):
    expected = util.cached_path(server.url + '/net.pkl', tmp_path)
    assert util.fetch(server.url + '/net.pkl', cache_dir=tmp_path) == expected


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv('INR_CACHE_DIR', str(tmp_path / 'chosen'))
    assert util.cache_folder() == tmp_path / 'chosen'
    monkeypatch.delenv('INR_CACHE_DIR')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert util.cache_folder() == tmp_path / 'inr-gan'
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    assert util.cache_folder() == tmp_path / 'home' / '.cache' / 'inr-gan'


# ---- Words


@pytest.mark.parametrize('seconds, text', [
    (0, '0s'), (59.4, '59s'), (59.6, '1m 00s'), (185, '3m 05s'), (3599.9, '1h 00m 00s'), (7389, '2h 03m 09s'),
    (86400 + 4 * 3600 + 300, '1d 04h 05m'),
])
def test_format_time(seconds, text):
    assert util.format_time(seconds) == text


@pytest.mark.parametrize('n, text', [
    (0, '0 B'), (1023, '1023 B'), (1536, '1.5 KiB'), (5 << 20, '5.0 MiB'), (2 << 30, '2.0 GiB'), (3 << 50, '3072.0 TiB'),
])
def test_format_bytes(n, text):
    assert util.format_bytes(n) == text


def test_suggest():
    assert util.suggest('inr-tinny', ['stylegan2', 'inr', 'inr-tiny']) == " Did you mean 'inr-tiny'?"
    assert util.suggest('INR', ['inr', 'stylegan2']) == " Did you mean 'inr'?"
    assert util.suggest('quux', ['inr', 'stylegan2']) == ''
