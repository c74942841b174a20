"""The compiled CPU code of block_cpu.cpp and layer_cpu.cpp: built by the C++ compiler at hand at first use, kept in a cache.

Files without PyTorch's headers take three seconds to build, so this asks for a compiler alone: neither ninja nor an activated
environment. The cache is torch's: TORCH_EXTENSIONS_DIR, else torch_extensions under XDG_CACHE_HOME or ~/.cache. A build is named by a
digest of sources, flags, compiler, C library and processor, so machines that share a home do not share code. CXX names the compiler;
INR_OPS_ASAN=1 builds with an address sanitizer (script/test --asan).
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

FOLDER = Path(__file__).parent
SOURCES = FOLDER / 'block_cpu.cpp', FOLDER / 'layer_cpu.cpp'
HEADER = FOLDER / 'cpu.hpp'
FLAGS = ('-O3', '-std=c++17', '-fPIC', '-pthread')
OPENMP = ('-fopenmp',), ()  # Apple's compiler has none; the code then starts threads of its own
COMPILERS = ('c++', 'g++', 'clang++')

_int, _float, _pointer = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


class Unavailable(RuntimeError):
    """Why there is no compiled code, in one line."""


def _structure(name, *fields):
    return type(name, (ctypes.Structure,), {'_fields_': [(each, kind) for kind, names in fields for each in names.split()]})


Layer = _structure(
    'Layer', (_int, 'in_channels features channels'), (_pointer, 'w_x w_e bias parent'), (_float, 'slope clamp')
)  # fmt: skip
Features = _structure(
    'Features', (_int, 'raw rows cosine constants'), (_pointer, 'x y sin_x cos_x sin_y cos_y cells'), (_int, 'cell_rows cell_columns'),
    (_pointer, 'row_low row_high column_low column_high row_share column_share'),
)  # fmt: skip
Block = type('Block', (ctypes.Structure,), {'_fields_': [
    *((name, _int) for name in ('height', 'width', 'layers')), ('layer', ctypes.POINTER(Layer)), ('to_rgb', Layer),
    ('features', ctypes.POINTER(Features)), ('x', _pointer), ('x_bits', _int), ('x_out', _pointer), ('image', _pointer),
    *((name, _pointer) for name in ('row_low', 'row_high', 'column_low', 'column_high', 'row_share', 'column_share')),
    ('parent_width', _int), ('parent_points', _int),
]})  # fmt: skip

FUNCTIONS = {
    'fmm_channels_step': (_int, []),
    'fmm_size_of': (_int, [_int]),
    'fmm_pack': (None, [_pointer] * 3 + [_int] * 4 + [_float, _int] + [_pointer] * 2 + [_int]),
    'fmm_affine': (None, [_pointer] * 3 + [_float] * 2 + [_pointer] + [_int] * 3),
    'fmm_product': (None, [_pointer, _int, _pointer, _pointer] + [_int] * 5),
    'fmm_block': (None, [ctypes.POINTER(Block), _int, _int]),
    'fmm_finish': (None, [_pointer] * 3 + [_int] * 6 + [_float] * 3 + [_int] * 2),
    'fmm_backward': (None, [_pointer] * 5 + [_int] * 5 + [_float] * 3 + [_int] * 2),
}


def library():
    """The compiled library, built if the cache has none. Raises Unavailable; what failed is not tried again by this process."""
    found = _library()
    if isinstance(found, Unavailable):
        raise found
    return found


@functools.cache
def _library():
    try:
        path = build()
        try:
            loaded = ctypes.CDLL(str(path))
        except OSError:  # a file cut short, or linked against a library that is gone
            path.unlink()
            loaded = ctypes.CDLL(str(build()))
    except Unavailable as why:
        return why
    except OSError as error:
        return Unavailable(f'the compiled code of inr/ops cannot be loaded: {error}')
    for name, (result, arguments) in FUNCTIONS.items():
        getattr(loaded, name).restype, getattr(loaded, name).argtypes = result, arguments
    for index, structure in enumerate((Layer, Features, Block)):
        if loaded.fmm_size_of(index) != ctypes.sizeof(structure):
            return Unavailable(f'the compiled code of inr/ops has another {structure.__name__} than native.py')
    return loaded


def pointer(tensor, dtype=torch.float32, count=None):
    """The address of a tensor's numbers for the compiled code, 0 for None: the one way from tensors to it.

    count: numbers that there must be, None for any
    Raises ValueError for a tensor that is not contiguous on the CPU, of another type or another size: the code would read something else.
    """
    if tensor is None:
        return 0
    plain = tensor.device.type == 'cpu' and tensor.layout == torch.strided and tensor.is_contiguous() and not tensor.is_neg()
    if not plain or tensor.dtype != dtype or (count is not None and tensor.numel() != count):
        wanted = f'{"" if count is None else f"{count} "}numbers of {dtype}, contiguous on the CPU'
        found = f'{"" if tensor.is_contiguous() else "strided "}{list(tensor.shape)} of {tensor.dtype} on {tensor.device}'
        raise ValueError(f'compiled code reads {wanted}, not {found}')
    return tensor.data_ptr()


def build(folder=None):
    """Path of the library, compiled if it is not there. folder: of the cache, default torch's. Raises Unavailable."""
    flags = [*FLAGS, '-mcpu=native' if platform.machine() in ('arm64', 'aarch64') else '-march=native']
    flags += ['-fsanitize=address', '-g'] if os.environ.get('INR_OPS_ASAN') else []
    compiler = _compiler()
    text = b''.join(path.read_bytes() for path in (*SOURCES, HEADER))
    digest = hashlib.sha256(text + repr([flags, _processor(), platform.libc_ver(), *map(_identity, compiler)]).encode()).hexdigest()[:16]
    folder = Path(folder) if folder else _cache_folder()
    target = folder / f'inr_ops_{digest}' / 'inr_ops.so'
    try:
        if _is_own(target):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:  # renamed when whole: others may be building it too
            built = Path(scratch) / target.name
            for openmp in OPENMP:
                problem = _compile([*compiler, *flags, *openmp], built)
                if problem is None:
                    break
            else:
                raise Unavailable(f'{" ".join(compiler)} could not build the CPU code of inr/ops: {problem}')
            for path in (target.parent, built):
                path.chmod(0o700)
            os.replace(built, target)
        _is_own(target)
    except OSError as error:
        raise Unavailable(f'{folder} cannot hold compiled code ({error.strerror}): set TORCH_EXTENSIONS_DIR to a folder that can') from None
    return target


