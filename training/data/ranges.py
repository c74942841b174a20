"""Parts of files on a disk, a web server or in an object store, by byte range; what came over a network is kept for a while. No torch.

A network is allowed to fail: a part is asked for again, with longer and longer pauses, after an error of the server, a connection that ends
or stalls, a body that is cut short (only the rest is asked for then) and bytes that are not the right ones (the caller says how to tell).
"""

import errno
import hashlib
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

from dnnlib.util import UserError, atomic_path, cache_folder

URL = re.compile(r'[A-Za-z][A-Za-z0-9+.\-]+://')
TRIES = 10                 # in a row that bring nothing; the pauses between them make two minutes
WRONG = 4                  # of one that answers with other bytes than those that were stored
LONGEST_PAUSE = 30.0       # seconds
TIMEOUT = (10, 30)         # seconds to connect, and between two pieces of an answer
PIECE = 1 << 16
REDIRECTS = 5
RETRIED = (408, 425, 429)  # answers below 500 that may be another one in a while
HOPELESS = (errno.EINVAL, errno.ENOSYS, errno.ENAMETOOLONG)  # how stores call a request that is wrong
OPEN_FILES = 64
CACHE_BYTES = 4 << 30      # of parts that came over a network; INR_SHARD_CACHE_MB changes it

Check = Callable[[bytes], str | None]  # content -> None, or why it cannot be what was asked for


class Unreachable(UserError):
    """A file that cannot be read, after all the attempts that make sense."""


class Damaged(Unreachable):
    """A file that can be read, but whose content is not what was stored."""


class Refused(Exception):
    """An attempt that failed and may be repeated. Its text is the reason."""


def is_url(place: object) -> bool:
    """Whether a place is an address on a network."""
    return isinstance(place, str) and URL.match(place) is not None


def is_web(place: str) -> bool:
    return place.lower().startswith(('http://', 'https://'))


def beside(place: str, name: str) -> str:
    """The path or address of a file in the folder that holds another one."""
    if not is_url(place):
        return os.path.join(os.path.dirname(place), name)
    return urljoin(place, name) if is_web(place) else f'{place.rpartition("/")[0]}/{name}'


class Ranges:
    """Reads parts of files. May be pickled and used after a fork.

    cache: where parts that came over a network are kept; None: in `PartCache()`, made when needed
    """

    def __init__(self, cache: 'PartCache | None' = None):
        self.cache = cache
        self._files: OrderedDict[str, int] = OrderedDict()  # descriptors; their positions are not used, so a fork may share them
        self._session, self._session_pid = None, -1

    def __getstate__(self):
        return {'cache': self.cache, '_files': OrderedDict(), '_session': None, '_session_pid': -1}

    def close(self) -> None:
        """Closes what is open; reading opens it again."""
        while self._files:
            os.close(self._files.popitem()[1])
        self._session = None

    def read(self, place: str, start: int = 0, size: int | None = None, right: Check = lambda data: None, again: int = WRONG - 1) -> bytes:
        """Bytes start to start + size of a file, or all of it (size None), straight from where it is.

        place: path, or address of http, https or what fsspec knows (s3 and others)
        right: a network is asked again, `again` times, where it says that the content is another
        Raises Unreachable or Damaged, a line with `place`.
        """
        if not is_url(place):
            return self._of_disk(place, start, size, right)
        arrived, failed, wrong = bytearray(), 0, 0
        while True:
            before = len(arrived)
            try:
                data = self._of_server(place, start, size, arrived) if is_web(place) else _of_store(place, start, size)
                if (reason := right(data) if size in (None, len(data)) else _too_short(data, start, size)) is None:
                    return data
                arrived, wrong = bytearray(), wrong + 1  # nothing of what came is to be trusted
                if wrong > again:
                    raise Damaged(f'{place} is damaged ({reason}): store it again')
            except Refused as err:
                more = size is not None and len(arrived) > before  # of a whole file every attempt begins anew
                failed = 1 if more else failed + 1
                if failed == TRIES:
                    raise Unreachable(f'{place} cannot be read, after {TRIES} attempts ({err})') from err
            time.sleep(min(0.25 * 2 ** (failed + wrong), LONGEST_PAUSE))

    def read_kept(self, place: str, start: int, size: int, right: Check, offset: int = 0, count: int | None = None,
                  part_right: Check = lambda data: None) -> bytes:
        """`count` bytes from `offset` of the part `start` to `start + size`, which is fetched whole and kept for a while.

        right: of the whole part, when it is fetched;  part_right: of what is returned, which may have changed since
        """
        count = size if count is None else count
        if self.cache is None:
            self.cache = PartCache()
        name = f'{place} {start} {size}'
        kept = self.cache.get(name, offset, count)
        if kept is not None and part_right(kept) is None:
            return kept
        whole = self.read(place, start, size, right)
        self.cache.put(name, whole)
        return whole[offset:offset + count]

    def _of_disk(self, path: str, start: int, size: int | None, right: Check) -> bytes:
        if size is None:
            data = Path(path).read_bytes()
        else:
            file = self._files.get(path)
            if file is None:
                if len(self._files) >= OPEN_FILES:
                    os.close(self._files.popitem(last=False)[1])
                file = self._files[path] = os.open(path, os.O_RDONLY)
            self._files.move_to_end(path)
            data = os.pread(file, size, start)
        reason = _too_short(data, start, size) if size is not None and len(data) != size else right(data)
        if reason is not None:
            raise Damaged(f'{path} is damaged ({reason}): copy or make it again')
        return data

    def _of_server(self, url: str, start: int, size: int | None, arrived: bytearray) -> bytes:
        """Adds to `arrived` what is still missing of it. Raises Refused, with what came in `arrived`."""
        import requests

        if size is None:
            arrived.clear()
        first = start + len(arrived)
        headers = {'Accept-Encoding': 'identity', **({'Range': f'bytes={first}-{start + size - 1}'} if size is not None else {})}
        try:
            with self._connected().get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
                _expect_answer(url, response, first, size)
                for piece in response.iter_content(PIECE):
                    arrived.extend(piece)
                    if size is not None and len(arrived) > size:
                        arrived.clear()
                        raise Refused('the server sent more than was asked for')
        except requests.RequestException as err:
            raise Refused(' '.join(str(err).split())[:200] or type(err).__name__) from err
        if size is not None and len(arrived) < size:
            raise Refused(_too_short(arrived, start, size))
        return bytes(arrived)

    def _connected(self):
        """Connections of this process: a fork must not share them."""
        if self._session is None or self._session_pid != os.getpid():
            import requests

            self._session, self._session_pid = requests.Session(), os.getpid()
            self._session.max_redirects = REDIRECTS
        return self._session


