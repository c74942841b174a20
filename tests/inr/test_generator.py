"""Generator B: the public implementation's images, the rule behind its sizes, options and mistakes."""

import copy
import io
import json

import numpy as np
import pytest
import torch

from inr.ablations import plain_learning_rates
from inr.fourier import FeatureSpec
from inr.generator import Generator, feature_rule, from_inr_gan
from inr.public import constructor_arguments
from tests.helpers import ROOT, needs_compiled_code, relative_error

PUBLIC = ['inr_gan_64', 'inr_gan_bil_64', 'inr_gan_64_features', 'inr_gan_64_tanh_cond', 'cips_32']
SMALL = dict(channel_base=128, channel_max=8, fmm_rank=2)


def load_public(name):
    """A stored case of the public implementation and the generator rebuilt from it."""
    stored = np.load(ROOT / f'tests/data/parity/{name}.npz')
    state = {key[2:]: torch.from_numpy(stored[key]) for key in stored.files if key.startswith('G.')}
    return stored, state, json.loads(str(stored['config']))


def small(res=32, c_dim=0, channels=3, **synthesis):
    return Generator(8, c_dim, 8, res, channels, dict(num_layers=1), {**SMALL, **synthesis})


@pytest.mark.parametrize('name', PUBLIC)
def test_images_of_the_public_implementation(name):
    stored, state, config = load_public(name)
    G = from_inr_gan(config, state).eval()
    c = torch.from_numpy(stored['c']) if 'c' in stored.files else None
    ws = G.mapping(torch.from_numpy(stored['z']), c)
    assert relative_error(ws, stored['ws']) < 1e-5
    assert relative_error(G.synthesis(torch.from_numpy(stored['ws']), noise_mode='const'), stored['img']) < 1e-5
    assert relative_error(G(torch.from_numpy(stored['z']), c), stored['img']) < 1e-4
    again = Generator(**json.loads(json.dumps(G.init_kwargs)))
    again.load_state_dict(G.state_dict())
    assert torch.equal(again.eval().synthesis(ws), G.synthesis(ws))


@pytest.mark.parametrize('impl', ['ref', 'fused'])
@pytest.mark.parametrize('training', [False, True], ids=['drawn', 'in training'])
@pytest.mark.parametrize('name', PUBLIC)
def test_images_of_the_public_implementation_by_every_implementation(name, training, impl):
    """impl='cuda': tests/inr/ops/test_layer_triton.py."""
    if impl == 'fused':
        needs_compiled_code()
    stored, state, config = load_public(name)
    G = from_inr_gan(config, state).train(training)
    ws = torch.from_numpy(stored['ws']).requires_grad_()
    with torch.set_grad_enabled(training):
        image = G.synthesis(ws, noise_mode='const', impl=impl)
    assert image.requires_grad == training and relative_error(image, stored['img']) < 1e-5


def test_public_weights_that_do_not_fit_are_refused():
    _, state, config = load_public('cips_32')
    with pytest.raises(RuntimeError, match='Missing key'):
        from_inr_gan(config, {k: v for k, v in state.items() if not k.endswith('b8.conv1.bias')})
    with pytest.raises(RuntimeError, match='Unexpected key'):
        from_inr_gan(config, {**state, 'synthesis.b8.conv2.bias': torch.zeros(7)})
    _, state, config = load_public('inr_gan_64')
    key = 'synthesis.b64.coord_fuser.log_basis'
    with pytest.raises(ValueError, match='logarithmic basis'):
        from_inr_gan(config, {**state, key: -state[key]})
    config['cfg']['use_noise'] = True
    with pytest.raises(ValueError, match='noise'):
        from_inr_gan(config, state)


def test_sizes_follow_the_published_rule():
    """At 256, public implementation: 5.9 M of its numbers in constants, 15 layers + extra ones, features as in facts."""
    with torch.device('meta'):
        G = Generator(512, 0, 512, 256, 3, dict(num_layers=2))
    constants = sum(p.numel() for name, p in G.named_parameters() if name.endswith('const_embs'))
    assert constants == 128 * (32**2 + 64**2) + 64 * (128**2 + 256**2)
    assert G.num_ws == 1 + 2 * 6 + 2 + 1
    specs = [G.synthesis.get_submodule(b).spec for b in G.synthesis.block_names]
    assert [s.grid for s in specs] == [32, 32, 32, 32, 64, 128, 256]
    assert [s.features is not None for s in specs] == [True, False, False, False, True, True, True]
    assert [s.channels for s in specs] == [512, 512, 512, 512, 512, 256, 128]
    with torch.device('meta'):
        large = Generator(512, 0, 512, 1024, 3)
    top = large.synthesis.b1024
    assert top.spec.channels == 32 and top.coords.log_basis.shape[0] == 20 and top.spec.features.constants == 0
    assert feature_rule(64) == FeatureSpec(log=64, diagonal=True, constants=128)


