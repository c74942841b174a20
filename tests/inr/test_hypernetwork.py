"""Generator A: published sizes, a plain oracle of the whole generator, the rungs of Table 4, the ends of appendix E."""

import math

import pytest
import torch

from inr import hypernetwork, render
from inr.hypernetwork import DECODERS, BlockSpec, Generator, InrLayer, Trunk, block_specs
from tests.helpers import relative_error


def small(res=32, decoder='multiscale', c_dim=0, channels=3, **synthesis):
    synthesis = {'channel_max': 16, 'fmm_rank': 3, **synthesis}
    return Generator(8, c_dim, 12, res, channels, dict(num_layers=3), dict(decoder=decoder, **synthesis)).eval()


def scramble(G):
    """Makes every parameter count: small ones (biases of heads, residual scales) too."""
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return G


# ---- Sizes


def test_published_sizes():
    """Appendix A: 256 has blocks of 128 and 256 with 4 layers of 512; 1024 adds 512 with 2 of 128 and 1024 with 2 of 32, 3 layers below."""
    multiscale = DECODERS['multiscale']
    assert block_specs(256, 512, multiscale) == [BlockSpec(128, 0, 512, 4, 256), BlockSpec(256, 512, 512, 4, 128)]
    assert block_specs(1024, 512, multiscale) == [
        BlockSpec(128, 0, 512, 3, 256), BlockSpec(256, 512, 512, 3, 128), BlockSpec(512, 512, 128, 2, 32), BlockSpec(1024, 128, 32, 2, 8)
    ]  # fmt: skip
    between = {res: [spec.grid for spec in block_specs(res, 512, multiscale)] for res in (16, 32, 64, 128, 512)}
    assert between == {16: [8, 16], 32: [16, 32], 64: [32, 64], 128: [64, 128], 512: [128, 256, 512]}
    assert block_specs(256, 512, DECODERS['fmm']) == [BlockSpec(256, 0, 512, 8, 256)]
    assert block_specs(256, 128, DECODERS['hyper']) == [BlockSpec(256, 0, 128, 8, 0)]
    with pytest.raises(ValueError, match='resolution 48'):
        block_specs(48, 512, multiscale)


def test_numbers_of_one_layer_by_hand():
    """A hidden FMM layer at 256: 512 + 256 inputs, 512 outputs, rank 10: (512 + 768) 10 factors and 512 biases out of 1024 numbers."""
    with torch.device('meta'):
        layer = Generator(512, 0, 1024, 256, 3).synthesis.b256.layers[1]
    assert layer.weight.shape == (512, 768)
    assert layer.head.weight.shape == ((512 + 768) * 10 + 512, 1024) and layer.head.bias.shape == (13312,)


def test_trunk_has_three_layers_with_residuals_after_the_first():
    trunk = Trunk(8, 0, 12, num_ws=4).eval()
    assert [layer.weight.shape for layer in trunk.layers] == [(12, 8), (12, 12), (12, 12)]
    assert torch.equal(trunk.residual_scales, torch.full([2], 0.1))
    trunk.residual_scales.data.copy_(torch.tensor([0.5, -2.0]))
    z = torch.randn(3, 8, dtype=torch.float64)
    a, b, c = ((layer.weight, layer.bias) for layer in trunk.layers)
    x = (z.float() @ a[0].T + a[1]).clamp(min=0)
    x = x + 0.5 * (x @ b[0].T + b[1]).clamp(min=0)
    x = x - 2 * (x @ c[0].T + c[1]).clamp(min=0)
    ws = trunk(z)
    assert ws.shape == (3, 4, 12) and relative_error(ws, x[:, None].expand(-1, 4, -1)) < 1e-6


