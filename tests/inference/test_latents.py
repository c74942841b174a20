"""Between two latents."""

import numpy as np
import pytest
import torch

from dnnlib.util import UserError
from inference.latents import (
    class_columns,
    class_label,
    class_means,
    class_of_seed,
    label_of_seed,
    labels_of_seeds,
    latents_of,
    load_projection,
    one_hot,
    save_projection,
    slerp,
    truncated,
)
from tests import tiny_snapshots


def test_slerp_keeps_to_the_circle_and_is_finite_everywhere():
    a, b = np.array([[3.0, 0, 0]]), np.array([[0, 5.0, 0]])
    assert slerp(a, b, 0) == pytest.approx(a) and slerp(a, b, 1) == pytest.approx(b)
    assert slerp(a, b, 0.5) == pytest.approx(4 * np.array([[1, 1, 0]]) / np.sqrt(2))
    for other in (a, 2 * a, -a, 0 * a):
        for share in (0, 0.3, 1):
            assert slerp(a, other, share) == pytest.approx(a + (other - a) * share)
            assert slerp(other, a, share) == pytest.approx(other + (a - other) * share)


def test_slerp_of_nearly_the_same_direction_warns_of_nothing():
    for seed in range(30):  # rounding makes some of these cosines larger than 1
        a = np.random.RandomState(seed).randn(1, 64)
        assert slerp(a, 3 * a, 0.5) == pytest.approx(2 * a)


def test_a_class_by_number_or_text():
    G = tiny_snapshots.stylegan2(c_dim=3)
    for given in (2, '2', 'emu'):
        assert class_label(G, given, ['cat', 'dog', 'emu']).tolist() == [[0, 0, 1]]


def test_a_group_of_classes_draws_from_all_of_them(capsys):
    G, names = tiny_snapshots.stylegan2(c_dim=5), ['cat/1', 'dog/1', 'cat/2', 'cat', 'dog/2']
    index = [int(label_of_seed(G, seed, 'dog', names).argmax()) for seed in range(4)]
    assert index == [1, 4, 1, 4] and [int(c.argmax()) for c in labels_of_seeds(G, [0, 1, 2, 3], 'dog', names)] == index
    assert int(class_label(G, 'dog', names).argmax()) == 1 and int(class_label(G, 'dog/2', names, seed=2).argmax()) == 4
    assert int(class_label(G, 'cat', names, seed=1).argmax()) == 3  # a class of that very name
    digits = ['0/1', '2/1', '0/2', '2/2', 'dog/x']
    assert int(class_label(G, '2', digits).argmax()) == 1 and int(class_label(G, '3', digits).argmax()) == 3  # a group before a number
    with pytest.raises(UserError, match="--class=dog: no such class"):
        class_label(G, 'dog', digits)
    with pytest.raises(UserError, match="--class=dgo: no such class. Did you mean 'dog'"):
        class_label(G, 'dgo', names)
    labels_of_seeds(G, [0], names=names)
    assert 'all 2 (cat, dog), and of each its clusters in turn, 5 in all' in capsys.readouterr().out


def test_seeds_go_round_the_groups_and_the_classes_of_each():
    G, names = tiny_snapshots.stylegan2(c_dim=6), ['cat/1', 'dog/1', 'cat/2', 'cat', 'dog/2', 'emu']
    assert [class_of_seed(seed, 6, names) for seed in range(12)] == [0, 1, 5, 2, 4, 5, 3, 1, 5, 0, 4, 5]
    assert [int(c.argmax()) for c in labels_of_seeds(G, [3, 4, 11], names=names)] == [2, 4, 5]
    assert int(label_of_seed(G, 9, names=names).argmax()) == 0
    assert [class_of_seed(seed, 3) for seed in range(4)] == [class_of_seed(seed, 3, 'abc') for seed in range(4)] == [0, 1, 2, 0]


def test_classes_that_go_round_have_a_column_each():
    G, names = tiny_snapshots.stylegan2(c_dim=5), ['cat/1', 'dog/1', 'cat/2', 'dog/2', 'emu']
    assert class_columns(G, range(3), names) == class_columns(G, [0, 1, 2, 1], names) == []  # one row, and not in turn
    assert class_columns(G, range(7), names) == ['cat', 'dog', 'emu'] and class_columns(G, [1, 3, 7, 0], names) == ['dog', 'cat']
    assert class_columns(G, range(7)) == ['0', '1', '2', '3', '4'] and class_columns(G, [0, 3, 0], names) == []
    assert class_columns(tiny_snapshots.stylegan2(c_dim=17), range(40)) == class_columns(tiny_snapshots.stylegan2(), range(40)) == []


def test_noise_maps_of_a_file_are_taken_where_they_fit(tmp_path):
    G = tiny_snapshots.stylegan2()
    ws, maps = torch.randn(1, G.num_ws, G.w_dim), {'b16.conv0.noise_const': torch.ones(16, 16), 'b8.conv0.noise_const': torch.ones(1, 1)}
    save_projection(tmp_path / 'a.npz', ws, maps, G)
    before = G.synthesis.b8.conv0.noise_const.clone()
    assert torch.equal(load_projection(tmp_path / 'a.npz', G), ws)
    assert (G.synthesis.b16.conv0.noise_const == 1).all() and torch.equal(G.synthesis.b8.conv0.noise_const, before)


def test_truncation_draws_towards_the_mean():
    G = tiny_snapshots.stylegan2()
    G.mapping.w_avg.fill_(1)
    ws = torch.zeros(2, G.num_ws, G.w_dim)
    assert (truncated(G, ws, psi=0.25) == 0.75).all() and (truncated(G, ws) == 0).all() and (ws == 0).all()
    found = truncated(G, ws, psi=0.25, psi_cutoff=2)
    assert (found[:, :2] == 0.75).all() and (found[:, 2:] == 0).all()


def test_truncation_draws_towards_the_mean_of_a_class():
    G = tiny_snapshots.stylegan2(c_dim=2).eval().requires_grad_(False)
    G.mapping.w_avg.fill_(5)
    labels = [one_hot(G, 0), one_hot(G, 1), one_hot(G, 0)]
    means = class_means(G, labels)
    assert torch.equal(means[0], means[2]) and (means[0] - means[1]).norm() > 0.1
    z = torch.randn(20_000, G.z_dim, dtype=torch.float64)
    for label, mean in zip(labels, means, strict=True):
        all_w = G.mapping(z, label.expand(len(z), -1))[:, 0]
        assert mean.shape == (1, 1, G.w_dim) and (mean[0, 0] - all_w.mean(0)).norm() < 0.05 * all_w.std(0).norm()
        ws = latents_of(G, 3, label)
        found = latents_of(G, 3, label, psi=0.25, psi_cutoff=2, mean=mean)
        assert torch.allclose(found[:, :2], mean.lerp(ws[:, :2], 0.25)) and torch.equal(found[:, 2:], ws[:, 2:])
    assert truncated(G, ws.double(), 0.5, mean=mean).dtype == torch.float64 and truncated(G, ws.double(), 0.5).dtype == torch.float64
