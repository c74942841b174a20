"""The GPU's kernels of an FMM layer against plain operators: on a GPU if there is one, else by Triton's interpreter on the CPU.

The interpreter knows no bfloat16 (it multiplies its bits as integers); for that type the kernels are compiled here and run on a GPU.
"""

import contextlib
import json
import os
import subprocess
import sys
import warnings
from unittest import mock

import numpy as np
import pytest
import torch

from inr import ops
from inr.generator import Generator, from_inr_gan
from inr.ops import dispatch, native
from inr.ops.layer import Activation
from tests.helpers import ROOT, relative_error
from tests.inr.ops.layer_cases import CASES, Case, named

pytest.importorskip('triton', reason='Triton has no wheel for this system')

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * torch.cuda.is_available()
SHARED = {'75': 64, '80': 163, '86': 99, '89': 99, '90': 227}  # KiB a block of threads may have


@pytest.fixture(autouse=True)
def on_this_device(monkeypatch):
    """impl='cuda' is taken on a CPU too, by the interpreter that tests/conftest.py asks for; float32 is multiplied in full."""
    dispatch._tried.cache_clear()
    dispatch._warn.cache_clear()
    tf32, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, False
    if DEVICE == 'cpu':
        refused = dispatch._why_not
        monkeypatch.setattr(dispatch, '_why_not', lambda impl, *args: None if impl == 'cuda' else refused(impl, *args))
        with contextlib.suppress(ImportError):  # where a test hides triton
            from inr.ops import layer_triton

            quick = dict(BM=64, BN=128, BK=64, num_warps=4, num_stages=1)  # the interpreter's time goes by steps, not by their size
            monkeypatch.setattr(layer_triton, 'tile_sizes', lambda *_: quick)
    yield
    torch.backends.cuda.matmul.allow_tf32 = tf32
    dispatch._tried.cache_clear()
    dispatch._warn.cache_clear()


@pytest.mark.parametrize('dtype, case', [(dtype, case) for dtype in DTYPES for case in CASES[:: 1 if dtype == torch.float32 else 2]],
                         ids=lambda value: named(value) if isinstance(value, Case) else str(value))  # fmt: skip
def test_outputs_and_gradients(dtype, case):
    case.check('cuda', dtype, DEVICE)


def test_tf32_rounds_its_factors():
    """To nearest, as PyTorch's own products do: numbers halfway up would all lose, and layer after layer the contrast."""
    from inr.ops import layer_triton

    def rounded(v):  # 10 bits behind the point
        mantissa, exponent = torch.frexp(v.double())
        return torch.ldexp((mantissa.abs() * 2**11 + 0.5).floor() / 2**11 * mantissa.sign(), exponent)

    torch.backends.cuda.matmul.allow_tf32 = True
    random = torch.Generator().manual_seed(4)
    weight, x = (torch.rand(shape, generator=random).add_(0.5).to(DEVICE) for shape in ((1, 17, 40), (1, 40, 5, 7)))
    assert layer_triton.precision() == 'tf32'
    y = layer_triton.forward(weight, None, x, None, None, None, Activation(1.0, 1.0))
    exact = torch.einsum('noc,nchw->nohw', weight.double(), x.double())
    factors = torch.einsum('noc,nchw->nohw', rounded(weight), rounded(x))
    assert relative_error(y, factors) < 1e-6 and abs((y.double() / exact).mean().item() - 1) < 2e-5
    assert torch.isnan(layer_triton.forward(weight * float('nan'), None, x, None, None, None, Activation(1.0, 1.0))).all()


