"""Tests of training.networks: the numbers of the public implementation, and the contract every caller relies on."""

import copy
import inspect
import json
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dnnlib.util import UserError
from tests.helpers import ROOT, relative_error
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.modulated_conv2d import modulated_conv2d
from torch_utils.ops.upfirdn2d import downsample2d, setup_filter
from training import networks
from training.networks import Discriminator, Generator, MappingNetwork

CASES = ('stylegan2', 'stylegan2_cond')
TAPS = setup_filter([1, 3, 3, 1])


def parity(name):
    """(stored tensors, G in eval mode, D), weights loaded with strict=True."""
    data = {key: torch.from_numpy(value) for key, value in np.load(ROOT / f'tests/data/parity/{name}.npz').items()}
    c_dim, channel_max = data['c'].shape[1], len(data['G.synthesis.b4.const'])
    G = Generator(16, c_dim, 24, 16, 3, dict(num_layers=3), dict(channel_base=128, channel_max=channel_max))
    D = Discriminator(c_dim, 16, 3, channel_base=128, channel_max=channel_max, epilogue_kwargs=dict(mbstd_group_size=2))
    for prefix, net in (('G.', G), ('D.', D)):
        net.load_state_dict({key[2:]: value for key, value in data.items() if key.startswith(prefix)}, strict=True)
    return data, G.eval(), D


def small_generator(c_dim=0, channels=3, res=16, mapping=None, **synthesis):
    return Generator(8, c_dim, 12, res, channels, {'num_layers': 2, **(mapping or {})}, dict(channel_base=64, channel_max=6, **synthesis))


def small_discriminator(c_dim=0, channels=3, res=16, **kwargs):
    return Discriminator(c_dim, res, channels, channel_base=64, channel_max=6, **kwargs)


@pytest.mark.parametrize('name', CASES)
def test_generator_parity(name):
    data, G, _ = parity(name)
    z, c = data['z'], data['c']
    assert relative_error(G.mapping(z, c), data['ws']) < 1e-5
    assert relative_error(G.mapping(z, c, truncation_psi=0.7), data['ws_psi0.7']) < 1e-5
    assert relative_error(G.mapping(z, c, truncation_psi=0.5, truncation_cutoff=3), data['ws_psi0.5_cutoff3']) < 1e-5
    for mode in ('const', 'none'):
        assert relative_error(G.synthesis(data['ws'], noise_mode=mode), data[f'img_noise_{mode}']) < 1e-5
        assert relative_error(G(z, c, noise_mode=mode), data[f'img_noise_{mode}']) < 1e-5


@pytest.mark.parametrize('name', CASES)
def test_discriminator_parity_with_second_derivatives(name):
    """Real part of the loss: mean over images of softplus(-logit) + gamma / 2 * |d logit / d image|^2, gamma 10."""
    data, _, D = parity(name)
    real = data['real'].requires_grad_()
    logits = D(real, data['c'])
    assert relative_error(logits, data['logits']) < 1e-5
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    penalty = gradient.square().sum(dim=[1, 2, 3])
    assert relative_error(penalty, data['r1_penalty']) < 1e-5
    loss = (F.softplus(-logits)[:, 0] + 10 / 2 * penalty).mean()
    assert relative_error(loss, data['d_loss_real_gamma10']) < 1e-5
    loss.backward()
    expected = {key[len('D_grad.') :]: value for key, value in data.items() if key.startswith('D_grad.')}
    assert set(expected) == {key for key, _ in D.named_parameters()}
    for key, parameter in D.named_parameters():
        assert relative_error(parameter.grad, expected[key]) < 1e-4, key


def test_signatures_are_those_of_stylegan2_ada():
    def arguments(cls):
        return list(inspect.signature(cls).parameters)

    assert arguments(Generator) == 'z_dim c_dim w_dim img_resolution img_channels mapping_kwargs synthesis_kwargs img_size'.split()
    assert arguments(networks.SynthesisNetwork) == (
        'w_dim img_resolution img_channels channel_base channel_max num_fp16_res img_size block_kwargs'.split())  # img_size is ours
    assert arguments(MappingNetwork) == ('z_dim c_dim w_dim num_ws num_layers embed_features layer_features activation '
                                         'lr_multiplier w_avg_beta').split()
    assert arguments(Discriminator) == ('c_dim img_resolution img_channels architecture channel_base channel_max num_fp16_res conv_clamp '
                                        'cmap_dim block_kwargs mapping_kwargs epilogue_kwargs').split() + ['entries', 'img_size']  # ours


