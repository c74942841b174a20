"""Fakes that stand for real pictures: what a look is, and what z says of it."""

import numpy as np
import pytest
import torch

from training.instances import Looks, _directions
from training.latents import Latents
from training.networks import MappingNetwork
from training.projected import FeatureHead


class Pictures:
    """A data set in memory of pictures [N, 3, 4, 4], whose first channels tell classes apart."""

    def __init__(self, classes, count=200):
        random = np.random.RandomState(0)
        self.labels = random.randint(0, max(classes, 1), count)
        shade = random.randint(0, 100, [count, 3, 4, 4]) + 15 * self.labels[:, None, None, None]
        self.pixels, self.classes = shade.astype(np.uint8), classes

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        return self.pixels[i], self.get_label(i)

    def get_label(self, i):
        return np.eye(self.classes, dtype=np.float32)[self.labels[i]] if self.classes else np.zeros(0, np.float32)


def with_shares(shares):
    found = Looks(maps_of, len(shares))
    found.load_state_dict({'shares': torch.tensor(shares)})
    return found


def latents(count):
    return Latents(torch.randn(count, 8), None, torch.rand(count), torch.rand(count), torch.zeros(count, 4))


def maps_of(images):
    return [images, images.square(), images, images.abs()]


def looks_and_labels(classes, numbers=5):
    data, found = Pictures(classes), Looks(maps_of, numbers)
    assert not found.measured and found.state_dict() is None
    found.measure(data, 0)
    images = torch.from_numpy(data.pixels) / 127.5 - 1
    c = torch.from_numpy(np.stack([data.get_label(i) for i in range(len(data.pixels))]))
    return found, images, c, torch.from_numpy(data.labels)


@pytest.mark.parametrize('classes', [0, 4])
def test_looks_are_whitened_within_their_class(classes):
    found, images, c, labels = looks_and_labels(classes)
    looks = found.of(maps_of(images), c)
    assert looks.shape == (200, 5) and torch.allclose(looks.T @ looks / 200, torch.eye(5), atol=1e-3)
    for index in range(max(classes, 1)):
        assert looks[labels == index].mean(0).abs().max() < 1e-3
    assert found.shares.sum() == pytest.approx(1) and (found.shares.diff() < 0).all()
    moved = images.clone().requires_grad_()
    found.distances(found.of(maps_of(moved), c), looks + 1).sum().backward()
    assert moved.grad.abs().sum() > 0


def test_distances_count_where_pictures_differ_and_nowhere_if_nothing_was_asked_for():
    found, images, c, _ = looks_and_labels(4)
    looks = found.of(maps_of(images), c)
    assert found.distances(looks, looks).abs().max() == 0
    step = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 2.0]])
    assert torch.allclose(found.distances(looks[:2] + step, looks[:2]), found.shares[[0, 4]] * torch.tensor([1, 4]), rtol=1e-3)
    assert found.distances(looks[:3], torch.zeros(3, 5)).tolist() == [0, 0, 0]
    assert found.distances(looks, looks[torch.randperm(200)]).mean() == pytest.approx(2, rel=0.2)


def test_windows_that_are_a_part_say_nothing():
    found, images, c, _ = looks_and_labels(4)
    windows = torch.tensor([[4, 0, 0], [8, 0, 0], [4, 0, 0], [8, 2, 2], [4, 0, 0]])
    known = found.of_reals(images[:5], c[:5], windows, 2)
    assert torch.allclose(known[::2], found.of(maps_of(images[:5:2]), c[:5:2]), atol=1e-4) and known[1::2].abs().max() == 0
    assert found.of_reals(images[:5], c[:5], None, 5).any(dim=1).all()


def test_pictures_without_anything_apart_have_looks_of_zero():
    data = Pictures(4)
    data.pixels[:] = data.labels[:, None, None, None]
    found = Looks(maps_of, 5)
    found.measure(data, 0)
    assert found.of(maps_of(torch.rand(3, 3, 4, 4)), torch.eye(4)[:3]).tolist() == [[0] * 5] * 3
    assert found.shares.tolist() == [0] * 5 and found.directions.isfinite().all()
    own = latents(3)
    assert torch.equal(found.stand_for(own, torch.zeros(3, 5), torch.eye(4)[:3], None).z, own.z)


def test_where_a_small_set_has_fewer_directions_z_stays_and_looks_differ_by_the_others():
    found = with_shares([0.7, 0.3, 0, 0, 0])
    looks = torch.tensor([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0]])
    own = latents(40)
    stood = found.stand_for(own, looks.repeat(20, 1), torch.zeros(40, 0), None)
    assert torch.equal(stood.z[:, 2:], own.z[:, 2:]) and 5 < (stood.z != own.z)[:, 0].sum() < 35
    assert found.of_others(looks)[1].tolist() == [True, True]  # (1 + 1) / 2, over five directions it would be 0.4