@pytest.mark.parametrize('res', [16, 32, 64, 128])
@pytest.mark.parametrize('channels, c_dim', [(1, 0), (4, 3)])
def test_any_size_channels_and_labels(res, channels, c_dim):
    G = small(res, c_dim, channels, features={64: dict(log=8), 128: dict(log=8)}).eval()
    image = G(torch.randn(2, 8), torch.eye(3)[:2] if c_dim else None)
    assert image.shape == (2, channels, res, res) and image.dtype == torch.float32 and image.isfinite().all()
    assert image.flatten(1).std(dim=1).min() > 1e-3


def test_features_for_every_grid_or_for_one():
    fields = dict(random=5, raw=True, scale=3.0)
    spec = FeatureSpec(**fields)
    everywhere, one = small(128, features=fields).synthesis, small(128, features={'64': fields}).synthesis
    assert [b.coords.spec for b in (everywhere.b4, everywhere.b64, everywhere.b128)] == [spec] * 3
    assert [b.coords.spec for b in (one.b4, one.b64, one.b128)] == [feature_rule(32), spec, feature_rule(128)]
    assert small(64, features=fields, input_features=dict(log=3)).synthesis.b4.coords.spec == FeatureSpec(log=3)


def test_spatial_noise_is_added_to_every_layer_and_read_as_cell_constants_are():
    from inr import render

    quiet, G = small(64), small(64, noise=True).eval().requires_grad_(False)
    assert not [key for key in quiet.state_dict() if 'noise' in key]
    strengths = [p for key, p in G.named_parameters() if key.endswith('noise_strength')]
    assert len(strengths) == sum(len(G.synthesis.get_submodule(name).layers) for name in G.synthesis.block_names) and not any(strengths)
    assert [G.synthesis.get_submodule(f'b{r}').layers[0].noise.noise_const.shape[0] for r in (4, 32, 64)] == [32, 32, 64]
    ws = G.mapping(torch.randn(2, 8), None)
    silent = G.synthesis(ws, noise_mode='none')
    with pytest.raises(ValueError, match="unknown noise_mode 'fixed'; choose random, const or none"):
        G.synthesis(ws, noise_mode='fixed')
    assert torch.equal(G.synthesis(ws, noise_mode='random'), silent)  # strengths start at 0
    for strength in strengths:
        strength.data.fill_(0.3)
    const = G.synthesis(ws, noise_mode='const')
    assert torch.equal(const, G.synthesis(ws, noise_mode='const')) and not torch.allclose(const, silent, atol=0.01)
    assert not torch.equal(G.synthesis(ws), G.synthesis(ws))
    assert torch.equal(render.render(G, ws, 64, 64), const) and torch.equal(render.render(G, ws, 64, 64, noise_mode='none'), silent)
    whole = render.render(G, ws, 100, 60, (-0.2, 0, 1, 1))
    tile = render.render(G, ws, 100, 60, (-0.2, 0, 1, 1), tile=(10, 20, 30, 25))
    assert (tile - whole[:, :, 10:40, 20:45]).abs().max() < 1e-5
    layer = G.synthesis.b64.layers[1]
    layer.weight.data.zero_()
    layer.affine.weight.data.zero_()
    added = []
    layer.register_forward_hook(lambda _module, _inputs, output: added.append(output))
    G.synthesis(ws, noise_mode='const')
    by_hand = torch.nn.functional.leaky_relu(0.3 * layer.noise.noise_const, 0.2) * 2**0.5
    assert relative_error(added[0], by_hand.expand(2, 2, -1, -1)) < 1e-6
    G.synthesis(ws, noise_mode='random')
    assert not torch.allclose(*added[1], atol=0.1)  # each image has its own