def test_generator_contract():
    G = small_generator().eval()
    assert (G.z_dim, G.c_dim, G.w_dim, G.img_resolution, G.img_channels) == (8, 0, 12, 16, 3)
    assert G.num_ws == G.mapping.num_ws == G.synthesis.num_ws == 6
    assert Generator(8, 0, 12, 1024, 3, synthesis_kwargs=dict(channel_base=1024, channel_max=1)).num_ws == 18
    z = torch.randn(3, 8, dtype=torch.float64)
    img = G(z=z, c=None, truncation_psi=0.5, truncation_cutoff=2, noise_mode='const', force_fp32=True)
    assert img.shape == (3, 3, 16, 16) and img.dtype == torch.float32
    assert torch.equal(img, G(z.float(), torch.zeros(3, 0), 0.5, 2, noise_mode='const'))


def test_ws_may_be_written_in_place_and_reach_their_layers():
    G = small_generator().eval()
    z = torch.randn(2, 8)
    ws = G.mapping(z=z, c=None)
    mixed = G.mapping(z, None)
    mixed[:, 3:] = G.mapping(torch.randn(2, 8), None)[:, 3:]
    assert torch.equal(mixed[:, :3], ws[:, :3]) and not torch.equal(mixed[:, 3:], ws[:, 3:])
    images = [G.synthesis(ws=mixed, noise_mode='none'), G.synthesis(ws, noise_mode='none')]
    images[0].sum().backward()
    assert G.mapping.fc0.weight.grad.abs().sum() > 0
    different = torch.randn(2, 6, 12)
    for name, index in (('b4.conv1', 0), ('b4.torgb', 1), ('b8.conv0', 1), ('b8.torgb', 3), ('b16.conv1', 4), ('b16.torgb', 5)):
        seen = []
        G.synthesis.get_submodule(f'{name}.affine').register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        G.synthesis(different, noise_mode='none')
        assert torch.equal(seen[0], different[:, index]), name


def test_noise_modes():
    G = small_generator()
    ws = G.mapping(torch.randn(2, 8), None)
    quiet = G.synthesis(ws, noise_mode='none')
    assert torch.equal(G.synthesis(ws, noise_mode='random'), quiet)  # every strength starts at 0
    for name, parameter in G.named_parameters():
        if name.endswith('noise_strength'):
            parameter.data.fill_(0.3)
    const = G.synthesis(ws, noise_mode='const')
    assert torch.equal(const, G.synthesis(ws, noise_mode='const')) and not torch.equal(const, quiet)
    assert not torch.equal(G.synthesis(ws), G.synthesis(ws))
    with pytest.raises(ValueError, match="noise_mode='loud'"):
        G.synthesis(ws, noise_mode='loud')
    silent = small_generator(use_noise=False)
    assert not any('noise' in name for name in silent.state_dict())
    assert torch.equal(silent.synthesis(ws), silent.synthesis(ws, noise_mode='const'))


def test_w_avg_follows_w_in_training_only():
    mapping = MappingNetwork(8, 0, 12, num_ws=4, num_layers=2, w_avg_beta=0.75)
    z = torch.randn(5, 8)
    w = mapping.eval()(z, None)[:, 0]
    assert torch.equal(mapping.w_avg, torch.zeros(12))
    mapping.train()(z, None, skip_w_avg_update=True)
    assert torch.equal(mapping.w_avg, torch.zeros(12))
    mapping(z, None)
    assert relative_error(mapping.w_avg, w.mean(dim=0) * 0.25) < 1e-5
    truncated = mapping.eval()(z, None, truncation_psi=0.0)
    assert torch.equal(truncated, mapping.w_avg.expand(5, 4, 12))
    assert MappingNetwork(8, 0, 12, num_ws=None, w_avg_beta=None)(z, None).shape == (5, 12)