def test_directions_do_not_turn_around():
    """A library's are told apart from these only by which way they point, which is chance."""
    rows = torch.randn(50, 6, dtype=torch.float64) * torch.arange(1, 7)
    found, deviation = _directions(rows, 4)
    assert torch.allclose(found, _directions(-rows.flip(0), 4)[0]) and (found.gather(0, found.abs().argmax(0)[None]) > 0).all()
    assert torch.allclose((rows @ found).square().mean(0).sqrt(), deviation)


def test_looks_are_the_same_when_loaded():
    found, images, c, _ = looks_and_labels(4)
    other = Looks(maps_of, 5)
    other.load_state_dict(None)
    assert not other.measured
    other.load_state_dict(found.state_dict())
    assert other.measured and torch.equal(other.of(maps_of(images), c), found.of(maps_of(images), c))


def test_z_begins_to_say_what_columns_of_classes_say():
    torch.manual_seed(0)
    found = looks_and_labels(16, 4)[0]
    mapping, plain = (MappingNetwork(z_dim=10, c_dim=c_dim, w_dim=16, num_ws=2, num_layers=1) for c_dim in (16, 0))
    groups, class_looks = [0, 1] * 8, found.means[:-1] @ found.directions  # [16, 4]
    with torch.no_grad():
        mapping.embed.weight.copy_((class_looks @ torch.randn(4, 16)).T)
    before = mapping.fc0.weight.detach().clone()
    assert not any((found.begin(plain, []), found.begin(mapping, list(range(16))), found.begin(mapping, [0] * 8)))  # nothing to tell
    assert torch.equal(mapping.fc0.weight, before) and found.begin(mapping, groups)
    first = mapping.fc0.weight.detach()
    assert torch.equal(first[:, 4:], before[:, 4:]) and not torch.equal(first[:, :4], before[:, :4])
    columns = mapping.embed(torch.eye(16)).detach()
    said, told = first[:, :4] @ (class_looks[2] - class_looks[0]), first[:, 10:] @ (columns[2] - columns[0])
    told = told / columns.square().mean().sqrt()
    assert torch.cosine_similarity(said, told, dim=0) > 0.95 and 0.7 < said.norm() / told.norm() < 1.3


def test_fakes_stand_for_real_pictures():
    z, looks = torch.randn(64, 8), torch.randn(64, 2)
    looks[32:] = 0  # nothing is known of these
    own = Latents(z, z + 1, torch.rand(64), torch.rand(64), torch.zeros(64, 4))
    c, windows = torch.eye(64), torch.tensor([[16, 0, 0]] * 64)
    found = with_shares([0.5, 0.5]).stand_for(own, looks, c, windows)
    assert found.c is c and found.windows is windows and torch.equal(found.z[:, 2:], z[:, 2:])
    assert torch.equal(found.z_mix, torch.cat([found.z[:, :2], z[:, 2:] + 1], dim=1))
    expected = looks * (1 - 0.3 ** 2) ** 0.5 + 0.3 * z[:, :2]
    stands = found.looks.any(dim=1)
    assert 8 < stands[:32].sum() < 24 and not stands[32:].any()
    assert torch.allclose(found.z[stands, :2], expected[stands]) and torch.equal(found.looks[stands], found.z[stands, :2])
    assert torch.equal(found.z[~stands], z[~stands]) and found.looks[~stands].abs().max() == 0
    part = own.strided_slice(1, 2)  # of two processes, or passes
    assert torch.equal(with_shares([0.5, 0.5]).stand_for(part, looks[1::2], c[1::2], None).looks, found.looks[1::2])
    assert torch.equal(found.strided_slice(1, 2).looks, found.looks[1::2])


def test_others_are_unlike_and_known():
    looks = torch.tensor([[1.0, 0], [0, 1], [-1, 1], [0, 1.1], [0, 0], [1, 0], [1, 0], [0, 0]])
    rolled, unlike = with_shares([0.5, 0.5]).of_others(looks)
    assert torch.equal(rolled, looks[[6, 5, 6, 1, 0, 1, 2, 3]])
    assert unlike.tolist() == [False, True, True, False, False, True, True, False]


@pytest.mark.parametrize('known', [[1, 1, 1, 1, 1, 1], [1, 1], [1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1], [0, 0]])
def test_others_are_found_among_the_known(known):
    looks = torch.eye(len(known)) * 3 * torch.tensor(known)[:, None]
    rolled, unlike = with_shares([1.0] * len(known)).of_others(looks)
    assert unlike.tolist() == [bool(each) for each in known] and not (rolled * looks).any()


def test_a_head_projects_onto_a_look_that_begins_as_no_matter():
    head, x, look = FeatureHead(5, 3, 1, look_dim=4), torch.randn(2, 5, 4, 4), torch.randn(2, 4)
    cmap = torch.randn(2, 3)
    with torch.no_grad():
        assert torch.equal(head(x, cmap, look), head(x, cmap))
        head.embed_look.weight.normal_()
        assert not torch.equal(head(x, cmap, look), head(x, cmap)) and torch.equal(head(x, cmap, look * 0), head(x, cmap))
