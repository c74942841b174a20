"""Blocks drawn whole by the compiled CPU code against the same blocks layer by layer, and who computes what."""

import warnings

import pytest
import torch

from inr import grid, hypernetwork, render
from inr.generator import Generator
from inr.ops import block_cpu, dispatch, native
from tests.helpers import needs_compiled_code, relative_error
from torch_utils.misc import count_macs
from training.networks import FullyConnectedLayer

needs_compiled_code(allow_module_level=True)

ODD = dict(channel_base=10**6, channel_max=13, fmm_rank=3)
CASES = {
    'B': (Generator, ODD),
    'B rank 1': (Generator, {**ODD, 'fmm_rank': 1, 'channel_max': 21}),
    'B full': (Generator, {**ODD, 'fmm_rank': 'full'}),
    'B plain': (Generator, {**ODD, 'fmm_rank': None}),
    'B tanh': (Generator, {**ODD, 'squash': 'tanh', 'conv_clamp': 0.5}),
    'B skips': (Generator, {**ODD, 'coord_skips': True}),
    'B generated': (Generator, {**ODD, 'features': dict(generated=5, raw=True, constants=3, learned=2)}),
    'B sines': (Generator, {**ODD, 'features': dict(random=7, cosine=False)}),
    'B linear': (Generator, {**ODD, 'upsampling': 'linear', 'conv_clamp': 3.0}),
    'B bilinear': (Generator, {**ODD, 'upsampling': 'bilinear'}),
    'cips': (Generator, {**ODD, 'fmm_rank': None, 'input_resolution': 'full', 'extra_layers': {}}),
    **{f'A {name}': (hypernetwork.Generator, dict(channel_max=17, fmm_rank=2, decoder=name)) for name in hypernetwork.DECODERS},
    'A clamped': (hypernetwork.Generator, dict(channel_max=40, conv_clamp=0.3, coord_skips=False)),
}


def build(case, res=64, **more):
    torch.manual_seed(3)
    cls, synthesis = CASES[case]
    G = cls(8, 0, 12, res, 3, synthesis_kwargs={**synthesis, **more}).eval()
    for name, parameter in G.named_parameters():
        if name.endswith('bias'):
            parameter.data.normal_()
    return G, torch.randn(3, G.num_ws, 12)


@pytest.mark.parametrize('case', CASES)
def test_whole_blocks_are_the_layers_one_by_one(case):
    G, ws = build(case)
    ws.requires_grad_()
    images = {impl: G.synthesis(ws, impl=impl) for impl in ('ref', 'fused')}
    assert relative_error(images['fused'], images['ref']) < 1e-5
    dy = torch.randn_like(images['ref'])
    inputs = [ws, *G.synthesis.parameters()]
    grads = {impl: torch.autograd.grad(image, inputs, dy, allow_unused=True) for impl, image in images.items()}
    for ours, plain in zip(grads['fused'], grads['ref'], strict=True):
        assert (ours is None) == (plain is None)
        assert plain is None or relative_error(ours, plain) < (2e-3 if 'clamped' in case else 1e-4)  # values at a limit fall either side
    with torch.no_grad():
        assert torch.equal(G.synthesis(ws, impl='fused'), images['fused'])
        assert relative_error(G.synthesis(ws[1:2], impl='fused'), images['fused'][1:2]) < 1e-5


@pytest.mark.parametrize('case', ['B', 'B linear', 'A multiscale'])
def test_second_order(case):
    G, ws = build(case, res=32)
    ws.requires_grad_()
    found = {}
    for impl in ('ref', 'fused'):
        image = G.synthesis(ws, impl=impl)
        grad, = torch.autograd.grad((image * torch.ones_like(image)).sum(), ws, create_graph=True)
        found[impl] = torch.autograd.grad(grad.square().sum(), [ws, *G.synthesis.parameters()], allow_unused=True)
    assert sum(grad is not None for grad in found['ref']) > 5
    for ours, plain in zip(found['fused'], found['ref'], strict=True):
        assert plain is None or plain.norm() == 0 or relative_error(ours, plain) < 1e-4