def test_labels_are_embedded_beside_z():
    trunk = Trunk(8, 3, 12, num_ws=1, embed_features=5)
    assert trunk.layers[0].weight.shape == (12, 8 + 5) and Trunk(8, 3, 12, num_ws=1).layers[0].weight.shape == (12, 16)
    z, c = torch.randn(2, 8), torch.eye(3)[[2, 0]]
    joined = Trunk(13, 0, 12, num_ws=1)
    joined.layers.load_state_dict(trunk.layers.state_dict())
    assert torch.allclose(trunk(z, c), joined(torch.cat([z, trunk.embedding[[2, 0]]], dim=1)), atol=1e-6)
    with pytest.raises(ValueError, match=r'needs c of shape \[N, 3\], it was given None'):
        trunk(z, None)


def test_truncation_draws_the_inner_representation_to_its_running_mean():
    trunk = Trunk(8, 0, 12, num_ws=4, w_avg_beta=0.75)
    z = torch.randn(5, 8)
    trunk(z, skip_w_avg_update=True)
    assert not trunk.w_avg.any()
    ws = trunk(z)
    mean = ws[:, 0].mean(dim=0)
    assert torch.allclose(trunk.w_avg, 0.25 * mean)
    trunk.eval()
    cut = trunk(z, None, truncation_psi=0.7, truncation_cutoff=3)
    assert torch.allclose(cut[:, :3], 0.7 * ws[:, :3] + 0.3 * trunk.w_avg, atol=1e-6) and torch.equal(cut[:, 3], ws[:, 3])
    assert torch.allclose(trunk.w_avg, 0.25 * mean)  # drawing does not move it


def test_pixel_norm_is_an_option():
    trunk, z = Trunk(8, 0, 12, num_ws=1, pixel_norm=True), torch.randn(2, 8)
    assert torch.allclose(trunk(z), trunk(7 * z), atol=1e-5)
    plain = Trunk(8, 0, 12, num_ws=1)
    assert not torch.allclose(plain(z), plain(7 * z), atol=1e-2)


# ---- A plain oracle


def oracle(G, w):
    """The image of one w for all layers, as the facts tell it: concatenate, multiply, upsample, one image and one block at a time."""
    images = []
    for n in range(len(w)):
        x = img = None
        for name in G.synthesis.block_names:
            block = G.synthesis.get_submodule(name)
            R = block.spec.grid
            p = torch.stack(torch.meshgrid(torch.arange(R) / R, torch.arange(R) / R, indexing='xy'), dim=-1)  # [R, R, 2], x and y
            if block.spec.rows:
                angles = p @ (10 * block.coords.head(w[n]).reshape(-1, 2)).T
                e = torch.cat([angles.sin(), angles.cos()], dim=-1)  # [R, R, E]
            else:
                e = 2 * p - 1
            if x is not None:
                below, beside = (layer(w[n : n + 1]) for layer in block.connector)
                x = (x @ below[0][0].T + below[1][0]).repeat_interleave(2, 0).repeat_interleave(2, 1)
                x = (x + e @ beside[0][0].T + beside[1][0]).clamp(min=0)
            for index, layer in enumerate(block.layers):
                weight, bias = layer(w[n : n + 1])
                parts = ([] if x is None else [x]) + ([e] if block.uses_coords[index] else [])
                x = (torch.cat(parts, dim=-1) @ weight[0].T + bias[0]).clamp(min=0)
            weight, bias = block.torgb(w[n : n + 1])
            rgb = x @ weight[0].T + bias[0]
            img = rgb if img is None else img.repeat_interleave(2, 0).repeat_interleave(2, 1) + rgb
        images.append(img.permute(2, 0, 1).tanh())
    return torch.stack(images)


@pytest.mark.parametrize('decoder', DECODERS)
@pytest.mark.parametrize('coord_skips', [True, False])
def test_generator_against_the_plain_oracle(decoder, coord_skips):
    G = small(32, decoder, coord_skips=coord_skips)
    w = G.mapping(torch.randn(2, 8))
    assert relative_error(G.synthesis(w), oracle(G, w[:, 0])) < 1e-5
    assert G.synthesis(w).std() > 0.01


