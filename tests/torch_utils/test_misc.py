"""Tests of torch_utils.misc."""

import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.helpers import ROOT
from torch_utils import misc


def net(width, extra=False):
    """A small module with parameters, a persistent and a derived buffer."""
    module = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))
    module.register_buffer('derived', torch.zeros(2), persistent=False)
    if extra:
        module.append(nn.Linear(width, 1))
    return module


def test_counts_parameters_not_buffers():
    assert misc.count_parameters(net(4)) == 3 * 4 + 4 + 4 + 4


@pytest.mark.parametrize('allowed', [False, True])
def test_half_products_are_summed_in_float32_and_tf32_is_as_said(allowed):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    flags = [(matmul, 'allow_fp16_reduced_precision_reduction'), (matmul, 'allow_bf16_reduced_precision_reduction'),
             (matmul, 'allow_tf32'), (cudnn, 'allow_tf32')]
    before = [getattr(*flag) for flag in flags]
    try:
        for flag, value in zip(flags, [True, True, not allowed, not allowed], strict=True):
            setattr(*flag, value)
        misc.allow_tf32(allowed)
        assert [getattr(*flag) for flag in flags] == [False, False, allowed, allowed]
    finally:
        for flag, value in zip(flags, before, strict=True):
            setattr(*flag, value)


@pytest.mark.parametrize('capabilities, expected', [({'avx512_bf16': True}, True), ({'avx512_bf16': False, 'amx_bf16': True}, True),
                                                     ({'avx2': True, 'avx512_f': True}, False), ({'bf16': True}, False)])
def test_which_cpus_multiply_bfloat16(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: capabilities)
    assert misc.multiplies_bfloat16() is expected


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='only glibc can be told')
@pytest.mark.parametrize('told', [False, True])
def test_freed_memory_is_kept(told):
    """64 blocks of 8 MiB, freed: the process holds them still, or has given most of them back."""
    code = f"""
import psutil, torch
from torch_utils import misc
assert not {told} or misc.keep_freed_memory()
before = psutil.Process().memory_info().rss
blocks = [torch.ones(2**21) for _ in range(64)]
del blocks
print((psutil.Process().memory_info().rss - before) >> 20)
"""
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 450 if told else int(done.stdout) < 200
