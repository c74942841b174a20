"""Parts of files from a disk, a store and a server that fails in every way; what is kept of them."""

import errno
import http.server
import pickle
import threading

import pytest

from dnnlib.util import UserError
from training.data import ranges
from training.data.ranges import Damaged, PartCache, Ranges, Unreachable, beside

CONTENT = bytes(range(256)) * 40


class Server(http.server.ThreadingHTTPServer):
    """Serves {path: content} by range from the loopback. faults: what goes wrong in the coming answers, in turn."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(('127.0.0.1', 0), Handler)
        self.files, self.faults, self.asked = files, [], []
        self.url = f'http://127.0.0.1:{self.server_port}/'
        self.go_on = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()

    def handle_error(self, request, client_address):
        """A client that has left is none of ours."""

    def stop(self):
        self.go_on.set()
        self.shutdown()
        self.server_close()


class Patience(tuple):
    """Seconds to connect and to wait: short for an answer that will stall, long for others, however busy the machine is."""

    def __new__(cls, server):
        made = super().__new__(cls, (60, 60))
        made.server = server
        return made

    def __iter__(self):
        return iter((60, 0.2 if self.server.faults[:1] == ['stall'] else 60))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    wbufsize = -1  # head and body in one packet

    def log_message(self, *args):
        pass

    def do_GET(self):
        server, asked = self.server, self.headers.get('Range')
        fault = server.faults.pop(0) if server.faults else ''
        server.asked.append((self.path, asked, fault))
        data = server.files.get(self.path.lstrip('/'))
        code = int(fault) if fault.isdigit() else 404 if data is None else 206 if asked and fault != 'whole' else 200
        first = 0
        if code == 206:
            first, last = (int(text) for text in asked.removeprefix('bytes=').split('-'))
            data = data[first:last + 1]
        if code >= 300:
            data = b'sorry'
        self.send_response(code)
        if code == 206:
            self.send_header('Content-Range', f'bytes {first + (fault == "shifted")}-{first + len(data) - 1}/*')
        if fault == 'long':
            data += b'more'
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        if fault == 'wrong':
            data = bytes([data[0] ^ 1]) + data[1:]
        self.wfile.write(data[:len(data) // 2] if fault in ('cut', 'stall') else data)
        if fault == 'stall':
            self.wfile.flush()
            server.go_on.wait(60)
        if fault in ('cut', 'stall'):
            self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(ranges, 'PIECE', 500)
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    monkeypatch.setenv('no_proxy', '*')
    made = Server({'a.bin': CONTENT})
    monkeypatch.setattr(ranges, 'TIMEOUT', Patience(made))
    yield made
    made.stop()


def problem(data):
    return None if data == CONTENT[100:5000] else 'other bytes'


def test_a_server_that_fails_in_every_way_loses_nothing(server):
    server.faults = ['500', 'cut', 'cut', '429', 'stall', '503', 'wrong', 'shifted', 'long', 'wrong', 'cut']
    assert Ranges().read(server.url + 'a.bin', 100, 4900, problem) == CONTENT[100:5000]
    asked = [text for _, text, _ in server.asked]
    assert len(asked) == 12 and asked[:3] == ['bytes=100-4999', 'bytes=100-4999', 'bytes=2100-4999']  # only the rest after a cut
    assert asked[3] == 'bytes=3100-4999' and asked[7] == 'bytes=100-4999'  # but all after wrong bytes


def test_a_server_that_brings_a_little_each_time_is_not_given_up(server):
    server.faults = ['500'] * 8 + ['cut'] + ['500'] * 8
    assert Ranges().read(server.url + 'a.bin', 100, 4900, problem) == CONTENT[100:5000] and len(server.asked) == 18


def test_a_whole_file_that_never_comes_whole_is_given_up(server):
    server.faults = ['500', 'cut'] * 10
    with pytest.raises(Unreachable, match='after 10 attempts'):
        Ranges().read(server.url + 'a.bin')
    assert len(server.asked) == 10


def test_a_whole_file_that_is_cut_is_asked_for_again(server):
    server.faults = ['cut', '502', 'cut']
    assert Ranges().read(server.url + 'a.bin') == CONTENT and len(server.asked) == 4


@pytest.mark.parametrize('faults, error, message', [
    (['404'], Unreachable, 'the server answered 404'), (['403'], Unreachable, 'the server answered 403'),
    (['416'], Damaged, 'is damaged .it ends before byte 100.'), (['whole'], Unreachable, 'the server sends no byte ranges'),
    (['500'] * 10, Unreachable, 'after 10 attempts .*answered 500'),
    (['wrong'] * 4, Damaged, 'is damaged .other bytes.'),
])
def test_what_cannot_be_mended_is_one_line(server, faults, error, message):
    server.faults = list(faults)
    with pytest.raises(error, match=message) as caught:
        Ranges().read(server.url + 'a.bin', 100, 4900, problem)
    assert server.url in str(caught.value) and '\n' not in str(caught.value) and len(server.asked) == len(faults)


def test_nobody_there_is_one_line(monkeypatch):
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    monkeypatch.setenv('no_proxy', '*')
    with pytest.raises(Unreachable, match='after 10 attempts'):
        Ranges().read('http://127.0.0.1:9/a.bin', 0, 10)


def test_parts_are_kept_and_the_oldest_go(server, tmp_path):
    cache = PartCache(tmp_path / 'kept', most=10_000)
    reader = pickle.loads(pickle.dumps(Ranges(cache)))
    url = server.url + 'a.bin'
    assert reader.read_kept(url, 100, 4900, problem) == CONTENT[100:5000]
    assert reader.read_kept(url, 100, 4900, problem, 50, 20) == CONTENT[150:170] and len(server.asked) == 1
    for start in (1000, 2000, 3000):
        assert reader.read_kept(url, start, 4000, lambda data: None) == CONTENT[start:start + 4000]
    assert sum(file.stat().st_size for file in cache.folder.iterdir()) == 8000
    reader.read_kept(url, 3000, 4000, lambda data: None)
    assert len(server.asked) == 4
    reader.read_kept(url, 100, 4900, problem)
    assert len(server.asked) == 5  # it was the oldest
    for file in cache.folder.iterdir():
        file.write_bytes(bytes(4900))
    part = reader.read_kept(url, 100, 4900, problem, 50, 20, part_right=lambda data: None if data == CONTENT[150:170] else 'damaged')
    assert part == CONTENT[150:170] and len(server.asked) == 6
    assert PartCache(tmp_path / 'a' / 'b', most=10).put('x', bytes(11)) is None and not (tmp_path / 'a').exists()


def test_a_cache_that_cannot_be_written_costs_time_alone(server, tmp_path):
    (tmp_path / 'file').touch()
    reader = Ranges(PartCache(tmp_path / 'file', most=10_000))
    for _ in range(2):
        assert reader.read_kept(server.url + 'a.bin', 100, 4900, problem) == CONTENT[100:5000]
    assert len(server.asked) == 2


def test_size_of_the_cache_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv('INR_CACHE_DIR', str(tmp_path))
    assert (PartCache().folder, PartCache().most) == (tmp_path / 'shards', 4 << 30)
    monkeypatch.setenv('INR_SHARD_CACHE_MB', '10')
    assert PartCache().most == 10 << 20
    monkeypatch.setenv('INR_SHARD_CACHE_MB', 'ten')
    with pytest.raises(UserError, match='INR_SHARD_CACHE_MB=ten: give a whole number'):
        PartCache()


def test_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(ranges, 'OPEN_FILES', 2)
    reader = Ranges()
    for i in range(4):
        (tmp_path / f'{i}').write_bytes(CONTENT[i:])
    for i in (0, 1, 2, 3, 0, 2):
        assert reader.read(str(tmp_path / f'{i}'), 7, 5) == CONTENT[i + 7:i + 12] and len(reader._files) <= 2
    assert reader.read(str(tmp_path / '1')) == CONTENT[1:]
    with pytest.raises(Damaged, match='1 is damaged .9 in place of 20 bytes from 10,230 on.'):
        reader.read(str(tmp_path / '1'), len(CONTENT) - 10, 20)
    with pytest.raises(Damaged, match='other bytes'):
        reader.read(str(tmp_path / '1'), 0, 20, problem)
    reader.close()
    assert not reader._files and reader.read(str(tmp_path / '1'), 0, 1) == CONTENT[1:2]


def test_object_stores(monkeypatch):
    import fsspec

    monkeypatch.setattr('time.sleep', lambda seconds: None)
    system = fsspec.filesystem('memory')
    system.pipe('/bucket/a.bin', CONTENT)
    reader = Ranges()
    assert reader.read('memory://bucket/a.bin', 10, 30) == CONTENT[10:40] and reader.read('memory://bucket/a.bin') == CONTENT
    for url, message in [('memory://bucket/b.bin', 'b.bin cannot be read'), ('nonsense://a', 'nonsense')]:
        with pytest.raises(Unreachable, match=message):
            reader.read(url)
    answers = [OSError('busy'), CONTENT[:5], CONTENT[:30]]

    def cat(path, start, end):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(type(system), 'cat_file', lambda self, path, start, end: cat(path, start, end))
    assert reader.read('memory://bucket/a.bin', 0, 30) == CONTENT[:30] and not answers
    for hopeless, message in ((OSError(errno.EINVAL, 'The requested range is not satisfiable'), 'it ends before byte 0'),
                              (OSError(errno.EINVAL, 'The bucket is not valid'), 'The bucket is not valid'),
                              (type('NoCredentialsError', (Exception,), {})('Unable to locate'), 'NoCredentialsError: Unable to locate')):
        answers = [hopeless, CONTENT[:30]]
        with pytest.raises(Unreachable, match=message):
            reader.read('memory://bucket/a.bin', 0, 30)
        assert len(answers) == 1
    system.rm('/bucket', recursive=True)


def test_files_beside_others():
    assert beside('a/b/index.json', 'x.tar') == 'a/b/x.tar' and beside('index.json', 'x.tar') == 'x.tar'
    assert beside('https://h/a/index.json?key=1', 'x.tar') == 'https://h/a/x.tar' and beside('s3://b/a/index.json', 'x.tar') == 's3://b/a/x.tar'