def test_hidden_layers_see_the_coordinates_unless_told_otherwise():
    seeing, blind = small().synthesis, small(coord_skips=False).synthesis
    assert [layer.shape[1] for layer in seeing.b16.layers] == [16, 32, 32, 32]  # the first has nothing below, and sees them once
    assert [layer.shape[1] for layer in seeing.b32.layers] == [32] * 4
    assert [layer.shape[1] for layer in blind.b16.layers] == [16] * 4 and [layer.shape[1] for layer in blind.b32.layers] == [16] * 4
    assert [layer.shape[1] for layer in seeing.b32.connector] == [16, 16]


# ---- Layers


def test_fmm_layer_by_hand():
    """W = W_s 2 sigmoid(A B), no 1/sqrt(r); the bias is generated and scaled (appendix E; facts)."""
    layer = InrLayer(6, 4, 12, 'fmm', hypernetwork.Modulation(3, '2sigmoid', equalized=False), gain=0.5, bias_gain=0.1)
    w = torch.randn(2, 12)
    numbers = w @ layer.head.weight.T + layer.head.bias
    A, B, b = numbers[:, :12].reshape(2, 4, 3), numbers[:, 12:30].reshape(2, 3, 6), numbers[:, 30:]
    weight, bias = layer(w)
    assert relative_error(weight, layer.weight * 2 / (1 + torch.exp(-A @ B))) < 1e-6 and torch.allclose(bias, 0.1 * b)


def test_full_rank_reproduces_the_weights_of_a_hypernetwork():
    """Appendix E: with B the identity and A = s^-1(W / W_s) an FMM layer has a hypernetwork's weights, where W / W_s is in (0, 2)."""
    hyper = InrLayer(6, 4, 12, 'generated', hypernetwork.Modulation(), gain=1, bias_gain=1)
    full = InrLayer(6, 4, 12, 'fmm', hypernetwork.Modulation('full', '2sigmoid', equalized=False), gain=1, bias_gain=1)
    w = torch.randn(5, 12)
    wanted = hyper(w)[0]
    full.weight.data = wanted.abs().amax(dim=0) * wanted[0].sign() * 1.2
    reachable = (wanted / full.weight > 0) & (wanted / full.weight < 2)
    assert 0.4 < reachable.float().mean() < 1
    ratio = (wanted / full.weight).clamp(1e-4, 2 - 1e-4)

    class Answer(torch.nn.Module):
        def forward(self, w):
            return torch.cat([torch.logit(ratio / 2).flatten(1), torch.zeros(5, 4)], dim=1)

    full.head = Answer()
    got = full(w)[0]
    assert relative_error(got[reachable], wanted[reachable]) < 1e-4
    assert full.modulation.num_styles(6, 4) == 24


def test_rank_one_is_an_outer_product():
    layer = InrLayer(6, 4, 12, 'fmm', hypernetwork.Modulation(1, '2sigmoid', equalized=False), gain=1, bias_gain=1)
    w = torch.randn(3, 12)
    logits = torch.logit(layer(w)[0] / layer.weight / 2).double()  # [N, C_out, C_in]
    ranks = torch.linalg.matrix_rank(logits, rtol=1e-4)
    assert ranks.tolist() == [1, 1, 1]
    numbers = layer.head(w)
    assert torch.allclose(logits[0].float(), torch.outer(numbers[0, :4], numbers[0, 4:10]), atol=1e-4)