def test_what_lies_behind_a_tensor_has_no_part_in_it():
    """NaN, which a factor of zero does not hide."""
    from inr.ops import layer_triton

    def before_nan(*shape):
        numbers = torch.randn(shape)
        return torch.cat([numbers.flatten(), torch.full([4096], float('nan'))]).to(DEVICE)[: numbers.numel()].view(shape)

    weight, bias, x = before_nan(1, 16, 16), before_nan(16), before_nan(1, 16, 3, 5)
    y = layer_triton.forward(weight, bias, x, None, None, None, Activation(1.0, 1.0))
    assert relative_error(y, torch.einsum('noc,nchw->nohw', weight, x) + bias[:, None, None]) < 1e-6
    dz, db, _ = layer_triton.backward(before_nan(1, 2, 3, 5), before_nan(1, 2, 3, 5), Activation(0.2, 1.0), None)
    assert dz.isfinite().all() and relative_error(db, dz.sum([2, 3])) < 1e-6


def test_nothing_is_written_behind_a_tensor(monkeypatch):
    from inr.ops import layer_triton

    behind = []

    def before_sevens(shape, dtype=torch.float32, device=None):
        buffer = torch.full([int(np.prod(shape)) + 4096], 7, dtype=dtype, device=device)
        behind.append(buffer[-4096:])
        return buffer[:-4096].view(shape)

    weight, x, dy = (torch.randn(shape, device=DEVICE) for shape in ((2, 5, 16), (2, 16, 3, 5), (2, 5, 6, 10)))
    parent = torch.randn(2, 5, 3, 5, device=DEVICE)
    monkeypatch.setattr(torch, 'empty', before_sevens)
    monkeypatch.setattr(torch, 'empty_like', lambda like: before_sevens(like.shape, like.dtype, like.device))
    layer_triton.forward(weight, None, x, None, None, None, Activation(0.2, 1.0))
    layer_triton.forward(weight[:, :, :0], None, None, None, parent, 'nearest', Activation(0.2, 1.0))
    layer_triton.backward(dy, dy, Activation(0.2, 1.0), 'nearest')
    assert len(behind) == 4 and all((part == 7).all() for part in behind)


@pytest.mark.parametrize('case', CASES[::3], ids=named)
def test_second_order(case):
    case.check_second_order('cuda', DEVICE)


@pytest.mark.parametrize('rank', [1, 3, 17])
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_modulated_weights(rank, dtype):
    G = Generator(8, 0, 12, 16, 3, synthesis_kwargs=dict(channel_base=10**6, channel_max=21, fmm_rank=rank)).to(DEVICE)
    layer = G.synthesis.b16.layers[0]
    weights = layer.weights(torch.randn(3, 12, device=DEVICE))
    with torch.no_grad():
        expected, found = (dispatch.materialize(weights, dtype, impl) for impl in ('ref', 'cuda'))
    assert found.dtype == dtype and found.stride(1) % 16 == 0
    assert relative_error(found, weights.materialize()) < 1.01 * relative_error(expected, weights.materialize()) + 1e-6


@pytest.mark.parametrize('options', [{}, dict(fmm_rank=None), dict(conv_clamp=0.5, num_fp16_res=1)], ids=str)
def test_images_and_gradients_of_a_generator(options):
    G = Generator(8, 0, 12, 16, 3, synthesis_kwargs={'channel_base': 10**6, 'channel_max': 13, 'fmm_rank': 3, **options}).to(DEVICE)
    ws = torch.randn(2, G.num_ws, 12, device=DEVICE, requires_grad=True)
    images = {impl: G.synthesis(ws, impl=impl) for impl in ('ref', 'cuda')}
    grads = {impl: torch.autograd.grad(image.square().sum(), [ws, *G.synthesis.parameters()]) for impl, image in images.items()}
    allowed = 1e-2 if 'num_fp16_res' in options else 1e-5
    assert relative_error(images['cuda'], images['ref']) < allowed
    assert all(relative_error(*pair) < 10 * allowed for pair in zip(grads['cuda'], grads['ref'], strict=True))
    with torch.no_grad():
        assert relative_error(G.synthesis(ws, impl='cuda'), images['ref']) < allowed


