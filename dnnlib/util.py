"""Errors, objects by name, files by path or URL, and how times and sizes are written. Imports nothing slow, torch least of all."""

import difflib
import errno
import hashlib
import importlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname


class UserError(Exception):
    """A user's mistake, told in one line: what was given, what is allowed, what to do.

    Commands print it without a traceback and leave with exit code 2 (`dnnlib.cli.run`).
    """


# ---- Objects by name


def get_obj_by_name(name: str) -> Any:
    """The module, class or function with a dotted name, for example 'training.networks.Generator'.

    Raises ImportError when no module begins the name or the last module lacks the rest of it. An error inside a module that does exist
    passes through as it is.
    """
    parts = name.split('.')
    if not all(part.isidentifier() for part in parts):
        raise ImportError(f'{name!r} is not a dotted Python name')
    for length in range(len(parts), 0, -1):
        module_name = '.'.join(parts[:length])
        try:
            obj = importlib.import_module(module_name)
        except ModuleNotFoundError as err:
            if err.name is None or not (module_name + '.').startswith(err.name + '.'):
                raise  # a module that exists asks for one that does not
            continue
        for part in parts[length:]:
            if not hasattr(obj, part):
                raise ImportError(f'{name!r} does not exist: {module_name!r} has no {".".join(parts[length:])!r}')
            obj = getattr(obj, part)
        return obj
    raise ImportError(f'{name!r} does not exist: there is no module {parts[0]!r}')


def construct_class_by_name(*args: Any, class_name: str, **kwargs: Any) -> Any:
    """Calls the class (or function) named `class_name` with the other arguments and returns what it returns."""
    return get_obj_by_name(class_name)(*args, **kwargs)


# ---- Files


def optional(module: str, name: str, default: Any) -> Any:
    """What a module calls `name`, or `default` where that module is not there; a module it needs being missing is an error all the same."""
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as err:
        if err.name is None or not f'{module}.'.startswith(f'{err.name}.'):
            raise
        return default


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Lets a file appear whole or not at all, also where the machine loses its power.

    path: where the file is to be. Its folder must exist; a file already there stays until the new one is complete and on the disk.
    Yields a temporary path in the same folder, ending in the same file name; it becomes `path` when the block ends and is removed when the
    block fails. Raises OSError naming `path`, not the temporary file, when the system refuses (no permission, disk full), also where the
    block wrote by way of torch.save or safetensors, which raise errors of their own.
    """
    path = Path(path)
    temporary = path.with_name(f'.tmp-{uuid.uuid4().hex[:8]}-{path.name}')
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
        _to_disk(path.parent)
    except OSError as err:
        if err.errno is None or str(err.filename or temporary) != str(temporary):
            raise
        raise OSError(err.errno, os.strerror(err.errno), str(path)) from err
    except Exception as err:
        code = _refusal(err, temporary)
        if code is None:
            raise
        raise OSError(code, os.strerror(code), str(path)) from err
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Waits until a file's content, or a folder's names, are on the disk; nothing where the file system knows no such thing."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that may be written and not read
        return
    try:
        os.fsync(handle)
    except OSError as err:
        if err.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def _refusal(err: Exception, file: Path) -> int | None:
    """The system's error number behind the failure of a writer in native code, or None when the system did not refuse.

    safetensors tells it in its message; torch.save hides it, so a further write to the file is tried.
    """
    if told := re.search(r'\(os error (\d+)\)', str(err)):
        return int(told[1])
    if 'inline_container' not in str(err) and 'Parent directory' not in str(err):
        return None
    try:
        with file.open('ab') as more:
            more.write(bytes(1 << 20))
    except OSError as refused:
        return refused.errno
    return None


def cache_folder() -> Path:
    """Where downloads are kept: $INR_CACHE_DIR, else inr-gan/ under $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get('INR_CACHE_DIR'):
        return Path(chosen)
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'inr-gan'


def cached_path(url: str, cache_dir: str | Path | None = None) -> Path:
    """Where `fetch` keeps, or would keep, the file of an http or https address."""
    return Path(cache_dir or cache_folder()) / _cache_name(url)


def fetch(url_or_path: str | Path, sha256: str | None = None, cache_dir: str | Path | None = None) -> Path:
    """A local file for a path or URL; http and https are downloaded once into the cache.

    url_or_path: local path, file://, http:// or https:// address
    sha256:      hex digest the content must have, or its first 8 or more digits; None: not checked
    cache_dir:   folder of downloads; None: `cache_folder()`
    Raises UserError when the file is missing, cannot be downloaded (the message says where to put it by hand) or has another checksum.
    """
    if sha256 is not None and not re.fullmatch(r'[0-9a-f]{8,64}', sha256.lower()):
        raise ValueError(f'sha256={sha256!r}: 8 to 64 hex digits are needed')
    address = str(url_or_path)
    try:
        urlsplit(address)
    except ValueError as err:
        raise UserError(f'{address} is no address ({err})') from None
    if not address.lower().startswith(('http://', 'https://')):
        path = Path(url2pathname(urlsplit(address).path)) if address.lower().startswith('file://') else Path(url_or_path)
        if not path.is_file():
            raise UserError(f'no such file: {path}')
        _check_digest(path, address, sha256)
        return path
    path = cached_path(address, cache_dir)
    if path.is_file() and (sha256 is None or file_digest(path).startswith(sha256.lower())):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        _download(address, temporary, path)
        _check_digest(temporary, address, sha256)
    return path


