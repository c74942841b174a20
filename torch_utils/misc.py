"""Small helpers: counting what modules have, allocator, TF32, what the machine can do."""

import ctypes
import sys

import torch

from dnnlib.util import UserError


def keep_freed_memory():
    """From now on memory that this process frees stays with it, so that a step that takes what the last one left meets no page faults.

    glibc hands large blocks back to the system at once and gets them anew, emptied, page by page. Returns whether it could be told so:
    only glibc can, and only blocks up to 32 MiB (malloc's limit) are kept.
    """
    if not sys.platform.startswith('linux'):
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    trim_threshold, mmap_threshold = -1, -3  # names in malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    return mallopt is not None and bool(mallopt(mmap_threshold, 32 << 20)) and bool(mallopt(trim_threshold, 2**31 - 1))


def allow_tf32(allowed):
    """Whether float32 products and convolutions on a GPU may round their factors to TF32, which keeps 10 of 23 bits.

    Left alone, PyTorch lets convolutions do so. Products of half types are summed in float32 either way: left alone, parts of their sums
    may be added in the half type itself.
    """
    matmul = torch.backends.cuda.matmul
    matmul.allow_fp16_reduced_precision_reduction = matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def multiplies_bfloat16():
    """Whether the CPU has instructions for products of bfloat16 of which it is known that they pay: AVX-512's or AMX."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get('avx512_bf16') or capabilities.get('amx_bf16'))


def pick_device(name='auto', tf32=False):
    """The torch device of --device: 'auto' takes a GPU if there is one. Raises UserError for one that is not there.

    tf32: see allow_tf32
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == 'auto':
        name = 'cuda' if count else 'cpu'
    known = ['cpu', *(['cuda'] if count else []), *(f'cuda:{i}' for i in range(count))]
    if name not in known:
        raise UserError(f'--device={name}: this machine has {", ".join(known)}')
    allow_tf32(tf32)
    return torch.device(name)


def size_of(network):
    """(width, height) of the images of a generator or a discriminator; those of forks have squares alone and do not say so."""
    return tuple(getattr(network, 'img_size', None) or (network.img_resolution,) * 2)


def count_parameters(module):
    """Number of scalars in a module's parameters, a shared one counted once."""
    return sum(p.numel() for p in module.parameters())


def count_macs(run):
    """Multiply-accumulates of the matrix products and convolutions in `run()`; on the meta device they are counted without being done."""
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton where it is installed: a tenth of a second

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2