def test_coordinate_skips_show_the_features_to_every_layer_of_a_block_that_has_them():
    from inr.ops import layer

    plain, G = small(64).synthesis, small(64, coord_skips=True).synthesis
    E = G.b64.coords.num_features  # blocks of 32 and 64 have 4 and 2 channels
    assert [layer.weight.shape[1] for layer in plain.b64.layers] == [4 + E, 2]
    assert [layer.weight.shape[1] for layer in G.b64.layers] == [4 + E, 2 + E]
    assert [layer.weight.shape[1] for layer in G.b8.layers] == [8, 8]
    weight, bias, x, e = torch.randn(2, 5, 7), torch.randn(2, 5), torch.randn(2, 4, 3, 3), torch.randn(1, 3, 3, 3)
    joined = torch.einsum('noc,nchw->nohw', weight, torch.cat([x, e.expand(2, -1, -1, -1)], dim=1)) + bias[:, :, None, None]
    assert relative_error(layer.plain(weight, bias, x, e, None, 1, layer.Activation(1.0, 1.0)), joined) < 1e-6


def test_plain_learning_rates_store_weights_as_they_are_used():
    torch.manual_seed(3)
    G = small(32, squash='tanh')
    torch.manual_seed(3)
    plain = small(32, squash='tanh', equalized_lr=False)
    ws = G.mapping(torch.randn(2, 8), None)
    assert relative_error(plain.synthesis(ws), G.synthesis(ws)) < 1e-4
    assert relative_error(plain.mapping.fc0.weight, G.mapping.fc0.weight * G.mapping.fc0.weight_gain) < 1e-6
    assert {m.weight_gain for m in plain.modules() if hasattr(m, 'weight_gain')} == {1}
    for parameter in G.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    before = G(torch.ones(1, 8))
    plain_learning_rates(G)
    assert relative_error(G(torch.ones(1, 8)), before) < 1e-4 and {m.bias_gain for m in G.modules() if hasattr(m, 'bias_gain')} == {1}
    twin = Generator(**plain.init_kwargs)
    twin.load_state_dict(plain.state_dict())
    assert torch.equal(twin.synthesis(ws), plain.synthesis(ws))


def test_pixel_norm_is_an_option():
    G, free, z = small(32).eval(), small(32, pixel_norm=False).eval(), torch.randn(2, 8)
    assert torch.allclose(G.mapping(z, None), G.mapping(5 * z, None), atol=1e-5)
    assert not torch.allclose(free.mapping(z, None), free.mapping(5 * z, None), atol=1e-3)


def test_full_input_resolution_is_cips():
    """All blocks at the size of the image, coordinates at the input alone, no FMM: the shape of the public configuration."""
    _, state, config = load_public('cips_32')
    public = constructor_arguments(config)
    G = Generator(16, 0, 24, 32, 3, dict(num_layers=2), dict(
        channel_base=224, channel_max=7, fmm_rank=None, input_resolution='full', extra_layers={},
        input_features=dict(learned=6, constants=6, cosine=False, scale=3.0, init='uniform')))
    assert {k: v.shape for k, v in G.state_dict().items()} == {k: v.shape for k, v in Generator(**public).state_dict().items()}
    assert G.synthesis.pyramid.sizes == (32,) and G.synthesis.pointwise


@pytest.mark.parametrize('squash', ['demod', 'tanh', 'sigmoid'])
def test_activations_keep_their_size_through_a_deep_decoder(squash):
    G = Generator(16, 0, 16, 64, 3, dict(num_layers=1), dict(channel_base=4096, channel_max=64, squash=squash)).eval()
    assert 0.05 < G(torch.randn(8, 16)).std() < 20


def test_every_parameter_has_a_gradient_and_a_second_one():
    G = small(64, features={64: dict(log=8, random=2, learned=2, generated=2, constants=2)})
    image = G(torch.randn(2, 8))
    image.square().mean().backward()
    assert [name for name, p in G.named_parameters() if p.grad is None] == []
    ws = G.mapping(torch.randn(2, 8), None).detach().requires_grad_()
    (gradient,) = torch.autograd.grad((G.synthesis(ws) * torch.randn(2, 3, 64, 64)).sum(), ws, create_graph=True)
    gradient.square().sum().backward()
    assert G.synthesis.b64.layers[0].affine.weight.grad.abs().sum() > 0