def test_how_layers_start():
    torch.manual_seed(1)
    block = Generator(64, 0, 256, 256, 3, synthesis_kwargs=dict(channel_max=128)).synthesis.b256
    assert block.layers[0].weight.std().item() == pytest.approx(math.sqrt(2 / 192), rel=0.05)
    assert block.connector[0].weight.std().item() == pytest.approx(math.sqrt(1 / 128), rel=0.05)
    assert block.connector[0].bias_gain == math.sqrt(1 / 128) and block.connector[1].bias_gain == math.sqrt(1 / 64)
    assert block.layers[0].bias_gain == pytest.approx(0.2 * math.sqrt(2 / 192))
    assert block.torgb.gain == pytest.approx(math.sqrt(2 / 128) / math.sqrt(2))
    assert block.torgb.bias_gain == pytest.approx(0.2 * block.torgb.gain)
    assert block.layers[0].head.bias.abs().max() <= 1 / 256 and block.layers[0].head.weight.abs().max() > 0.9 / 16


def test_equalized_learning_rate_stores_unit_spread_and_draws_alike():
    plain, G = small(32), small(32, equalized_lr=True)
    assert G.synthesis.b32.layers[0].weight.std().item() == pytest.approx(1, rel=0.1)
    assert G.mapping.layers[1].weight.std().item() == pytest.approx(1, rel=0.2)
    z = torch.randn(64, 8)
    assert 0.5 < (G(z).std() / plain(z).std()).item() < 2


# ---- The rungs


def test_basic_is_a_plain_network_on_coordinates_and_latent():
    G = scramble(small(16, 'basic'))
    w = G.mapping(torch.randn(2, 8))[:, 0]
    layers = G.synthesis.b16.layers
    first = layers[0]
    joined = torch.cat([first.weight, first.head.weight], dim=1)  # W of [p; w]
    axis = torch.arange(16) / 8 - 1
    p = torch.stack(torch.meshgrid(axis, axis, indexing='xy'), dim=-1).reshape(-1, 2)
    for n in range(2):
        x = (torch.cat([p, w[n].expand(256, -1)], dim=1) @ joined.T + first.bias + first.head.bias).relu()
        for layer in list(layers)[1:]:
            x = (torch.cat([x, p], dim=1) @ layer.weight.T + layer.bias).relu()
        rgb = (x @ G.synthesis.b16.torgb.weight.T + G.synthesis.b16.torgb.bias).tanh()
        assert relative_error(G.synthesis(w[:, None].expand(-1, G.num_ws, -1))[n].reshape(3, -1).T, rgb) < 1e-5
    assert all(layer.head is None for layer in list(layers)[1:])


@pytest.mark.parametrize('decoder', ['hyper', 'fourier'])
def test_hypernetwork_rungs_share_no_weights_of_the_inr(decoder):
    G = small(16, decoder)
    assert G.parameter_groups()['inr'] == []
    per_layer = [layer.head.out_features for layer in G.synthesis.b16.layers]
    seen = 2 if decoder == 'hyper' else 16
    assert per_layer == [16 * seen + 16] + [16 * (16 + seen) + 16] * 7


@pytest.mark.parametrize('decoder', DECODERS)
def test_parameter_groups_hold_every_parameter_once(decoder):
    G = small(16, decoder, c_dim=2)
    groups = G.parameter_groups()
    assert sorted(groups) == ['inr', 'trunk']
    assert sorted(id(p) for group in groups.values() for p in group) == sorted(id(p) for p in G.parameters())
    shared = sum(p.numel() for p in groups['inr'])
    if decoder in ('fmm', 'multiscale'):
        assert shared == sum(p.numel() for name, p in G.named_parameters() if name.endswith('.weight') and 'head' not in name
                             and name.startswith('synthesis'))
    trunk = {id(p) for p in groups['trunk']}
    assert trunk >= {id(p) for p in G.mapping.parameters()}


@pytest.mark.parametrize('decoder', DECODERS)
def test_every_parameter_has_a_gradient_and_a_second_one(decoder):
    G = small(16, decoder, c_dim=2)
    ws = G.mapping(torch.randn(4, 8), torch.eye(2)[[0, 1, 0, 1]])
    image = G.synthesis(ws)
    (gradient,) = torch.autograd.grad((image * torch.randn_like(image)).sum(), ws, create_graph=True)
    (gradient.square().sum() + image.square().sum()).backward()
    assert [name for name, p in G.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()] == []
    assert G.mapping.layers[0].weight.grad.abs().sum() > 0