@pytest.mark.parametrize('name', ['inr_gan_64', 'inr_gan_64_tanh_cond', 'cips_32'])
@torch.no_grad()
def test_images_of_the_public_implementation(name):
    stored = np.load(ROOT / f'tests/data/parity/{name}.npz')
    state = {key[2:]: torch.from_numpy(stored[key]) for key in stored.files if key.startswith('G.')}
    G = from_inr_gan(json.loads(str(stored['config'])), state).eval().to(DEVICE)
    image = G.synthesis(torch.from_numpy(stored['ws'][:1]).to(DEVICE), noise_mode='const', impl='cuda')
    assert relative_error(image, stored['img'][:1]) < 1e-5


@pytest.mark.parametrize('arch, types', [('75', ('ieee',)), ('80', ('tf32', 'bf16')), ('86', ('bf16',)), ('89', ('fp16',)),
                                         ('90', ('ieee', 'tf32', 'bf16', 'fp16'))])  # fmt: skip
def test_kernels_compile_for_every_architecture(arch, types, tmp_path):
    env = {name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'}
    env |= dict(TRITON_CACHE_DIR=str(tmp_path), PYTHONPATH=str(ROOT))
    command = [sys.executable, 'tests/inr/ops/compile_layer.py', arch, *types]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 3 * len(types)
    for name, needs in found.items():
        assert needs['shared'] <= SHARED[arch] * 1024, name
        layer, tensor_cores = name.startswith('layer'), not name.endswith('ieee') and arch != '75'
        expected = (['wgmma' if arch == '90' else 'mma.sync'] if tensor_cores else []) + (['cp.async'] if arch != '75' else [])
        assert needs['instructions'] == (expected if layer else []), name  # tiles are loaded ahead, and multiplied by tensor cores


def test_a_missing_triton_is_named(monkeypatch):
    monkeypatch.delattr(ops, 'layer_triton', raising=False)
    monkeypatch.delitem(sys.modules, 'inr.ops.layer_triton', raising=False)
    monkeypatch.setitem(sys.modules, 'triton', None)
    refused('triton is missing .*pip install triton', monkeypatch)


def test_a_compiler_that_fails_is_named(monkeypatch):
    from inr.ops import layer_triton

    def fails(*_):
        raise RuntimeError('Failed to find C compiler.\nPlease specify via CC')

    monkeypatch.setattr(layer_triton, 'forward', fails)
    refused('cannot compute in torch.float32 on .*: Failed to find C compiler.; it needs a C compiler', monkeypatch)


def test_half_precision_on_old_gpus_is_left_to_the_library(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device=None: (7, 5))
    assert 'older than sm_80' in str(dispatch._tried(torch.device('cuda'), torch.float16))


def test_memory_that_is_full_is_no_reason_against_the_kernels(monkeypatch):
    from inr.ops import layer_triton

    with monkeypatch.context() as patch:
        patch.setattr(layer_triton, 'forward', mock.Mock(side_effect=torch.cuda.OutOfMemoryError('no room')))
        with pytest.raises(torch.cuda.OutOfMemoryError):
            dispatch._tried(torch.device(DEVICE), torch.float32)
    assert dispatch._tried(torch.device(DEVICE), torch.float32) is layer_triton


def refused(why, monkeypatch):
    """A forced 'cuda' says why in one line, 'auto' warns once and goes on."""
    weight, x = torch.randn(1, 3, 4, device=DEVICE), torch.randn(1, 4, 2, 2, device=DEVICE)
    with pytest.raises(native.Unavailable, match=why) as error:
        dispatch.layer(weight, x=x, impl='cuda')
    assert '\n' not in str(error.value)
    with pytest.warns(UserWarning, match=why) as seen:
        assert dispatch._find(lambda: dispatch._triton(x.device, x.dtype), forced=False) is None
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert dispatch._find(lambda: dispatch._triton(x.device, x.dtype), forced=False) is None