def test_host_options_are_accepted_and_half_precision_stays_close():
    options = dict(num_fp16_res=2, conv_clamp=256, fp16_channels_last=True, half_dtype='bfloat16')
    G = small(64, **options).eval()
    ws = G.mapping(torch.randn(2, 8), None)
    half, full = G.synthesis(ws, noise_mode='const'), G.synthesis(ws, noise_mode='const', force_fp32=True)
    assert half.dtype == torch.float32 and 1e-5 < relative_error(half, full) < 0.05


def test_conv_clamp_limits_what_every_layer_gives():
    G, largest = small(32, conv_clamp=0.01).eval(), []
    for name, module in G.synthesis.named_modules():
        if name.endswith('torgb') or '.layers.' in name and name[-1].isdigit():
            module.register_forward_hook(lambda _module, _inputs, output: largest.append(output.abs().max().item()))
    G(torch.randn(2, 8) * 100)
    assert len(largest) == 11 and all(value == pytest.approx(0.01) for value in largest)


@pytest.mark.parametrize('features', [{}, dict(random=4, fine=4, footprint='pixel', damped=True)])
def test_weights_loaded_into_a_network_that_was_built_without_memory(features):
    options = dict(features=features, middles=bool(features))
    G = small(32, **options).eval()
    with torch.device('meta'):
        twin = small(32, **options).eval()
    twin.to_empty(device='cpu')
    for value in (*twin.parameters(), *twin.buffers()):
        value.data.fill_(7)
    twin.load_state_dict(G.state_dict())
    z = torch.randn(2, 8)
    assert torch.equal(twin(z, None), G(z, None))


@pytest.mark.parametrize('gradients', [False, True])
@pytest.mark.parametrize('impl', ['auto', 'ref'])
def test_no_images(impl, gradients):
    G = small(32).eval()
    with torch.set_grad_enabled(gradients):
        assert G(torch.zeros(0, 8), None, impl=impl).shape == (0, 3, 32, 32)


def test_double_z_in_place_ws_deepcopy_and_pickle():
    G = small(32).eval()
    z = torch.randn(2, 8, dtype=torch.float64)
    image = G(z=z, c=None, truncation_psi=0.7, truncation_cutoff=2, noise_mode='const')
    ws = G.mapping(z=z, c=None, truncation_psi=0.7, truncation_cutoff=2)
    kept = ws[:, 1].clone()
    ws[:, 0] = 0
    assert torch.equal(ws[:, 1], kept)
    stream = io.BytesIO()
    torch.save(G, stream)
    stream.seek(0)
    for twin in (copy.deepcopy(G), torch.load(stream, weights_only=False)):
        assert torch.equal(twin(z, None, truncation_psi=0.7, truncation_cutoff=2), image)


@pytest.mark.parametrize(
    'res, options, word',
    [
        (48, {}, 'resolution 48'), (8, {}, 'resolution 8'), (2048, {}, 'resolution 2048'), (32, dict(squash='cube'), "squash 'cube'"),
        (32, dict(fmm_rank=0), 'rank 0'), (32, dict(fmm_rnak=3), "unknown option 'fmm_rnak' .*did you mean 'fmm_rank'"),
        (32, dict(fmm_rank=999), 'rank 999 is above'), (32, dict(upsampling='cubic'), "upsampling 'cubic'"),
        (32, dict(half_dtype='int8'), 'int8'),
        (32, dict(input_features=dict(logs=3)), "feature 'logs'"), (32, dict(input_features={}), 'input needs'),
        (64, dict(input_resolution=48), 'input resolution 48'), (64, dict(input_resolution=128), 'input resolution 128'),
        (64, dict(extra_layers={48: 1}), 'resolution 48'), (64, dict(features={'999': dict(log=3)}), 'resolution 999'),
    ],
)  # fmt: skip
def test_mistakes_are_told(res, options, word):
    with pytest.raises(ValueError, match=word):
        small(res, **options)


def test_public_extra_layers_go_by_the_grid_and_missing_features_mean_none():
    _, _, config = load_public('inr_gan_64')
    cfg = config['cfg']
    cfg['num_extra_convs'] = {'32': 1, '64': 2}
    options = constructor_arguments(config)['synthesis_kwargs']
    assert options['extra_layers'] == {4: 1, 8: 1, 16: 1, 32: 1, 64: 2}
    cfg['coords']['enabled'] = False
    G = Generator(**constructor_arguments(config))
    assert G.synthesis.b64.coords is None and len(G.synthesis.b64.layers) == 4 and len(G.synthesis.b4.layers) == 2
    assert G.eval()(torch.randn(1, 16)).isfinite().all()