# ---- Drawing


@pytest.mark.parametrize('decoder', DECODERS)
@pytest.mark.parametrize('refine', ['last', 'all', 'smooth'])
def test_any_size_and_tiles_agree_with_the_whole(decoder, refine):
    G = small(32, decoder)
    ws = G.mapping(torch.randn(1, 8))
    assert torch.equal(render.render(G, ws, 32, 32, refine=refine), G.synthesis(ws))
    window = (-0.3, -0.2, 1.2, 1.3)
    whole = render.render(G, ws, 45, 77, window, refine)
    corners = [(top, left) for top in range(0, 45, 15) for left in range(0, 77, 11)]
    parts = [render.render(G, ws, 45, 77, window, refine, tile=(*corner, 15, 11)) for corner in corners]
    tiled = torch.cat([torch.cat(parts[7 * row : 7 * row + 7], dim=3) for row in range(3)], dim=2)
    assert (tiled - whole).abs().max() < 1e-5
    assert (render.render(G, ws, 45, 77, window, refine, max_bytes=1 << 16) - whole).abs().max() < 1e-5


def test_super_resolution_keeps_the_lower_grid():
    """Fig. 14: the lower block stays on its trained grid, so every fourth pixel of a 4x picture is the trained one."""
    G = small(32)
    ws = G.mapping(torch.randn(1, 8))
    large = render.render(G, ws, 128, 128, refine='last')
    assert (large[:, :, ::4, ::4] - G.synthesis(ws)).abs().max() < 1e-5


def test_half_precision_stays_close_and_force_fp32_undoes_it():
    G = small(32, num_fp16_res=1, half_dtype='bfloat16', conv_clamp=256)
    ws = G.mapping(torch.randn(2, 8))
    half, full = G.synthesis(ws), G.synthesis(ws, force_fp32=True)
    assert [G.synthesis.b16.dtype, G.synthesis.b32.dtype] == [torch.float32, torch.bfloat16]
    assert half.dtype == torch.float32 and 1e-5 < relative_error(half, full) < 0.05


@pytest.mark.parametrize('gradients', [False, True])
def test_no_images_and_a_label_for_each_z(gradients):
    G = small(32, c_dim=2)
    with torch.set_grad_enabled(gradients):
        assert G(torch.zeros(0, 8), torch.zeros(0, 2)).shape == (0, 3, 32, 32)
    with pytest.raises(ValueError, match='was given 3 z and 1 c: a label for each'):
        G(torch.zeros(3, 8), torch.zeros(1, 2))


def test_conv_clamp_limits_activations():
    G = small(32, conv_clamp=1e-3)
    free = small(32)
    free.load_state_dict(G.state_dict())
    ws = G.mapping(torch.randn(2, 8))
    assert G.synthesis(ws).abs().max() < 0.05 < free.synthesis(ws).abs().max()


@pytest.mark.parametrize('options, word', [
    (dict(decoder='multi'), "decoder 'multi'"), (dict(fmm_rank=0), 'rank 0'), (dict(fmm_rank='fool'), "rank 'fool'"),
    (dict(fmm_rank=33), 'rank 33 is above the 32 inputs'),
    (dict(fmm_rank=None), 'needs a rank of FMM'), (dict(fmm_rank=2.5), "rank '2.5'"), (dict(channel_max=0), 'channel_max=0'),
    (dict(num_fp16_res=-1), '-1 blocks in half'), (dict(half_dtype='int8'), 'int8'),
])  # fmt: skip
def test_mistakes_are_told(options, word):
    with pytest.raises(ValueError, match=word):
        small(32, **options)
    with pytest.raises(ValueError, match='resolution 24'):
        small(24)
    with pytest.raises(ValueError, match='num_layers 0'):
        Trunk(8, 0, 12, 1, num_layers=0)