def open_url(url_or_path: str | Path, sha256: str | None = None, cache_dir: str | Path | None = None) -> BinaryIO:
    """Opens a path or URL for reading bytes; arguments and errors as in `fetch`."""
    return fetch(url_or_path, sha256, cache_dir).open('rb')


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _check_digest(path: Path, address: str, sha256: str | None) -> None:
    if sha256 is None:
        return
    found = file_digest(path)
    if not found.startswith(sha256.lower()):
        raise UserError(f'{address} has SHA-256 {found[:len(sha256)]}, expected {sha256.lower()}: not the file that was meant, or damaged')


def _cache_name(url: str) -> str:
    """A file name that tells the URL's last part to people and the whole URL to us."""
    name = re.sub(r'[^\w.\-]', '_', unquote(urlsplit(url).path).rsplit('/', 1)[-1])[-100:] or 'download'
    return hashlib.sha256(url.encode(errors='backslashreplace')).hexdigest()[:12] + '-' + name


def _download(url: str, target: Path, final: Path) -> None:
    import requests  # slow to import, seldom needed
    from tqdm import tqdm

    try:
        with requests.get(url, stream=True, timeout=30, headers={'Accept-Encoding': 'identity'}) as response:
            response.raise_for_status()
            length = response.headers.get('Content-Length', '')
            size = int(length) if re.fullmatch(r'\d{1,15}', length) else 0
            bar = tqdm(total=size or None, desc=final.name, unit='B', unit_scale=True, disable=None)
            with bar, target.open('wb') as file:
                for chunk in response.iter_content(1 << 20):
                    file.write(chunk)
                    bar.update(len(chunk))
                if size and file.tell() != size:
                    raise UserError(f'cannot download {url} ({file.tell():,} bytes of {size:,} came): try again')
    except (requests.RequestException, UnicodeError) as err:
        response = getattr(err, 'response', None)
        reason = f'the server answered {response.status_code}' if response is not None else _innermost(err)
        raise UserError(f'cannot download {url} ({reason}): try again, or put the file by hand at {final}') from err


def _innermost(err: BaseException) -> str:
    """What the error at the root of a chain says, without the object addresses that the outer ones print."""
    while err.__context__ is not None:
        err = err.__context__
    text = ' '.join(str(err).split())
    return text or type(err).__name__


# ---- Words


def printable(text: str) -> str:
    """Text for a terminal: what would steer it, and what cannot be encoded, is written as its code, '\\x1b'."""
    return ''.join(letter if letter.isprintable() else letter.encode('unicode_escape').decode('ascii') for letter in text)


def format_time(seconds: float) -> str:
    """A duration for people: '7s', '3m 05s', '2h 03m 09s', '1d 04h 05m'."""
    total = int(round(seconds))
    days, hours, minutes, secs = total // 86400, total // 3600 % 24, total // 60 % 60, total % 60
    if days:
        return f'{days}d {hours:02d}h {minutes:02d}m'
    if hours:
        return f'{hours}h {minutes:02d}m {secs:02d}s'
    return f'{minutes}m {secs:02d}s' if minutes else f'{secs}s'


def format_bytes(n: float) -> str:
    """A size for people, in binary units: '812 B', '1.5 KiB', '2.0 GiB'."""
    if n < 1024:
        return f'{int(n)} B'
    for unit in ('KiB', 'MiB', 'GiB'):
        n /= 1024
        if n < 1024:
            return f'{n:.1f} {unit}'
    return f'{n / 1024:.1f} TiB'


def suggest(word: str, choices: Iterable[str]) -> str:
    """" Did you mean 'x'?" with the choice closest to a misspelt word, or '' when none is close."""
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean '{by_lower[near[0]]}'?" if near else ''


def check_keys(given, known, where: str, needed=()) -> None:
    """Raises UserError for a key that is not known, with the nearest that is, and for a needed one that is missing."""
    for key in given:
        if key not in known:
            raise UserError(f'{where}: {key!r} is not known.{suggest(str(key), known)} Known: {", ".join(known)}')
    missing = [key for key in needed if key not in given]
    if missing:
        raise UserError(f'{where}: {missing[0]!r} is missing')