def test_public_defaults_where_a_configuration_is_silent():
    _, _, config = load_public('cips_32')
    of_input = constructor_arguments(config)['synthesis_kwargs']['input_features']
    assert of_input['init'] == 'uniform' and of_input['scale'] == 3  # the stored configuration says rand, and neither of the others:
    assert not (of_input['cosine'] or of_input['diagonal'] or of_input['raw']) and of_input['random'] == 0


def test_public_references_are_resolved():
    """Pickles hold the configuration as it was written, '${coords}' and all, and numbers as keys."""
    _, state, config = load_public('inr_gan_64')
    expected = constructor_arguments(config)
    cfg = config['cfg']
    cfg['parts'] = dict(fine=cfg['coords']['res_configs']['64'], again='${parts.fine}')
    cfg['coords']['res_configs'] = {int(key): value for key, value in cfg['coords']['res_configs'].items()}
    cfg['coords']['res_configs'][64] = '${model.generator.parts.again}'
    cfg['input'], cfg['source'] = '${source}', cfg['input']
    assert constructor_arguments(config) == expected and from_inr_gan(config, state).img_resolution == 64
    for value, message in (('${nowhere}', r"'\$\{nowhere\}' .* names nothing"), ('${coords}', 'names itself'), (3, 'another shape')):
        with pytest.raises(ValueError, match=message):
            constructor_arguments({**config, 'cfg': {**cfg, 'coords': value}})


@pytest.mark.parametrize(
    'path, value, word',
    [
        ('coords.fallback', True, 'fallback'), ('input.coord_fuser_cfg.per_resolution', False, 'per_resolution'),
        ('fmm.rank', None, "'rank'"), ('coords.kernel_size', 3, 'kernel_size'),
        ('upsampling_mode', None, "'upsampling_mode'"), ('coords.res_configs', {}, "'64'"),
    ],
)  # fmt: skip
def test_public_configurations_without_a_counterpart_are_refused(path, value, word):
    _, state, config = load_public('inr_gan_64')
    *folders, key = path.split('.')
    section = config['cfg']
    for folder in folders:
        section = section[folder]
    if value is None:
        del section[key]
    else:
        section[key] = value
    with pytest.raises(ValueError, match=word):
        from_inr_gan(config, state)


def test_constructor_arguments_are_a_copy_as_json_holds_them():
    options = dict(extra_layers={32: 1}, features={'64': dict(log=8)})
    G = small(64, **options)
    options['features']['64']['log'] = 3
    assert G.init_kwargs == json.loads(json.dumps(G.init_kwargs))
    assert G.init_kwargs['synthesis_kwargs']['extra_layers'] == {'32': 1}
    assert G.init_kwargs['synthesis_kwargs']['features']['64'] == dict(log=8)


def test_half_precision_keeps_the_first_block_and_takes_the_kind_asked_for():
    blocks = [small(32, num_fp16_res=9, half_dtype='bfloat16').synthesis.get_submodule(f'b{r}').dtype for r in (4, 8, 16, 32)]
    assert blocks == [torch.float32] + [torch.bfloat16] * 3
    assert [small(32, num_fp16_res=1).synthesis.get_submodule(f'b{r}').dtype for r in (16, 32)] == [torch.float32, torch.float16]


def test_layers_start_as_stylegan2s_do():
    """To-RGB and plain modulation start around scales of 1, FMM around factors of 0; no constants above 256."""
    plain, fmm = small(32, fmm_rank=None).synthesis, small(32).synthesis
    assert torch.equal(plain.b8.layers[0].affine.bias, torch.ones(8)) and torch.equal(plain.b8.torgb.affine.bias, torch.ones(8))
    assert not fmm.b8.layers[0].affine.bias.any()
    assert feature_rule(512).constants == 0 and feature_rule(256).constants == 64


@pytest.mark.parametrize('shape', [(2, 10, 8), (2, 9, 7), (9, 8)])
def test_ws_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r'takes \[N, 8, 8\]'):
        small(32).synthesis(torch.zeros(shape))
