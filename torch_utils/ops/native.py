"""Builds the CUDA operators at their first use, keeps them in a cache, calls them. Needs nvcc and a C++ compiler, not torch's headers.

The kernels are in bias_act.cu and upfirdn2d.cu; docs/gpu.md tells where what lies and how it is tested without a GPU.
"""

import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import warnings
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from dnnlib.util import UserError, atomic_path

FOLDER = Path(__file__).parent
SOURCES = [FOLDER / name for name in ('bias_act.cu', 'upfirdn2d.cu')]
HEADER = FOLDER / 'portable.cuh'
FLAGS = ['-shared', '-O3', '-std=c++17', '-Xcompiler', '-fPIC', '--threads', '2']
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # in the order of dispatch() in portable.cuh
IMPLS = ('auto', 'ref', 'cuda')

_int, _real, _pointer = ctypes.c_int, ctypes.c_double, ctypes.c_void_p
_long, _longs, _ints = ctypes.c_longlong, ctypes.POINTER(ctypes.c_longlong), ctypes.POINTER(ctypes.c_int)
SIGNATURES = {  # as in the .cu files; each ends with the device's number and the stream, and returns a cudaError_t
    'bias_act': [_int] * 3 + [_pointer] * 4 + [_int, _pointer] + [_long] * 3 + [_real] * 3 + [_int, _pointer],
    'upfirdn2d': [_int, _pointer, _longs, _longs, _pointer, _pointer, _longs, _longs, _ints, _real, _int, _pointer],
}


class NativeError(UserError, RuntimeError):
    """The compiled operators are not available; one line that says why and what to do."""


# ---- Which implementation


def compiled(impl: str, x: torch.Tensor) -> bool:
    """Whether the compiled operators compute on x.

    impl: 'ref': no; 'cuda': yes, or NativeError; 'auto': if x is on a GPU and they are available, else no, with one warning where they
          should have been. INR_OPS_IMPL=ref or =cuda in the environment is what 'auto' then means.
    Raises ValueError for any other impl.
    """
    if impl == 'auto':
        impl = os.environ.get('INR_OPS_IMPL') or 'auto'
    if impl not in IMPLS:
        raise ValueError(f"impl={impl!r} is not known: use 'auto', 'ref' or 'cuda'")
    if impl == 'cuda':
        if not x.is_cuda:
            raise NativeError(f"impl='cuda' needs a tensor on a CUDA device, this one is on {x.device}: move it, or use impl='auto'")
        if x.dtype not in DTYPES:
            raise NativeError(f"impl='cuda' knows float16, bfloat16, float32 and float64, not {x.dtype}: convert it, or use impl='ref'")
        library(x.device)
        return True
    return impl == 'auto' and x.is_cuda and x.dtype in DTYPES and _available(x.device)


@functools.cache
def _available(device: torch.device) -> bool:
    try:
        library(device)
    except NativeError as err:
        warnings.warn(f'the CUDA operators are not used, plain PyTorch is, which is slower: {err}', stacklevel=4)
        return False
    return True


def call(name: str, device: torch.device, *args: object) -> None:
    """Runs an operator of the library on a device's current stream; args as in the .cu file, without the device and the stream."""
    if code := _start(library(device), name, device, args):
        raise RuntimeError(f'{name}: the kernel was not started, CUDA error {code}')


def _start(loaded: ctypes.CDLL, name: str, device: torch.device, args: Sequence[object]) -> int:
    with torch.cuda.device(device):
        return getattr(loaded, name)(*args, device.index, torch.cuda.current_stream(device).cuda_stream)


# ---- Building


@functools.cache
def library(device: torch.device) -> ctypes.CDLL:
    """The compiled operators for a device, built if need be. Raises NativeError."""
    path = build(architectures(device))
    try:
        loaded = bind(path)
    except OSError:  # a file cut short, or linked against a library that is gone: once more
        path.unlink()
        try:
            loaded = bind(build(architectures(device)))
        except OSError as err:
            raise NativeError(f'{path} cannot be loaded ({err}): remove its folder, it is built again') from err
    one = torch.zeros(1, device=device)
    if code := _start(loaded, 'bias_act', device, (0, 0, 0, one.data_ptr(), None, None, None, 0, one.data_ptr(), 1, 1, 1, 0, 1, -1)):
        raise NativeError(f'{path} does not run on {device} (CUDA error {code}): is the driver as new as the toolkit, and is '
                          f"TORCH_CUDA_ARCH_LIST unset or naming this GPU? impl='ref' does without")
    return loaded


def bind(path: Path) -> ctypes.CDLL:
    """Loads a library and tells ctypes what its functions take."""
    loaded = ctypes.CDLL(str(path))
    for name, argtypes in SIGNATURES.items():
        if hasattr(loaded, name):
            getattr(loaded, name).argtypes = argtypes
    return loaded


