"""One FMM layer: fused kernels against plain operators in float64, outputs and every gradient, and who computes it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from inr import grid, refinement
from inr.ops import dispatch
from inr.refinement import UPSAMPLINGS, ParentUpsample
from tests.helpers import needs_compiled_code, relative_error
from tests.inr.ops.layer_cases import CASES, Case, named
from torch_utils.misc import count_macs
from training.memory import saved_bytes

needs_compiled_code(allow_module_level=True)


@pytest.mark.parametrize('case', CASES, ids=named)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_outputs_and_gradients(case, dtype):
    case.check('fused', dtype)


@pytest.mark.parametrize('case', CASES[::3], ids=named)
def test_second_order(case):
    case.check_second_order('fused')


def test_gradients_are_the_slopes_of_the_output():
    """Against differences, with the plain operators left out: float64 inputs cast to float32 around the layer would be too coarse."""
    case = Case(images=1, rows=3, below=2, features=2, size=(2, 2))
    tensors = case.tensors(torch.float64)
    names = [name for name, tensor in tensors.items() if tensor is not None]
    leaves = [tensors[name].requires_grad_() for name in names]

    def run(*values):
        return dispatch.layer(**dict(zip(names, values, strict=True)), **case.options, impl='ref')

    assert torch.autograd.gradcheck(run, leaves) and torch.autograd.gradgradcheck(run, leaves)


@pytest.mark.parametrize('impl', ['ref', 'fused'])
@pytest.mark.parametrize('up', [None, 'linear'])
def test_features_made_once_more_give_the_same_gradients_and_are_not_kept(impl, up):
    case = Case(shared='', up=up)
    tensors = case.tensors(torch.float32)
    features = tensors.pop('features').detach()
    weight, made, found, kept = tensors['weight'], [], [], []

    def remake():
        made.append(1)
        return features.clone()

    for how in (None, remake):
        def run(how=how):
            return dispatch.layer(**tensors, features=features, remake=how, **case.options, impl=impl)

        kept.append(saved_bytes(run))
        first = torch.autograd.grad(run().square().sum(), list(tensors.values()), create_graph=True)
        found.append([*first, *torch.autograd.grad(sum(grad.square().sum() for grad in first), list(tensors.values()))])
    assert all(map(torch.equal, *found)) and made
    assert kept[0] - kept[1] == features.numel() * 4
    for wrong in (None, features.clone().requires_grad_()):
        with pytest.raises(ValueError, match='once more'):
            dispatch.layer(weight[:, :, : 21 if wrong is None else None], x=tensors['x'], features=wrong, remake=remake, impl=impl)


@pytest.mark.parametrize('impl', ['ref', 'fused'])
def test_features_made_once_more_are_numbers_in_their_own_type(impl):
    features, x, factor = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 4, 5), torch.ones([], requires_grad=True)
    made = []

    def remake():
        made.append(torch.is_autocast_enabled('cpu'))
        return features * factor

    weight = torch.randn(2, 7, 3, requires_grad=True)
    loss = dispatch.layer(weight, features=features, remake=remake, impl=impl).square().sum()
    (plain,) = torch.autograd.grad(loss, weight, retain_graph=True)
    with torch.autocast('cpu', torch.bfloat16):
        (first,) = torch.autograd.grad(loss, weight, create_graph=True)
    assert torch.equal(plain, first) and made == [False, False]
    assert torch.autograd.grad(first.square().sum(), factor, allow_unused=True) == (None,)
    made.clear()
    dispatch.layer(torch.randn(2, 7, 9), x=x.requires_grad_(), features=features, remake=remake, impl=impl).sum().backward()
    assert x.grad.norm() > 0 and not made


def test_noise_is_added_before_the_activation():
    x, weight, noise = torch.randn(2, 4, 3, 5), torch.randn(2, 6, 4), torch.randn(1, 1, 3, 5, requires_grad=True)
    y = {impl: dispatch.layer(weight, None, x, noise=noise, impl=impl) for impl in ('ref', 'fused')}
    assert relative_error(y['fused'], y['ref']) < 1e-6
    grads = [torch.autograd.grad(image.square().sum(), noise)[0] for image in y.values()]
    assert grads[0].norm() > 0 and relative_error(*grads) < 1e-5


def test_threads_do_not_change_the_numbers():
    case, before, found = CASES[0], torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        tensors = case.tensors(torch.float32)
        y = dispatch.layer(**tensors, **case.options, impl='fused')
        found.append([y, *torch.autograd.grad(y.square().sum(), [tensors['bias'], tensors['x']])])
    torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


def test_a_clamp_between_two_bfloat16_numbers_cuts_the_gradient():
    x = torch.tensor([[[[0.5, 3.0, -3.0]]]], dtype=torch.bfloat16, requires_grad=True)
    y = dispatch.layer(torch.ones(1, 1, 1, dtype=torch.bfloat16), x=x, slope=1.0, clamp=0.7, impl='fused')  # bfloat16 holds 0.69921875
    grad, = torch.autograd.grad(y.sum(), x)
    assert y.flatten().tolist() == [0.5, 0.69921875, -0.69921875] and grad.flatten().tolist() == [1, 0, 0]


def test_who_computes():
    x, weight = torch.randn(1, 4, 2, 2), torch.randn(1, 3, 4)
    assert dispatch.kernels_for('ref', torch.float32, x.device) is None
    assert dispatch.kernels_for('auto', torch.float16, x.device) is dispatch.kernels_for('auto', torch.float64, x.device) is None
    assert dispatch.kernels_for('auto', torch.float32, torch.device('meta')) is None
    assert dispatch.kernels_for('auto', torch.bfloat16, x.device) is dispatch.kernels_for('fused', torch.float32, x.device) is not None
    for dtype in (torch.float16, torch.float64):
        assert dispatch.layer(weight.to(dtype), x=x.to(dtype)).dtype == dtype
    assert dispatch.layer(weight.to('meta'), x=x.to('meta')).is_meta
    for impl, tensor, message in (
        ('fused', weight.half(), 'not in torch.float16'), ('fused', weight.to('meta'), 'its tensors are on meta'),
        ('cuda', weight, 'its tensors are on cpu'),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=message) as refused:
            dispatch.layer(tensor, x=x.to(tensor), impl=impl)
        assert '\n' not in str(refused.value)
    with pytest.raises(ValueError, match="impl='fast' is not known"):
        dispatch.layer(weight, x=x, impl='fast')


@pytest.mark.parametrize('impl', ['ref', 'fused'])
@pytest.mark.parametrize('change, message', [
    (dict(bias=torch.zeros(2)), r'a bias \[2\] for 3 channels'),
    (dict(x=torch.zeros(2, 5, 6, 6)), r'weights of 6 columns for \[5, 2\] channels'),
    (dict(weight=torch.zeros(1, 3, 6)), r'weights of 1 images for \[2, 1\] images'),
    (dict(x=torch.zeros(2, 4, 6, 6).bfloat16()), r'weights in torch.float32 for \[torch.bfloat16, torch.float32\]'),
    (dict(features=torch.zeros(1, 2, 12, 3)), 'must be of the same points, they are of (6x6 and 12x3|12x3 and 6x6)'),
    (dict(noise=torch.zeros(1, 1, 3, 3)), 'must be of the same points'),
    (dict(slope=-0.2), 'slope -0.2 and gain 1.0: at least 0'),
])  # fmt: skip
def test_tensors_that_do_not_fit_are_refused(impl, change, message):
    given = dict(weight=torch.zeros(2, 3, 6), bias=torch.zeros(3), x=torch.zeros(2, 4, 6, 6), features=torch.zeros(1, 2, 6, 6))
    assert dispatch.layer(**given, impl=impl).shape == (2, 3, 6, 6)
    with pytest.raises(ValueError, match=message) as refused:
        dispatch.layer(**{**given, **change}, impl=impl)
    assert '\n' not in str(refused.value)


def test_noise_in_float32_is_added_in_the_layers_type():
    weight, x, noise = torch.randn(2, 3, 4).bfloat16(), torch.randn(2, 4, 5, 5).bfloat16(), torch.randn(1, 1, 5, 5)
    y = {impl: dispatch.layer(weight, x=x, noise=noise, impl=impl) for impl in ('ref', 'fused')}
    assert relative_error(y['fused'], y['ref']) < 1e-2


@pytest.mark.parametrize('impl', ['ref', 'fused'])
def test_autocast_does_not_reach_a_layer(impl):
    weight, x, upsample = torch.randn(2, 3, 4), torch.randn(2, 4, 2, 2), ParentUpsample(grid.training_points([2, 4])[1])
    expected = dispatch.layer(weight, x=x, upsample=upsample, impl=impl)
    with torch.autocast('cpu', torch.bfloat16):
        y = dispatch.layer(weight, x=x, upsample=upsample, impl=impl)
    assert torch.equal(y, expected) and y.dtype == torch.float32


def test_a_type_without_kernels_is_told_once():
    dispatch._warn.cache_clear()
    weight, x = torch.zeros(1, 3, 4).half(), torch.zeros(1, 4, 2, 2).half()
    with pytest.warns(UserWarning, match='computed by plain PyTorch.*not in torch.float16') as seen:
        dispatch.layer(weight, x=x)
        dispatch.layer(weight, x=x)
    assert len(seen) == 1


class Recorder(TorchDispatchMode):
    """Notes the operators that PyTorch is asked for."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.seen.append(str(operator))
        return operator(*args, **(kwargs or {}))


