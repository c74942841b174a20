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


def test_copies_everything_that_fits_and_tells_the_rest():
    src, dst = net(4, extra=True), net(4)
    src[1].running_mean += 5
    report = misc.copy_params_and_buffers(src, dst)
    assert report.unused == ('2.weight', '2.bias') and report.missing == () and report.mismatched == ()
    assert torch.equal(dst[0].weight, src[0].weight) and torch.equal(dst[1].running_mean, torch.full([4], 5.0))
    assert str(report) == '7 tensors copied; 2 of the source unused: 2.weight, ...'
    assert dst[0].weight.requires_grad


def test_leaves_other_shapes_alone():
    dst = net(5)
    before = dst[0].weight.clone()
    report = misc.copy_params_and_buffers(net(4).state_dict(), dst)
    assert '0.weight' in report.mismatched and report.matched == ('1.num_batches_tracked',)
    assert torch.equal(dst[0].weight, before)


def test_strict_writes_nothing_unless_all_fits():
    dst = net(4)
    before = dst[0].weight.clone()
    with pytest.raises(ValueError, match='2 of the source unused'):
        misc.copy_params_and_buffers(net(4, extra=True), dst, strict=True)
    assert torch.equal(dst[0].weight, before)
    with pytest.raises(ValueError, match='2 not in the source'):
        misc.copy_params_and_buffers(net(4), net(4, extra=True), strict=True)
    assert misc.copy_params_and_buffers(net(4), dst, strict=True).missing == ()


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
