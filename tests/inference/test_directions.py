"""Directions in w: known answers, files, and what is moved."""

import numpy as np
import pytest
import torch

from dnnlib.util import UserError
from inference import directions, latents
from tests import tiny_snapshots


def generator_a(**options):
    module = pytest.importorskip('inr.hypernetwork')
    return module.Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3, mapping_kwargs={'num_layers': 2},
                            synthesis_kwargs={'channel_max': 8, 'fmm_rank': 2, **options})


MAKERS = [tiny_snapshots.stylegan2, tiny_snapshots.inr, generator_a]


@pytest.mark.parametrize('make', MAKERS)
def test_all_affine_layers_are_found(make):
    G = make().eval().requires_grad_(False)
    found = directions.affine_layers(G)
    names = [name for name, module in G.synthesis.named_modules()
             if name.endswith(('affine', 'head')) and not list(module.children())]
    assert len(found) == len(names) > 0 and {i for i, _ in found} == set(range(G.num_ws))
    modules = dict(G.synthesis.named_modules())
    w = torch.randn(1, G.w_dim)
    expected = torch.cat([modules[name](w)[0] - modules[name](0 * w)[0] for name in names])
    assert torch.allclose(torch.cat([matrix @ w[0] for _, matrix in found]).sort()[0], expected.sort()[0], atol=1e-5)


@pytest.mark.parametrize('make', MAKERS)
def test_sefa_finds_the_one_direction_that_counts(make):
    G = make().eval().requires_grad_(False)
    planted = torch.nn.functional.normalize(torch.randn(G.w_dim), dim=0)
    for name, module in G.synthesis.named_modules():
        if name.endswith(('affine', 'head')):
            outputs = module.weight.shape[0]
            module.weight.copy_(torch.randn(outputs, 1) * planted + 1e-4 * torch.randn(outputs, G.w_dim))
    found = directions.find(G, samples=256)
    assert abs(torch.nn.functional.cosine_similarity(found.vectors[0], planted, dim=0)) > 0.999 and found.shares[0] > 0.99
    assert found.shares.sum() == pytest.approx(1) and (found.vectors.gather(1, found.vectors.abs().argmax(1, keepdim=True)) > 0).all()
    along = latents.latents_of(G, 1, None)
    moved = found.moved(along, [(0, 2.0)])
    still = found.moved(along, [(5, 2.0)])
    own, far, near = (G.synthesis(ws, noise_mode='const') for ws in (along, moved, still))
    assert (far - own).norm() > 30 * (near - own).norm()


def test_pca_and_lengths(monkeypatch):
    G = tiny_snapshots.stylegan2()
    basis = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    deviations = torch.tensor([5.0, 3, 2, 1, 0.5, 0.2, 0.1, 0.0])
    w = 7 + torch.randn(50000, 8, dtype=torch.float64) * deviations @ basis.T
    monkeypatch.setattr(directions, 'sampled_w', lambda G, count: w)
    found = directions.find(G, 'pca', count=3)
    assert found.vectors.shape == (3, 8) and found.method == 'pca'
    assert (found.vectors.double() @ basis[:, :3]).abs().numpy() == pytest.approx(np.diag([5, 3, 2]), abs=0.1)
    assert found.shares.numpy() == pytest.approx(np.array([25, 9, 4]) / 39.3, rel=0.03)
    of_weights = directions.find(G, 'sefa').vectors.double()
    unit = of_weights / of_weights.norm(dim=1, keepdim=True)
    assert of_weights.norm(dim=1).numpy() == pytest.approx((w @ unit.T).std(dim=0).numpy(), rel=1e-4)


def test_samples_are_seeds_of_their_classes():
    G = tiny_snapshots.stylegan2(c_dim=3).eval()
    w = directions.sampled_w(G, 5)
    assert torch.allclose(w[4], latents.latents_of(G, 4, latents.label_of_seed(G, 4))[0, 0], atol=1e-6)


def test_only_the_layers_asked_for_are_looked_at_and_moved():
    G = tiny_snapshots.inr().eval().requires_grad_(False)
    all_layers, some = directions.find(G, samples=64), directions.find(G, layers=[1, 2], samples=64)
    assert not torch.allclose(all_layers.vectors[0], some.vectors[0], atol=1e-3)
    ws = latents.latents_of(G, 3, None)
    moved = some.moved(ws, [(0, 1.5), (2, -1.0)]) - ws
    expected = 1.5 * some.vectors[0] - some.vectors[2]
    assert torch.allclose(moved[0, 1], expected, atol=1e-6) and torch.allclose(moved[0, 2], expected, atol=1e-6)
    assert moved[0, 0].abs().max() == 0 == moved[0, 3:].abs().max()
    for layers in ([], [-1], [G.num_ws]):
        with pytest.raises(UserError, match=f'--layers: this network has the layers 0 to {G.num_ws - 1}'):
            directions.find(G, layers=layers)


def test_along_and_swing():
    found = directions.Directions(torch.eye(4)[:2], torch.ones(2), (0, 1), 'sefa')

    class Still:
        def at(self, stop, share):
            return torch.zeros(1, 3, 4)

    codes = found.along({'a': torch.zeros(1, 3, 4), 'b': torch.ones(1, 3, 4)}, 1, [-1.0, 0.5])
    assert list(codes) == ['a-1.00', 'a+0.50', 'b-1.00', 'b+0.50'] and codes['b+0.50'][0, :, 1].tolist() == [1.5, 1.5, 1.0]
    swing = found.swing(Still(), 0, (-2.0, 1.0))
    assert [swing.at(*moment)[0, 0, 0].item() for moment in ((0, 0), (0, 0.5), (1, 0), (1, 0.5), (2, 0))] == [-2, -0.5, 1, -0.5, -2]
    for act in (lambda: found.along(codes, 2, [1.0]), lambda: found.swing(Still(), 2, (0, 1))):
        with pytest.raises(UserError, match='there are the directions 0 to 1'):
            act()


def test_files(tmp_path):
    G, other = (tiny_snapshots.stylegan2().eval() for _ in range(2))
    found = directions.find(G, 'pca', layers=[0, 2], samples=64)
    directions.save(tmp_path / 'a.npz', found, G)
    again = directions.load_or_find(tmp_path / 'a.npz', G)
    assert torch.equal(again.vectors, found.vectors) and torch.equal(again.shares, found.shares)
    assert (again.layers, again.method, len(again)) == ((0, 2), 'pca', 8)
    assert directions.load_or_find(None, G).method == 'sefa'
    digest = latents.network_digest(G)
    np.savez(tmp_path / 'wide.npz', vectors=np.zeros([2, 9]), layers=np.arange(2), network=digest)
    np.savez(tmp_path / 'far.npz', vectors=np.zeros([2, 8]), layers=np.array([99]), network=digest)
    np.savez(tmp_path / 'none.npz', layers=np.array([0]))
    for name, G_given, said in [('a.npz', other, 'found in another network'), ('wide.npz', G, r'\[K, 8\]'),
                                ('far.npz', G, 'layers must be'),
                                ('none.npz', G, "no array 'vectors'"), ('lost.npz', G, 'no such file; analyze.py directions writes')]:
        with pytest.raises(UserError, match=said):
            directions.load(tmp_path / name, G_given)