def _too_short(data: bytes, start: int, size: int) -> str:
    return f'{len(data):,} in place of {size:,} bytes from {start:,} on'


def _expect_answer(url: str, response, first: int, size: int | None) -> None:
    """Raises Refused or Unreachable unless a server answers with the bytes asked for, from `first` on."""
    code = response.status_code
    if code >= 500 or code in RETRIED:
        raise Refused(f'the server answered {code}')
    if code == 416:
        raise Damaged(f'{url} is damaged (it ends before byte {first:,}): store it again')
    if code == 200 and size is not None:
        raise Unreachable(f'{url} cannot be read in parts: the server sends no byte ranges; copy the shards to another one or to a disk')
    if code not in (200, 206):
        raise Unreachable(f'{url} cannot be read (the server answered {code})')
    if size is not None and not response.headers.get('Content-Range', '').startswith(f'bytes {first}-'):
        raise Refused('the server sent another range')


def _of_store(url: str, start: int, size: int | None) -> bytes:
    try:
        import fsspec
    except ImportError as err:
        raise UserError(f'{url}: this kind of address needs fsspec: pip install .[cloud]') from err
    try:
        system, path = fsspec.core.url_to_fs(url)
        return system.cat_file(path, start=start, end=None if size is None else start + size)
    except (ImportError, ValueError, FileNotFoundError, PermissionError) as err:  # no driver, no such protocol, no such file
        raise Unreachable(f'{url} cannot be read ({" ".join(str(err).split()) or type(err).__name__})') from err
    except Exception as err:  # every store has errors of its own
        reason = f'{type(err).__name__}: {" ".join(str(err).split())[:200]}'
        if getattr(err, 'errno', None) == errno.EINVAL and 'range' in reason:  # s3's 416
            raise Damaged(f'{url} is damaged (it ends before byte {start:,}): store it again') from err
        if getattr(err, 'errno', None) in HOPELESS or re.search('Credential|Authenti', type(err).__name__):
            raise Unreachable(f'{url} cannot be read ({reason})') from err
        raise Refused(reason) from err


class PartCache:
    """A folder of parts of files, shared by the processes of a machine; the least recently used go first.

    folder: made when something is kept; None: 'shards' in `dnnlib.util.cache_folder`
    most:   bytes in it; None: INR_SHARD_CACHE_MB, else CACHE_BYTES
    """

    def __init__(self, folder: Path | None = None, most: int | None = None):
        self.folder = folder or cache_folder() / 'shards'
        text = os.environ.get('INR_SHARD_CACHE_MB') or str(CACHE_BYTES >> 20)
        if not text.isdigit():
            raise UserError(f'INR_SHARD_CACHE_MB={text}: give a whole number of MB')
        self.most = most if most is not None else int(text) << 20

    def _path(self, name: str) -> Path:
        return self.folder / hashlib.sha256(name.encode()).hexdigest()[:32]

    def get(self, name: str, offset: int, count: int) -> bytes | None:
        """`count` bytes from `offset` of a part; None if it is not there."""
        try:
            with open(self._path(name), 'rb', buffering=0) as file:
                os.utime(file.fileno())
                data = os.pread(file.fileno(), count, offset)
        except OSError:
            return None
        return data if len(data) == count else None

    def put(self, name: str, data: bytes) -> None:
        """Keeps a part. A disk that refuses costs nothing but time: it is fetched again."""
        if len(data) > self.most:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(len(data))
            with atomic_path(self._path(name)) as temporary:
                temporary.write_bytes(data)
        except OSError:
            return

    def _make_room(self, needed: int) -> None:
        """Removes the least recently used until `needed` bytes more fit, also what writers that were killed left."""
        entries = []
        with os.scandir(self.folder) as found:
            for entry in found:
                try:
                    status = entry.stat()
                except OSError:
                    continue  # another process was faster
                entries.append((status.st_mtime, status.st_size, entry.path))
        held = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if held + needed <= self.most:
                break
            Path(path).unlink(missing_ok=True)
            held -= size