def architectures(device: torch.device | None) -> tuple[str, ...]:
    """What to compile for, for example ('90',): $TORCH_CUDA_ARCH_LIST ('8.0 9.0') where it is set, else what the device is."""
    listed = os.environ.get('TORCH_CUDA_ARCH_LIST')
    if not listed or listed == 'native':
        return (''.join(map(str, torch.cuda.get_device_capability(device))),)
    names = [name.removesuffix('+PTX') for name in re.split('[ ;]+', listed.strip(' ;'))]
    if not all(re.fullmatch(r'\d+\.\d[a-z]?', name) for name in names):
        raise NativeError(f"TORCH_CUDA_ARCH_LIST='{listed}' is not a list of numbers: write it like '8.0 9.0', or unset it")
    return tuple(dict.fromkeys(name.replace('.', '') for name in names))


def build(archs: Sequence[str]) -> Path:
    """The path of the library for these architectures, compiled where the cache does not hold it. Raises NativeError.

    archs: ('80', '90') for compute capabilities 8.0 and 9.0; the last one is also kept as PTX, for later GPUs
    """
    command = [find_nvcc(), *FLAGS, *_host_compiler(), *gencode(archs)]
    files = [*SOURCES, HEADER]
    identity = [*(file.read_bytes() for file in files), repr(command).encode(), _version(command[0]), platform.machine().encode()]
    digest = hashlib.sha256(b'\0'.join(identity)).hexdigest()[:16]
    folder = cache_folder() / f'inr_gan_ops_{digest}'
    path, log = folder / 'ops.so', folder / 'nvcc.log'
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(folder / 'lock'):  # the others wait and then find it
            if path.exists():
                _check_own(path)
                return path
            with atomic_path(path) as temporary:
                done = subprocess.run([*command, '-o', temporary, *SOURCES], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                      start_new_session=True)  # where the Ctrl-C that ends a run does not reach it
                log.write_bytes(done.stdout)
                if done.returncode:
                    raise NativeError(f"{command[0]} could not compile the CUDA operators: {log} says why; impl='ref' does without")
            path.chmod(0o700)
    except OSError as err:
        place = f'the CUDA operators cannot be kept in {folder} ({err.strerror})'
        raise NativeError(f'{place}: set TORCH_EXTENSIONS_DIR to another place') from err
    return path


def _check_own(path: Path) -> None:
    """Raises NativeError for code to be run that is somebody else's, or where others may write."""
    for each in (path, path.parent):
        status = each.stat()
        if hasattr(os, 'getuid') and (status.st_uid != os.getuid() or status.st_mode & 0o022):
            raise NativeError(f'{each} is not used: it belongs to another user or others may write there; remove it')


def gencode(archs: Sequence[str]) -> list[str]:
    """nvcc's options for a list of architectures."""
    machine = [f'-gencode=arch=compute_{arch},code=sm_{arch}' for arch in archs]
    return [*machine, f'-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}']


def find_nvcc() -> str:
    """$CUDA_HOME/bin/nvcc, $CUDA_PATH/bin/nvcc, the one in PATH, the one in /usr/local/cuda. Raises NativeError if there is none."""
    homes = [os.environ[name] for name in ('CUDA_HOME', 'CUDA_PATH') if os.environ.get(name)]
    for candidate in (*(f'{home}/bin/nvcc' for home in homes), 'nvcc', '/usr/local/cuda/bin/nvcc'):
        if found := shutil.which(candidate):
            return found
    raise NativeError("nvcc is missing: install NVIDIA's CUDA toolkit and put nvcc in PATH or set CUDA_HOME, or use impl='ref'")


def cache_folder() -> Path:
    """Where torch keeps extensions: $TORCH_EXTENSIONS_DIR, else torch_extensions/ under $XDG_CACHE_HOME or ~/.cache."""
    if chosen := os.environ.get('TORCH_EXTENSIONS_DIR'):
        return Path(chosen).absolute()
    try:
        return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'torch_extensions'
    except RuntimeError as err:  # neither HOME nor an entry in the list of users
        raise NativeError('there is no home directory to keep compiled code in: set TORCH_EXTENSIONS_DIR to a folder') from err


def _host_compiler() -> list[str]:
    """nvcc's option that names the C++ compiler, $CXX or g++."""
    wanted = os.environ.get('NVCC_CCBIN') or os.environ.get('CXX') or 'g++'
    words = shlex.split(wanted)  # 'ccache g++': nvcc takes the compiler alone
    if words and (found := shutil.which(words[-1])):
        return ['-ccbin', found]
    raise NativeError(f"the C++ compiler {wanted} is missing: install g++ or name another in CXX (nvcc needs one), or use impl='ref'")


def _version(nvcc: str) -> bytes:
    try:
        return subprocess.run([nvcc, '--version'], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as err:
        raise NativeError(f"{nvcc} does not run ({err}): repair the CUDA toolkit, or use impl='ref'") from err


@contextmanager
def _alone(lock: Path):
    """Holds a lock file; the system lets go of it when the process ends, however it ends. Without locks, renaming keeps the file whole."""
    with lock.open('w') as file:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
