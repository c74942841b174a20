"""The contract of design: one test for every generator there is, called as hosts of the family call them."""

import copy
import io

import pytest
import torch

from dnnlib.util import construct_class_by_name
from torch_utils.misc import count_parameters
from training import config
from training.presets import PRESETS

HOST_OPTIONS = dict(channel_base=512, channel_max=16, num_fp16_res=0, conv_clamp=None, fp16_channels_last=False)


def cases():
    """(class name, synthesis_kwargs) of every generator: the presets' and, of those with rungs, every rung."""
    found = {'stylegan2': ('training.networks.Generator', {})}
    try:
        from inr.decoders import DECODERS
        from inr.presets import PRESETS as of_inr
    except ModuleNotFoundError:
        return found
    for name, row in of_inr.items():
        found[name] = row['G'], row['synthesis']
    for decoder in DECODERS:
        found[f'paper {decoder}'] = of_inr['paper']['G'], {**of_inr['paper']['synthesis'], 'decoder': decoder}
    found['inr noise skips'] = of_inr['inr']['G'], {**of_inr['inr']['synthesis'], 'noise': True, 'coord_skips': True}
    found['inr plain'] = of_inr['inr']['G'], {**of_inr['inr']['synthesis'], 'equalized_lr': False, 'pixel_norm': False}
    return found


CASES = cases()


def build(name, c_dim=0, res=32):
    class_name, synthesis = CASES[name]
    return construct_class_by_name(class_name=class_name, z_dim=8, c_dim=c_dim, w_dim=12, img_resolution=res, img_channels=3,
                                   mapping_kwargs=dict(num_layers=2), synthesis_kwargs={**HOST_OPTIONS, **synthesis})


@pytest.mark.parametrize('name', CASES)
def test_contract(name):
    G = build(name).train()
    assert (G.z_dim, G.c_dim, G.w_dim, G.img_resolution, G.img_channels) == (8, 0, 12, 32, 3)
    assert G.num_ws == G.mapping.num_ws == G.synthesis.num_ws > 2 and G.mapping.w_avg.shape == (12,)
    rebuilt = type(G)(**G.init_kwargs)
    rebuilt.load_state_dict(G.state_dict(), strict=True)

    before = G.mapping.w_avg.clone()
    G.mapping(torch.randn(4, 8), None, skip_w_avg_update=True)
    assert torch.equal(G.mapping.w_avg, before)
    ws = G.mapping(z=torch.randn(4, 8), c=None)
    assert ws.shape == (4, G.num_ws, 12) and not torch.equal(G.mapping.w_avg, before)
    kept = ws[:, 1].clone()
    ws[:, 0] = 0  # in place, as style mixing does
    assert torch.equal(ws[:, 1], kept)

    G.eval().requires_grad_(False)
    z = torch.randn(2, 8, dtype=torch.float64)
    image = G(z=z, c=None, truncation_psi=0.7, truncation_cutoff=2, noise_mode='const', force_fp32=True)
    assert image.shape == (2, 3, 32, 32) and image.dtype == torch.float32 and image.isfinite().all()
    ws = G.mapping(z, None, truncation_psi=0.7, truncation_cutoff=2)
    assert torch.equal(G.synthesis(ws=ws, noise_mode='const', force_fp32=True), image)
    assert torch.equal(ws[:, 2:], G.mapping(z, None)[:, 2:]) and not torch.equal(ws[:, :2], G.mapping(z, None)[:, :2])
    stream = io.BytesIO()
    torch.save(G, stream)
    stream.seek(0)
    for twin in (copy.deepcopy(G), torch.load(stream, weights_only=False)):
        assert torch.equal(twin.synthesis(ws, noise_mode='const'), image)
    for wrong in (ws[:, 1:], ws[..., 1:], ws[:, 0]):
        with pytest.raises(ValueError, match=r'\[N, '):
            G.synthesis(wrong)
    with pytest.raises(ValueError, match='noise_mode'):
        G.synthesis(ws, noise_mode='loud')


@pytest.mark.parametrize('name', CASES)
def test_every_parameter_learns_and_path_lengths_have_gradients(name):
    G = build(name, c_dim=3).train()
    ws = G.mapping(torch.randn(4, 8), torch.eye(3)[[0, 1, 2, 0]])
    image = G.synthesis(ws)
    (gradient,) = torch.autograd.grad((image * torch.randn_like(image)).sum(), ws, create_graph=True)
    (gradient.square().sum() + image.mean()).backward()
    assert [key for key, p in G.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()] == []


@pytest.mark.parametrize('name', CASES)
def test_half_precision_is_close(name):
    class_name, synthesis = CASES[name]
    options = dict(z_dim=8, c_dim=0, w_dim=12, img_resolution=32, img_channels=3, mapping_kwargs=dict(num_layers=2))
    half = construct_class_by_name(class_name=class_name, **options, synthesis_kwargs={
        **HOST_OPTIONS, **synthesis, 'num_fp16_res': 2, 'conv_clamp': 256, 'half_dtype': 'bfloat16'}).eval()
    ws = half.mapping(torch.randn(2, 8), None)
    rough, exact = half.synthesis(ws, noise_mode='const'), half.synthesis(ws, noise_mode='const', force_fp32=True)
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    assert ((rough - exact).norm() / exact.norm()).item() < 0.05


def rows():
    """All presets of training and of inr."""
    try:
        from inr.presets import PRESETS as of_inr
    except ModuleNotFoundError:
        of_inr = {}
    return {**PRESETS, **of_inr}


@pytest.mark.parametrize('resolution', [16, 64, 256, 1024])
@pytest.mark.parametrize('name', rows())
def test_presets_build_at_every_resolution_and_width_shrinks_them(name, resolution):
    def counts(width):
        data = config.DataConfig('a.zip', 'd', resolution, 3, 10, 0, None, False, None)
        settings = config.build(name, rows()[name], data, width=width)
        with torch.device('meta'):
            G = construct_class_by_name(class_name=settings.generator.class_name, **settings.generator_kwargs())
            D = construct_class_by_name(class_name=settings.discriminator.class_name, **settings.discriminator_kwargs(1))
        assert G.img_resolution == D.img_resolution == resolution
        constants = sum(p.numel() for key, p in G.named_parameters() if key.endswith('const_embs'))
        return count_parameters(G) - constants, count_parameters(D)

    (G, D), (G_half, D_half) = counts(1), counts(0.5)
    assert 0.2 < G_half / G < 0.6 and 0.2 < D_half / D < 0.6
    assert counts(0.001)[0] < G_half
