"""Tests of the CUDA kernels against plain PyTorch: values, first and second order, on a GPU where there is one and without.

Without a GPU the same .cu files, compiled by g++, run on the CPU under the same Python code: a turn of a loop for each thread.
"""

import ctypes
import itertools
import os
import shutil
import subprocess

import pytest
import torch

from torch_utils.ops import bias_act, native, upfirdn2d
from training.networks import Discriminator, Generator

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
ACTS = list(bias_act.activation_funcs)


@pytest.fixture(scope='session')
def emulation(tmp_path_factory):
    """The operators as g++ compiles them: {name: function}."""
    folder = tmp_path_factory.mktemp('emulation')
    gxx = shutil.which('g++')
    if gxx is None:
        pytest.skip('there is no g++')
    half = subprocess.run([gxx, '-x', 'c++', '-fsyntax-only', '-'], input='_Float16 x;', capture_output=True, text=True)
    if half.returncode:
        pytest.skip('this g++ has no _Float16')
    operators = {}
    for source in native.SOURCES:
        done = subprocess.run(
            [gxx, '-x', 'c++', '-std=c++17', '-O1', '-shared', '-fPIC', '-o', folder / f'{source.stem}.so', source],
            capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        operators[source.stem] = getattr(native.bind(folder / f'{source.stem}.so'), source.stem)
    return operators


@pytest.fixture(params=['emulated', 'gpu'])
def device(request, monkeypatch):
    """Where the test's tensors live; impl='cuda' works there."""
    if request.param == 'gpu':
        if not torch.cuda.is_available():
            pytest.skip('there is no GPU')
        return 'cuda'
    operators = request.getfixturevalue('emulation')

    def call(name, device, *args):
        assert operators[name](*args, 0, None) == 0

    monkeypatch.setattr(native, 'compiled', lambda impl, x: 'cuda' in (impl, os.environ.get('INR_OPS_IMPL')))
    monkeypatch.setattr(native, 'call', call)
    return 'cpu'


def error(actual, expected):
    """||a - b|| / ||b||, 0 / 0 = 0."""
    assert actual.shape == expected.shape
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    return ((actual - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def orders(run, inputs):
    """run(*inputs), its gradients for a fixed dy, and the gradients of a fixed function of those with respect to the inputs and dy."""
    draw = torch.Generator().manual_seed(1)
    inputs = [t.detach().requires_grad_() for t in inputs]

    def noise(t):
        return torch.randn(t.shape, generator=draw, dtype=torch.float64).to(t)

    y = run(*inputs)
    dy = noise(y).requires_grad_()
    first = torch.autograd.grad(y, inputs, dy, create_graph=True)
    total = sum((d * noise(d)).sum() for d in first)
    second = torch.autograd.grad(total, [*inputs, dy], allow_unused=True, materialize_grads=True)
    return [y, *first, *second]


def compare(run, inputs, dtype):
    """impl='cuda' in a dtype against impl='ref' in float64 on the same numbers.

    Half types may also be as wrong as twice impl='ref' in that type: 1 - tanh^2 of a tanh that was rounded is.
    """
    inputs = [t.to(dtype) for t in inputs]
    actual = orders(lambda *t: run(*t, impl='cuda'), inputs)
    expected = orders(lambda *t: run(*t, impl='ref'), [t.double() for t in inputs])
    plain = orders(lambda *t: run(*t, impl='ref'), inputs) if dtype.itemsize == 2 else expected
    for i, (a, e, p) in enumerate(zip(actual, expected, plain, strict=True)):
        assert a.dtype == dtype
        assert error(a, e) <= max(TOLERANCES[dtype] * (1 if i == 0 else 3), 2 * error(p, e)), f'number {i} of {len(actual)}'


# ---- bias_act


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('act', ACTS)
def test_bias_act(act, dtype, device):
    x, b = torch.randn(3, 5, 7, 2, dtype=torch.float64, device=device), torch.randn(5, device=device)
    x, b = (2 * x).to(dtype), b.to(dtype)
    for gain, clamp in ((None, None), (1.3, 1.1), (-0.7, 0.6), (0.0, None)):
        free = bias_act.bias_act(x.double(), b.double(), act=act, gain=gain)
        apart = (free.abs() - (clamp or 9)).abs() > 0.02  # rounding to the clamp's own value is not what is compared
        inputs = [torch.where(apart, x, 0.1 - b[:, None, None]), b]
        compare(lambda x, b, impl: bias_act.bias_act(x, b, act=act, gain=gain, clamp=clamp, impl=impl), inputs, dtype)  # noqa: B023
    compare(lambda x, impl: bias_act.bias_act(x, act=act, impl=impl), [x], dtype)


@pytest.mark.parametrize('alpha', [0.0, 0.3, 1.5, -0.4])
def test_bias_act_takes_any_slope(alpha, device):
    x, b = torch.randn(4, 3, device=device), torch.randn(3, device=device)
    compare(lambda x, b, impl: bias_act.bias_act(x, b, act='lrelu', alpha=alpha, clamp=0.8, impl=impl), [x, b], torch.float64)


@pytest.mark.parametrize('shape,dim', [((7,), 0), ((5, 3), 1), ((5, 3), 0), ((2, 3, 4), -1), ((2, 8, 3, 5), 1), ((1, 9, 1, 1), 1),
                                       ((3, 4, 2, 2), 2), ((2, 1, 3), 1), ((1, 2, 3, 2, 3), 3), ((0, 3), 1), ((33, 64), 1)])
def test_bias_goes_along_dim(shape, dim, device):
    x, b = torch.randn(shape, device=device), torch.randn(shape[dim], device=device)
    for act in ('tanh', 'swish'):
        compare(lambda x, b, impl: bias_act.bias_act(x, b, dim=dim, act=act, impl=impl), [x, b], torch.float32)  # noqa: B023


@pytest.mark.parametrize('act', ['lrelu', 'swish', 'sigmoid'])
def test_bias_act_takes_any_layout(act, device):
    x, b = torch.randn(4, 6, 5, 3, device=device), torch.randn(6, device=device)
    for arrange in (lambda x: x.contiguous(memory_format=torch.channels_last), lambda x: x[1:, :, ::2], lambda x: x[1:, :, 1:],
                    lambda x: x[:1].expand(3, -1, -1, -1), lambda x: x.flatten()[1:].unflatten(0, (-1, 1))[:354].reshape(-1, 6)):

        def run(x, b, impl):
            y = bias_act.bias_act(arrange(x), b, act=act, clamp=1.2, impl=impl)  # noqa: B023
            return y * torch.arange(y.numel(), device=y.device).reshape(y.shape) / y.numel()  # dy in another layout than y

        compare(run, [x, b], torch.float32)
    x = x.contiguous(memory_format=torch.channels_last)
    assert bias_act.bias_act(x, b, act=act, impl='cuda').is_contiguous(memory_format=torch.channels_last)


def test_bias_act_keeps_nan_and_saves_little(device):
    x = torch.tensor([float('nan'), float('inf'), -float('inf')], device=device)
    for act in ('linear', 'relu', 'lrelu'):
        y = bias_act.bias_act(x, act=act, clamp=2, impl='cuda')
        assert y[0].isnan() and y[1] == 2
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        x = torch.randn(3, 2, device=device, requires_grad=True)
        bias_act.bias_act(x, torch.ones(2, device=device), impl='cuda')
        assert saved == []
        y = bias_act.bias_act(x, torch.ones(2, device=device), act='lrelu', impl='cuda')
        assert [t.data_ptr() for t in saved] == [y.data_ptr()]


def test_bias_act_errors(device):
    x = torch.randn(2, 3, device=device, requires_grad=True)
    with pytest.raises(ValueError, match='b has shape .2., x has 3 entries along axis 1'):
        bias_act.bias_act(x, torch.ones(2, device=device), impl='cuda')
    with pytest.raises(ValueError, match='move it there'):
        bias_act.bias_act(x, torch.ones(3, device='meta'), impl='cuda')
    with pytest.raises(ValueError, match='move it there'):
        upfirdn2d.upfirdn2d(x[None, None], torch.ones(1, 1, device='meta'), impl='cuda')
    d = x
    for _ in range(2):
        d, = torch.autograd.grad(bias_act.bias_act(x, act='tanh', impl='cuda').sum() if d is x else d.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match='no third derivative'):
        torch.autograd.grad(d.sum(), x)


# ---- upfirdn2d


def resample(x, f, *args, impl, flip_filter=True, gain=1.7):
    """upfirdn2d, squared, so that the second order has something to see."""
    y = upfirdn2d.upfirdn2d(x, f.to(x.device), *args, flip_filter=flip_filter, gain=gain, impl=impl)
    return y * y.detach().roll(1, -1) + 0.1 * y * y


@pytest.mark.parametrize('taps', [(4, 4), (3, 2), (1, 1), (5, 4), (12,), (8,), (3,)])
@pytest.mark.parametrize('up,down', [*itertools.product((1, 2, 3), repeat=2), ((2, 1), (1, 2)), ((1, 3), (2, 1))])
def test_upfirdn2d(taps, up, down, device):
    f = torch.randn(taps)
    x = torch.randn(2, 3, 11, 9, device=device)
    for n, padding in enumerate([(0, 0, 0, 0), (2, 1, 1, 2), (3, -1, -2, 3), (-1, 5, 4, -3), (-2, 13, 14, -1), (6, 7, 7, 6)]):
        if min(sizes(x, taps, up, padding)) < 0:
            continue
        compare(lambda x, impl: resample(x, f, up, down, padding, impl=impl, flip_filter=n % 2 == 0), [x], torch.float32)  # noqa: B023
    compare(lambda x, impl: resample(x, f.double(), up, down, 6, impl=impl), [x], torch.float64)


def sizes(x, taps, up, padding):
    (upx, upy), (x0, x1, y0, y1) = upfirdn2d.pair(up), padding
    return x.shape[2] * upy + y0 + y1 - taps[0], x.shape[3] * upx + x0 + x1 - taps[-1]


FAST = [((4, 4), 1, 1), ((4, 4), 2, 1), ((4, 4), 1, 2), ((12,), 1, 1), ((12,), 2, 1), ((12,), 1, 2), ((3, 5), 2, 3)]


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('taps,up,down', FAST)
def test_upfirdn2d_dtypes_and_layouts(taps, up, down, dtype, device):
    f = torch.randn(taps)
    x = torch.randn(2, 5, 13, 19, device=device)
    for arrange in (lambda x: x, lambda x: x.contiguous(memory_format=torch.channels_last), lambda x: x[:, ::2, 1:, ::2], lambda x: x.mT,
                    lambda x: x[:1, :1].expand(2, 3, -1, -1)):
        compare(lambda x, impl: upfirdn2d.upfirdn2d(arrange(x), f.to(x.device), up, down, 5, impl=impl), [x], dtype)  # noqa: B023
    x = x.contiguous(memory_format=torch.channels_last)
    assert upfirdn2d.upfirdn2d(x, f.to(device), up, down, 5, impl='cuda').is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('taps,up,down', FAST)
def test_upfirdn2d_small_and_empty(taps, up, down, device):
    f = torch.rand(taps)
    for shape in ((1, 1, 1, 1), (3, 1, 2, 1), (1, 4, 1, 3), (0, 3, 4, 4)):
        x = torch.randn(shape, device=device)
        compare(lambda x, impl: resample(x, f, up, down, (5, 7, 6, 5), impl=impl), [x], torch.float32)


def test_pixels_the_filter_does_not_meet_are_not_read(device):
    x = torch.full((1, 1, 9, 9), float('inf'), device=device)
    x[..., 2:7, 2:7] = 1
    for taps, up, down in FAST[:3]:
        f = torch.ones(taps, device=device)
        y = upfirdn2d.upfirdn2d(x, f, up, down, impl='cuda').cpu()
        assert torch.equal(y, upfirdn2d.upfirdn2d(x.cpu(), f.cpu(), up, down, impl='ref')) and y.isfinite().any()


def test_helpers_pass_impl_on(device):
    x, f = torch.randn(1, 2, 8, 8, device=device), upfirdn2d.setup_filter([1, 3, 3, 1], device=device)
    for helper in (upfirdn2d.filter2d, upfirdn2d.upsample2d, upfirdn2d.downsample2d):
        assert error(helper(x, f, impl='cuda'), helper(x, f, impl='ref')) < 1e-6
    assert torch.equal(upfirdn2d.upfirdn2d(x, None, impl='cuda'), x)


def test_sizes_too_large_are_refused(emulation):
    sizes = (ctypes.c_longlong * 4)(1 << 16, 1 << 16, 1, 1)
    shape = (ctypes.c_int * 9)(*[1] * 6, 0, 0, 0)
    assert emulation['upfirdn2d'](0, None, sizes, sizes, None, None, sizes, sizes, shape, 1.0, 0, None) == 1
    assert emulation['bias_act'](0, 0, 9, None, None, None, None, 0, None, 1, 1, 1, 0.0, 1.0, -1.0, 0, None) == 1  # no such dtype


# ---- Whole networks


@pytest.mark.parametrize('architecture', ['resnet', 'skip'])
def test_r1_and_path_length_through_the_networks(architecture, device, monkeypatch):
    """The gradients of both regularizers, which are of second order, with every operator by the kernels."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    D = Discriminator(0, 16, 3, architecture=architecture, channel_base=256, channel_max=16).to(device)
    G = Generator(8, 0, 8, 16, 3, synthesis_kwargs={'channel_base': 256, 'channel_max': 16}).to(device)
    image, z = torch.randn(4, 3, 16, 16, device=device), torch.randn(4, 8, device=device)

    def gradients(impl):
        monkeypatch.setenv('INR_OPS_IMPL', impl)
        real = image.clone().requires_grad_()
        slope, = torch.autograd.grad(D(real, None).sum(), real, create_graph=True)
        ws = G.mapping(z, None)
        path, = torch.autograd.grad((G.synthesis(ws, noise_mode='const') * image).sum(), ws, create_graph=True)
        loss = slope.square().sum() + path.square().sum()
        weights = [*D.parameters(), *G.parameters()]
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)])

    assert error(gradients('cuda'), gradients('ref')) < 1e-4