def test_mapping_normalises_latent_and_label():
    mapping = MappingNetwork(8, 3, 12, num_ws=2, num_layers=1)
    z, c = torch.randn(4, 8), torch.eye(4, 3)
    mapping.embed.bias.data.zero_()
    assert relative_error(mapping(z * 7, c * 5), mapping(z, c)) < 1e-4
    assert relative_error(mapping(z, c), mapping(z, c.roll(1, dims=1))) > 1e-2
    with pytest.raises(ValueError, match=r'needs c of shape \[N, 3\], it was given None'):
        mapping(z, None)
    with pytest.raises(ValueError, match=r'needs z of shape \[N, 8\], it was given \[4, 5\]'):
        mapping(z[:, :5], c)


@pytest.mark.parametrize('architecture', ['skip', 'resnet', 'orig'])
@pytest.mark.parametrize('channels,c_dim', [(1, 0), (3, 2), (4, 0)])
def test_every_architecture_trains(architecture, channels, c_dim):
    G = small_generator(c_dim, channels, architecture=architecture)
    D = small_discriminator(c_dim, channels, architecture=architecture)
    c = torch.eye(4, c_dim) if c_dim else None
    img = G(torch.randn(4, 8), c)
    assert img.shape == (4, channels, 16, 16)
    logits = D(img, c)
    assert logits.shape == (4, 1)
    (gradient,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    (F.softplus(-logits).mean() + gradient.square().sum()).backward()
    for name, parameter in [*G.named_parameters(), *D.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    torgb = [name for name in G.state_dict() if name.endswith('torgb.weight')]
    assert len(torgb) == (3 if architecture == 'skip' else 1)


def plain_conv(state, name, x, gain=1.0, act='lrelu', **resample):
    """A discriminator or shortcut convolution, from a state dict."""
    weight = state[f'{name}.weight']
    x = conv2d_resample(x, weight / weight[0].numel() ** 0.5, TAPS, padding=weight.shape[-1] // 2, **resample)
    gain *= 2**0.5 if act == 'lrelu' else 1
    return bias_act(x, state.get(f'{name}.bias'), act=act, gain=gain)


def styled_conv(state, name, x, w, gain=2**0.5, up=1):
    """A synthesis layer without noise, or a to-RGB layer, from a state dict."""
    weight, last = state[f'{name}.weight'], name.endswith('torgb')
    styles = w @ state[f'{name}.affine.weight'].t() / w.shape[1] ** 0.5 + state[f'{name}.affine.bias']
    styles = styles / weight[0].numel() ** 0.5 if last else styles
    x = modulated_conv2d(x, weight, styles, up=up, padding=weight.shape[-1] // 2, resample_filter=TAPS, demodulate=not last,
                         flip_weight=up == 1)
    return bias_act(x, state[f'{name}.bias'], act='linear' if last else 'lrelu', gain=1 if last else gain)


@pytest.mark.parametrize('architecture', ['resnet', 'orig'])
def test_generator_without_skips_layer_by_layer(architecture):
    G = small_generator(architecture=architecture).eval()
    ws, state = torch.randn(2, 6, 12), G.synthesis.state_dict()
    assert G.num_ws == 6
    x = styled_conv(state, 'b4.conv1', state['b4.const'].expand(2, -1, -1, -1), ws[:, 0])
    for i, res in ((1, 8), (3, 16)):
        gain = 1 if architecture == 'resnet' else 2**0.5
        y = styled_conv(state, f'b{res}.conv0', x, ws[:, i], up=2)
        y = styled_conv(state, f'b{res}.conv1', y, ws[:, i + 1], gain=gain)
        if architecture == 'resnet':
            y = y + plain_conv(state, f'b{res}.skip', x, gain=0.5**0.5, act='linear', up=2, flip_weight=False)
        x = y
    assert relative_error(G.synthesis(ws, noise_mode='none'), styled_conv(state, 'b16.torgb', x, ws[:, 5])) < 1e-5


@pytest.mark.parametrize('architecture', ['skip', 'orig'])
def test_discriminator_without_residuals_layer_by_layer(architecture):
    D = small_discriminator(architecture=architecture, epilogue_kwargs=dict(mbstd_num_channels=0))
    img, state = torch.randn(2, 3, 16, 16), D.state_dict()
    logits = D(img, None)
    x = plain_conv(state, 'b16.fromrgb', img)
    for res in (16, 8):
        x = plain_conv(state, f'b{res}.conv1', plain_conv(state, f'b{res}.conv0', x), down=2)
        if architecture == 'skip':
            img = downsample2d(img, TAPS)
            x = x + plain_conv(state, f'b{res // 2}.fromrgb', img)
    x = plain_conv(state, 'b4.conv', x).flatten(1)
    x = bias_act(x @ state['b4.fc.weight'].t() / x.shape[1] ** 0.5, state['b4.fc.bias'], act='lrelu')
    assert relative_error(logits, x @ state['b4.out.weight'].t() / x.shape[1] ** 0.5 + state['b4.out.bias']) < 1e-5


def test_path_length_has_a_second_derivative():
    G = small_generator()
    ws = G.mapping(torch.randn(2, 8), None)
    img = G.synthesis(ws)
    (jacobian,) = torch.autograd.grad((img * torch.randn_like(img)).sum(), ws, create_graph=True)
    jacobian.square().sum(dim=2).mean(dim=1).sqrt().mean().backward()
    for name in ('synthesis.b4.const', 'synthesis.b16.conv0.weight', 'synthesis.b8.torgb.affine.weight', 'mapping.fc0.weight'):
        assert G.get_parameter(name).grad.abs().sum() > 0, name


def test_deepcopy_and_pickle_draw_the_same():
    G, D = small_generator(c_dim=2), small_discriminator(c_dim=2)
    z, c = torch.randn(3, 8), torch.eye(3, 2)
    G.eval()(z, c).sum().backward()
    img = G(z, c, noise_mode='const')
    for clone in (copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))):
        assert torch.equal(clone(G)(z, c, noise_mode='const'), img)
        assert torch.equal(clone(D)(img, c), D(img, c))


def test_init_kwargs_rebuild_the_network():
    G = small_generator(c_dim=2, channels=1, mapping=dict(layer_features=5), architecture='resnet', activation='relu')
    D = small_discriminator(c_dim=2, channels=1, cmap_dim=4, epilogue_kwargs=dict(mbstd_num_channels=0), block_kwargs=dict(freeze_layers=1))
    for net in (G, D):
        rebuilt = type(net)(**json.loads(json.dumps(net.init_kwargs)))
        rebuilt.load_state_dict(net.state_dict(), strict=True)
        assert rebuilt.init_kwargs == net.init_kwargs
        assert [name for name, _ in rebuilt.named_parameters()] == [name for name, _ in net.named_parameters()]
    given = dict(channel_base=64, channel_max=6)
    G = Generator(8, 0, 12, 16, 3, synthesis_kwargs=given)
    given['channel_max'] = 99
    assert G.init_kwargs['synthesis_kwargs'] == dict(channel_base=64, channel_max=6)


@pytest.mark.parametrize('frozen,names', [(0, set()), (2, {'b16.fromrgb', 'b16.conv0'}),
                                          (5, {'b16.fromrgb', 'b16.conv0', 'b16.conv1', 'b16.skip', 'b8.conv0'})])
def test_frozen_layers_are_buffers(frozen, names):
    free = small_discriminator()
    D = small_discriminator(block_kwargs=dict(freeze_layers=frozen))
    trainable, all_names = ({name for name, _ in net.named_parameters()} for net in (D, free))
    assert {name.rpartition('.')[0] for name in all_names - trainable} == names
    D.load_state_dict(free.state_dict(), strict=True)


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('half_dtype,tolerance', [('bfloat16', 3e-2), ('float16', 5e-3)])
def test_half_precision_is_close_on_the_cpu(half_dtype, tolerance, channels_last):
    options = dict(fp16_channels_last=channels_last, half_dtype=half_dtype)
    G = small_generator(res=32, num_fp16_res=2, conv_clamp=256, **options).eval()
    D = small_discriminator(res=32, num_fp16_res=2, conv_clamp=256, block_kwargs=options)
    half = networks.HALF_DTYPES[half_dtype]
    for net in (G.synthesis, D):
        assert [getattr(net, f'b{res}').dtype for res in (8, 16, 32)] == [torch.float32, half, half]
    ws = G.mapping(torch.randn(4, 8), None)
    img, exact = G.synthesis(ws, noise_mode='const'), G.synthesis(ws, noise_mode='const', force_fp32=True)
    assert img.dtype == torch.float32 and 0 < relative_error(img, exact) < tolerance
    logits = D(exact, None)
    assert logits.dtype == torch.float32 and 0 < relative_error(logits, D(exact, None, force_fp32=True)) < 5 * tolerance
    (F.softplus(-D(img, None)).mean()).backward()
    gradients = {name: p.grad.clone() for name, p in D.named_parameters()}
    D.zero_grad()
    F.softplus(-D(img.detach(), None, force_fp32=True)).mean().backward()
    for name, parameter in D.named_parameters():
        assert parameter.grad.dtype == torch.float32
        assert relative_error(gradients[name], parameter.grad) < 10 * tolerance, name


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-6), (torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_weights_of_another_type_draw_the_same(dtype, tolerance):
    G = small_generator(res=32, c_dim=2).eval()
    z, c = torch.randn(3, 8), torch.eye(2)[[0, 1, 1]]
    exact = G(z, c, noise_mode='const')
    image = G.to(dtype)(z, c, noise_mode='const')
    assert image.dtype == torch.float32 and relative_error(image, exact) < tolerance


def test_a_label_for_each_z():
    with pytest.raises(ValueError, match='was given 3 z and 1 c: a label for each'):
        small_generator(c_dim=2)(torch.randn(3, 8), torch.eye(2)[:1])


@pytest.mark.parametrize('architecture', ['resnet', 'skip', 'orig'])
def test_channels_last_is_the_same_discriminator(architecture):
    D = small_discriminator(architecture=architecture)
    img = torch.randn(4, 3, 16, 16, requires_grad=True)

    def r1():
        logits = D(img, None)
        gradient, = torch.autograd.grad(logits.sum(), img, create_graph=True)
        penalty = gradient.square().sum()
        return [logits, gradient, *torch.autograd.grad(penalty, [D.b16.conv0.weight, D.b8.conv1.weight, D.b4.conv.weight])]

    plain = r1()
    seen = []
    for conv in (D.b16.conv1, D.b8.conv0, D.b4.conv):
        conv.register_forward_hook(lambda module, args, out: seen.append(out.is_contiguous(memory_format=torch.channels_last)))
    assert D.use_channels_last() is D and D.b8.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(relative_error(ours, theirs) < 1e-5 for ours, theirs in zip(r1(), plain, strict=True))
    assert seen == [True] * 3


def test_conv_clamp_bounds_the_features():
    G = small_generator(conv_clamp=0.05)
    seen = []
    for res in (8, 16):
        getattr(G.synthesis, f'b{res}').conv1.register_forward_hook(lambda module, args, out: seen.append(out))
    G(torch.randn(2, 8), None)
    assert max(out.abs().max().item() for out in seen) == pytest.approx(0.05)
    D = small_discriminator(conv_clamp=0.05)
    D.b16.conv1.register_forward_hook(lambda module, args, out: seen.append(out))
    D.b16.conv1.weight.data *= 100
    D(torch.randn(2, 3, 16, 16), None)
    assert seen[-1].abs().max().item() == pytest.approx(0.05 * 0.5**0.5)  # the clamp follows the residual's gain


@pytest.mark.parametrize('res', [20, 4, 2048, 0, -16, 16.5])
def test_a_size_that_cannot_be_built_is_a_users_mistake(res):
    with pytest.raises(UserError, match=f'resolution {res}: .* 8, 16, 32, 64, 128, 256, 512, 1024; resize'):
        small_generator(res=res)
    with pytest.raises(UserError, match=f'resolution {res}'):
        small_discriminator(res=res)


def test_other_mistakes():
    with pytest.raises(UserError, match='architecture=dense: use orig, skip or resnet'):
        small_generator(architecture='dense')
    with pytest.raises(UserError, match='half_dtype=int8: use float16 or bfloat16'):
        small_discriminator(block_kwargs=dict(half_dtype='int8'))
    with pytest.raises(UserError, match='resolution 128 needs a channel_base of at least 128'):
        small_generator(res=128)
    with pytest.raises(ValueError, match=r'images of shape \[N, 3, 16, 16\], it was given \[1, 3, 32, 32\]'):
        small_discriminator()(torch.zeros(1, 3, 32, 32), None)
    with pytest.raises(ValueError, match=r'ws of shape \[N, 6, 12\], it was given \[1, 12\]'):
        small_generator().synthesis(torch.zeros(1, 12))