@pytest.mark.parametrize('case', ['B', 'B generated', 'B linear', 'B bilinear', 'A multiscale'])
@pytest.mark.parametrize('height, width, window', [(1, 1, grid.WHOLE), (37, 101, (-0.3, -0.2, 1.1, 1.6)), (200, 150, (0.2, 0.3, 0.4, 0.7))])
@torch.no_grad()
def test_any_points(case, height, width, window):
    G, ws = build(case)
    for refine in ('last', 'all'):
        pyramid = G.synthesis.pyramid
        points_per_grid = pyramid.plan(grid.lattice(height, width, window, pyramid.convention), refine)
        assert relative_error(G.synthesis.draw(ws, points_per_grid, impl='fused'), G.synthesis.draw(ws, points_per_grid, impl='ref')) < 1e-5
    whole = render.render(G, ws, height, width, window)
    part = (height // 3, width // 4, max(height // 2, 1), max(width // 2, 1))
    tile = render.render(G, ws, height, width, window, tile=part)
    assert torch.equal(tile, whole[:, :, part[0] : part[0] + part[2], part[1] : part[1] + part[3]])


@pytest.mark.parametrize('case', ['B', 'A multiscale'])
@torch.no_grad()
def test_bfloat16_is_near(case):
    G, ws = build(case)
    halved, _ = build(case, num_fp16_res=7, half_dtype='bfloat16')
    full = G.synthesis(ws, impl='ref')
    ours, plain = (relative_error(halved.synthesis(ws, impl=impl), full) for impl in ('fused', 'ref'))
    assert 1e-5 < ours < 1.5 * plain


@torch.no_grad()
def test_threads_do_not_change_the_image():
    G, ws = build('B')
    before = torch.get_num_threads()
    images = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        images.append(G.synthesis(ws[:1], impl='fused'))
    torch.set_num_threads(before)
    assert torch.equal(*images)


@torch.no_grad()
def test_what_cannot_be_had_is_refused_in_one_line():
    G, ws = build('B')
    with pytest.raises(ValueError, match="impl='fast' is not known"):
        G.synthesis(ws, impl='fast')
    with pytest.raises(RuntimeError, match="impl='cuda', kernels of a GPU, is not available: its tensors are on cpu"):
        G.synthesis(ws, impl='cuda')
    G, ws = build('B', num_fp16_res=7)
    with pytest.raises(RuntimeError, match='not in torch.float16'):
        G.synthesis(ws, impl='fused')


@torch.no_grad()
def test_without_a_compiler_auto_warns_once_and_goes_on(monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path))
    monkeypatch.setenv('CXX', 'no-such-compiler')
    native._library.cache_clear()
    dispatch._warn.cache_clear()
    try:
        G, ws = build('B', res=16)
        with pytest.warns(UserWarning, match='no C.. compiler found .no-such-compiler.'):
            image = G.synthesis(ws)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert torch.equal(G.synthesis(ws), image)
        assert torch.equal(G.synthesis(ws, impl='ref'), image)
        with pytest.raises(native.Unavailable) as refused:
            G.synthesis(ws, impl='fused')
        assert '\n' not in str(refused.value)
    finally:
        native._library.cache_clear()


def test_a_build_that_fails_says_why(monkeypatch, tmp_path):
    broken = tmp_path / 'broken.cpp'
    broken.write_text('this is no program')
    monkeypatch.setattr(native, 'SOURCES', (native.SOURCES[0], broken))
    with pytest.raises(native.Unavailable, match='could not build the CPU code of inr/ops: .*broken.cpp') as refused:
        native.build(tmp_path / 'cache')
    assert '\n' not in str(refused.value) and not list((tmp_path / 'cache').rglob('*.so'))
    (tmp_path / 'file').write_text('')
    with pytest.raises(native.Unavailable, match='TORCH_EXTENSIONS_DIR'):
        native.build(tmp_path / 'file')


@pytest.mark.parametrize('when', ['before', 'after'])
@torch.no_grad()
def test_a_hook_sees_every_layer(when):
    G, ws = build('B')
    layer, seen = G.synthesis.b64.layers[1], []
    if when == 'before':
        layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    else:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    G.synthesis(ws)
    assert seen == [(3, 13, 64, 64)]


@torch.no_grad()
def test_blocks_whose_operators_are_recorded_are_drawn_layer_by_layer():
    G, ws = build('B', res=16)
    recorded = {impl: count_macs(lambda impl=impl: G.synthesis(ws, impl=impl)) for impl in ('ref', 'auto')}
    assert recorded['auto'] == recorded['ref'] > 0


@torch.no_grad()
def test_vectors_may_read_past_the_end_of_what_is_held_below(monkeypatch):
    """Up to a vector of 16 numbers behind the last plane, so that much of it must be there."""
    behind = []
    with_tail, multiply_parent = block_cpu._with_tail, block_cpu._Packed.multiply_parent

    def held(tensor):
        result = with_tail(tensor)
        behind.append(result.untyped_storage().nbytes() // 4 - tensor.numel())
        return result

    def multiplied(self, library, x, threads):
        multiply_parent(self, library, x, threads)
        behind.append(self.parent.untyped_storage().nbytes() // 4 - self.layer.weights.shape[0] * x[0].numel())

    monkeypatch.setattr(block_cpu, '_with_tail', held)
    monkeypatch.setattr(block_cpu._Packed, 'multiply_parent', multiplied)
    G, ws = build('B')
    G.synthesis(ws, impl='fused')
    assert len(behind) > 3 and min(behind) >= 16


@torch.no_grad()
def test_affine_is_the_layer():
    G, ws = build('B')
    slow = FullyConnectedLayer(12, 37, lr_multiplier=0.01, bias_init=300)
    for layer in (G.synthesis.b32.layers[0].affine, slow, FullyConnectedLayer(12, 5, bias=False)):
        for w in (ws[:1, 0], ws[:, 0]):
            assert relative_error(block_cpu.affine(layer, w), layer(w)) < 1e-6