def test_recorded_operators_are_pytorchs_own():
    x, weight, bias = torch.randn(2, 4, 3, 5), torch.randn(2, 6, 4), torch.randn(6)
    assert count_macs(lambda: dispatch.layer(weight, x=x)) == 2 * 6 * 4 * 15
    recorders = {impl: Recorder() for impl in ('auto', 'ref')}
    for impl, recorder in recorders.items():
        with recorder:
            dispatch.layer(weight, bias, x, impl=impl)
    assert recorders['auto'].seen == recorders['ref'].seen != []  # compiled code would be missing here
    with Recorder(), pytest.raises(RuntimeError, match='its operators are being recorded'):
        dispatch.layer(weight, bias, x, impl='fused')


@pytest.mark.parametrize('how', ['nearest', 'linear', 'bilinear', 'any points'])
def test_reads_of_the_grid_below(how):
    """However the values below are read, W_x x is taken before."""
    if how == 'any points':
        coarse, points = refinement.plan(grid.lattice(5, 11, (-0.2, 0.1, 0.7, 1.3)), [4, 8], 'last', grid.GENERATOR_B)
        size = coarse.shape
    else:
        points, size = grid.training_points([4, 8], grid.GENERATOR_B, 'cpu')[1], (4, 4)
    read = ParentUpsample(points, how if how in UPSAMPLINGS else 'nearest')
    assert read.doubling == {'nearest': 'nearest', 'linear': 'linear'}.get(how)
    x, weight, e = torch.randn(2, 3, *size), torch.randn(2, 7, 5), torch.randn(1, 2, *points.shape)
    joined = torch.cat([read(x), e.expand(2, -1, -1, -1)], dim=1)
    expected = torch.nn.functional.leaky_relu(torch.einsum('noc,nchw->nohw', weight, joined), 0.2) * 1.5
    for impl in ('ref', 'fused'):
        assert relative_error(dispatch.layer(weight, None, x, e, read, gain=1.5, impl=impl), expected) < 1e-6