def _cache_folder():
    """Where torch keeps extensions."""
    if chosen := os.environ.get('TORCH_EXTENSIONS_DIR'):
        return Path(chosen)
    try:
        cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    except RuntimeError:  # neither HOME nor an entry in the list of users
        raise Unavailable('there is no home directory to keep compiled code in: set TORCH_EXTENSIONS_DIR to a folder') from None
    return Path(cache) / 'torch_extensions'


def _compiler():
    """The words that call the compiler: CXX, which may be more than one ('ccache g++'), or the first of COMPILERS that there is."""
    named = os.environ.get('CXX')
    for command in [named] if named else COMPILERS:
        words = shlex.split(command)
        if words and all(shutil.which(word) for word in words if not word.startswith('-')):
            return words
    raise Unavailable(f'no C++ compiler found ({named or ", ".join(COMPILERS)}): install one (Debian, Ubuntu: sudo apt install g++)')


def _identity(word):
    """What tells a program from its next version: where it is, its size and its time."""
    found = shutil.which(word)
    if found is None:
        return word
    status = os.stat(found)
    return os.path.realpath(found), status.st_size, status.st_mtime_ns


def _is_own(target):
    """Whether a file is there; Unavailable if it or its folder is somebody else's or others may write there: it is code that we run."""
    if not target.exists():
        return False
    for path in (target, target.parent):
        status = path.stat()
        if hasattr(os, 'getuid') and (status.st_uid != os.getuid() or status.st_mode & 0o022):
            raise Unavailable(f'{path} is not used: it belongs to another user or others may write there; remove it')
    return True


def _compile(command, built):
    """Compiles the sources, all at once, and links them. Returns the first line of what went wrong, or None."""
    parts = [built.with_name(f'{source.name}.o') for source in SOURCES]
    started = [
        subprocess.Popen([*command, '-c', str(source), '-o', str(part)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for source, part in zip(SOURCES, parts, strict=True)
    ]
    said = [process.communicate()[1] for process in started]
    if not any(process.returncode for process in started):
        linked = subprocess.run([*command, '-shared', *map(str, parts), '-o', str(built)], capture_output=True, text=True)
        started, said = [linked], [linked.stderr]
    failed = [text for process, text in zip(started, said, strict=True) if process.returncode]
    return (failed[0].strip().splitlines() or ['the compiler says nothing'])[0] if failed else None


def _processor():
    """What code built with the native flag depends on."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return platform.machine() + next(line for line in lines if line.startswith(('flags', 'Features')))
    except (OSError, StopIteration):
        return f'{platform.machine()} {platform.processor()} {platform.node()}'
