"""Losses against what can be worked out by hand."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch

from tests.helpers import relative_error
from torch_utils.training_stats import Averages
from training import loss
from training.growing import Stage
from training.latents import Latents
from training.loss import GanLoss, discriminator_loss, generator_loss, mix_styles, path_lengths, r1_penalty
from training.options import LossConfig


def test_generator_loss_falls_with_the_logit():
    logits = torch.tensor([[-2.0], [0.0], [3.0]])
    expected = [[-math.log(1 / (1 + math.exp(-x)))] for x in (-2, 0, 3)]
    assert torch.allclose(generator_loss(logits), torch.tensor(expected))


def test_discriminator_loss_is_minus_log_likelihood():
    real, fake = discriminator_loss(torch.tensor([[1.5]]), torch.tensor([[-0.5]]))
    assert real.item() == pytest.approx(-math.log(1 / (1 + math.exp(-1.5))))
    assert fake.item() == pytest.approx(-math.log(1 - 1 / (1 + math.exp(0.5))))


def test_r1_of_a_quadratic():
    images = torch.randn(3, 2, 4, 4, requires_grad=True)
    scale = torch.tensor(0.7, requires_grad=True)
    logits = scale * images.square().sum([1, 2, 3])[:, None]             # gradient 2 s x: penalty 4 s^2 |x|^2
    penalty = r1_penalty(logits, images)
    norms = images.detach().square().sum([1, 2, 3])[:, None]
    assert torch.allclose(penalty, 4 * 0.7 ** 2 * norms)
    penalty.sum().backward()
    assert scale.grad.item() == pytest.approx((8 * 0.7 * norms).sum().item(), rel=1e-5)


def test_path_length_of_a_linear_generator():
    weight = torch.randn(5, 2 * 3 * 4, dtype=torch.float64, requires_grad=True)
    ws = torch.randn(6, 2, 5, dtype=torch.float64, requires_grad=True)
    images = ((ws[:, 0] + 2 * ws[:, 1]) @ weight).view(6, 2, 3, 4)
    noise = torch.randn_like(images)
    lengths = path_lengths(images, ws, noise)
    back = noise.flatten(1) @ weight.detach().T / math.sqrt(3 * 4)        # J^T y for the first layer, twice that for the second
    assert torch.allclose(lengths, ((back.square().sum(1) + (2 * back).square().sum(1)) / 2).sqrt())
    lengths.sum().backward()
    assert weight.grad.norm() > 0


def test_style_mixing_switches_at_the_cutoff():
    ws, other = torch.zeros(3, 4, 2), torch.ones(3, 4, 2)
    mixed = mix_styles(ws, other, torch.tensor([1, 3, 4]))
    assert mixed[:, :, 0].tolist() == [[0, 1, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]


class Line(torch.nn.Module):
    """Stand-in for both networks: a generator whose image is a * sum(z + c), and 1 more in a window; a discriminator whose logit is
    b * sum(x) + e * c, and h * sum(map) of the features."""

    img_resolution = 2

    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Parameter(torch.tensor(0.5)), torch.nn.Parameter(torch.tensor(0.3))
        self.one, self.e = torch.nn.Parameter(torch.tensor(1.0)), torch.nn.Parameter(torch.tensor(0.2))
        self.h = torch.nn.Parameter(torch.tensor([0.4, -0.1]))
        self.mapped, self.windows = [], []

    def mapping(self, z, c, skip_w_avg_update=False):
        self.mapped.append(skip_w_avg_update)
        return self.one * (z + c.sum(1, keepdim=True))[:, None].repeat(1, 3, 1)

    def synthesis(self, ws, windows=None):
        self.windows.append(windows)
        drawn = self.a * ws.mean(1).sum(1) + (windows is not None)
        return drawn[:, None, None, None].expand(-1, 1, 2, 2)

    def judge_features(self, maps, c, looks=None):
        return self.h * torch.stack([x.sum([1, 2, 3]) for x in maps], dim=1)

    def forward(self, images, c):
        return self.b * images.sum([1, 2, 3])[:, None] + self.e * c.sum(1, keepdim=True)


def make(**changed):
    config = LossConfig(**{'gamma': 2.0, 'r1_interval': 5, 'pl_weight': 3.0, 'g_reg_interval': 4, 'style_mixing': 0.0, **changed})
    network = Line()
    return GanLoss(network, network, config, Averages()), network


def latents(count=2, mix=False):
    z = torch.arange(1.0, count + 1)[:, None].repeat(1, 3) / 10
    return Latents(z, -z if mix else None, torch.full([count], 0.5), torch.full([count], 0.6), torch.zeros(count, 0))


def test_generator_phase_gradient():
    gan, net = make()
    gan.accumulate('G', None, None, latents(), 0.5)
    sums = latents().z.sum(1)
    logits = 0.3 * 4 * 0.5 * sums
    assert net.a.grad.item() == pytest.approx((0.5 * (-torch.sigmoid(-logits) * 0.3 * 4 * sums).mean()).item())
    assert gan.stats.collect()['Loss/G']['mean'] == pytest.approx(generator_loss(logits).mean().item())


def test_discriminator_phase_gradient_does_not_reach_g():
    gan, net = make()
    reals = torch.full([2, 1, 2, 2], 0.25)
    gan.accumulate('D', reals, torch.zeros(2, 0), latents(), 1)
    fake = 4 * 0.5 * latents().z.sum(1)
    expected = (torch.sigmoid(0.3 * fake) * fake).mean() - torch.sigmoid(torch.tensor(-0.3)) * 1.0
    assert net.b.grad.item() == pytest.approx(expected.item(), rel=1e-5)
    assert net.a.grad is None
    means = {name: sums['mean'] for name, sums in gan.stats.collect().items() if not name.startswith('Brightness/')}
    real, fake = torch.tensor(0.3), 0.3 * fake
    assert means == pytest.approx({
        'Scores/real': 0.3, 'Signs/real': 1, 'Loss/D_real': generator_loss(real).item(),
        'Scores/fake': fake.mean().item(), 'Signs/fake': 1, 'Loss/D_fake': generator_loss(-fake).mean().item()})


@pytest.mark.parametrize('phase', ['G', 'D'])
def test_images_are_drawn_and_judged_by_their_labels(phase):
    gan, net = make()
    c, real_c = torch.tensor([[1.0], [-2.0]]), torch.tensor([[5.0], [-7.0]])
    gan.accumulate(phase, torch.ones(2, 1, 2, 2), real_c, dataclasses.replace(latents(), c=c), 1)
    fake = 0.3 * 4 * 0.5 * 3 * (latents().z[:, :1] + c) + 0.2 * c
    real = 0.3 * 4 + 0.2 * real_c
    expected = -torch.sigmoid(-fake) * c if phase == 'G' else torch.sigmoid(fake) * c - torch.sigmoid(-real) * real_c
    assert net.e.grad.item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_r1_phase_is_weighted_by_gamma_and_the_interval():
    gan, net = make()
    gan.accumulate('D_reg', torch.ones(2, 1, 2, 2), torch.zeros(2, 0), latents(), 1)
    assert net.b.grad.item() == pytest.approx(2 / 2 * 5 * 2 * 0.3 * 4)   # gamma/2 * interval * d(4 b^2)/db
    assert gan.stats.collect()['Loss/r1']['mean'] == pytest.approx(4 * 0.3 ** 2)


@pytest.mark.parametrize('network', ['G', 'D'])
def test_both_in_one_pass_is_the_sum_of_both(network, monkeypatch):
    monkeypatch.setattr(torch, 'randn_like', torch.ones_like)
    main, penalty, both = (f'{network}{part}' for part in ('', '_reg', '_both'))
    grads = {}
    for phase in (main, penalty, both):
        gan, net = make(r1_interval=1, g_reg_interval=1)
        gan.accumulate(phase, torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(1)), torch.zeros(2, 0), latents(), 1)
        grads[phase] = (net.a if network == 'G' else net.b).grad.item()
    assert grads[both] == pytest.approx(grads[main] + grads[penalty])
    assert grads[penalty] != 0 != grads[main]


def test_path_length_phase(monkeypatch):
    gan, net = make()
    monkeypatch.setattr(torch, 'randn_like', torch.ones_like)
    gan.accumulate('G_reg', None, None, latents(4), 0.5)                  # takes images 0 and 2
    # J^T y of each of 3 layers and 3 numbers: a * 4 pixels / 2 / 3 layers; its length over the 3 numbers
    length = 0.5 * 4 / 2 / 3 * math.sqrt(3)
    mean = loss.PL_DECAY * length
    assert gan.pl_mean.item() == pytest.approx(mean)
    slope = (1 - loss.PL_DECAY) * length / 0.5                            # of length - mean, in a: the mean has its gradient too
    assert net.a.grad.item() == pytest.approx(0.5 * 3 * 4 * 2 * (length - mean) * slope, rel=1e-5)
    stats = gan.stats.collect()
    assert stats['Loss/path_length']['num'] == 2 and stats['Loss/path_length']['mean'] == pytest.approx(length)


def test_the_mean_path_length_is_that_of_all_processes(monkeypatch):
    gan, net = make()
    monkeypatch.setattr(torch, 'randn_like', torch.ones_like)
    monkeypatch.setattr(loss.distributed, 'world_size', lambda: 2)
    monkeypatch.setattr(loss.distributed, 'sum_', lambda tensor: tensor.add_(7.0))         # the other one's length
    gan.accumulate('G_reg', None, None, latents(4), 1)
    own = 0.5 * 4 / 2 / 3 * math.sqrt(3)
    mean = loss.PL_DECAY * (own + 7) / 2
    assert gan.pl_mean.item() == pytest.approx(mean)
    assert net.a.grad.item() == pytest.approx(3 * 4 * 2 * (own - mean) * (1 - loss.PL_DECAY) * own / 0.5, rel=1e-5)  # of its own alone


def test_a_path_length_that_is_not_finite_leaves_the_running_mean(monkeypatch):
    gan, net = make()
    gan.pl_mean = torch.tensor(2.0)
    monkeypatch.setattr(torch, 'randn_like', lambda images: torch.full_like(images, float('inf')))
    gan.accumulate('G_reg', None, None, latents(), 1)
    assert gan.pl_mean.item() == 2


@pytest.mark.parametrize('style_mixing, share_of_z', [(0.9, (2 - 1) / 3), (0.4, 1.0)])
def test_style_mixing_follows_its_chance(style_mixing, share_of_z):
    gan, net = make(style_mixing=style_mixing)                             # chance 0.5; cutoff 1 + floor(0.6 * 2) = 2 of 3 layers
    ws = gan._ws(latents(mix=True))
    assert relative_error(ws.mean(1), latents().z * share_of_z) < 1e-6
    assert net.mapped == [False, True]                                     # the mixed-in w leaves the average alone


def test_styles_are_mixed_behind_every_layer_alike():
    gan, net = make(style_mixing=0.9)
    drawn = dataclasses.replace(latents(4, mix=True), mix_position=torch.tensor([0.0, 0.49, 0.5, 0.99]))
    ws = gan._ws(drawn) / drawn.z[:, None]
    assert ws[:, :, 0].round().tolist() == [[1, -1, -1], [1, -1, -1], [1, 1, -1], [1, 1, -1]]


def test_parts_take_turns():
    whole = latents(5, mix=True)
    assert whole.strided_slice(1, 2).z[:, 0].tolist() == whole.z[[1, 3], 0].tolist()
    assert whole.strided_slice(1, 2).z_mix.shape == (2, 3) and latents(5).strided_slice(1, 2).z_mix is None


def test_a_stage_has_its_size_and_its_fade():
    gan, _ = make()
    gan.G, gan.D = SimpleNamespace(synthesis=lambda ws, **given: given, img_resolution=32), lambda images, c, **given: given
    assert gan._synthesis(None) == {} == gan.judge(None, None, None)
    gan.stage = Stage(16, 0.25)
    assert gan._synthesis(None) == {'resolution': 16} and gan.judge(None, None, None) == {'fade': 0.25}


class Recorder:
    """Stand-in for an augmentation: doubles images, and notes what it was given."""

    def __init__(self):
        self.numbers, self.observed = [], []

    def __call__(self, images, numbers):
        self.numbers.append(numbers[:, 0].tolist())
        return 2 * images

    def observe(self, logits):
        self.observed += logits[:, 0].tolist()


@pytest.mark.parametrize('phase, numbers, observed', [
    ('G', [[0, 2]], 0), ('D', [[0, 2], [1, 3]], 2), ('D_reg', [[1, 3]], 0), ('D_both', [[0, 2], [1, 3]], 2),
])
def test_all_that_d_judges_is_augmented(phase, numbers, observed):
    gan, net = make(r1_interval=1)
    gan.augment = Recorder()
    drawn = dataclasses.replace(latents(), numbers=torch.arange(4.0).view(2, 2, 1))
    reals = torch.full([2, 1, 2, 2], 0.25)
    gan.accumulate(phase, reals, torch.zeros(2, 0), drawn, 1)
    assert gan.augment.numbers == numbers
    assert gan.augment.observed == pytest.approx([0.3 * 2 * 1.0] * observed)
    if phase != 'G':
        penalty = 0 if phase == 'D' else 2 / 2 * 2 * 0.3 * 4 * 2 ** 2                  # of an image before it is doubled
        fake = 2 * 4 * 0.5 * latents().z.sum(1)
        logistic = (torch.sigmoid(0.3 * fake) * fake).mean().item() - torch.sigmoid(torch.tensor(-0.6)).item() * 2
        assert net.b.grad.item() == pytest.approx(penalty + (0 if phase == 'D_reg' else logistic), rel=1e-5)


def test_numbers_of_augmentations_stay_on_the_cpu():
    drawn = dataclasses.replace(latents(5), numbers=torch.rand(5, 2, 3))
    assert drawn.to(torch.device('meta')).numbers.device.type == 'cpu' and drawn.to(torch.device('meta')).z.is_meta
    assert torch.equal(drawn.strided_slice(1, 2).numbers, drawn.numbers[[1, 3]])


def with_features(**changed):
    """A loss whose features are an image and its square."""
    gan, net = make(features_weight=0.5, features_gamma=6.0, **changed)
    gan.features = lambda images: [images, images.square()]
    return gan, net


def test_g_learns_from_the_mean_of_the_heads():
    gan, net = with_features()
    gan.accumulate('G', None, None, latents(), 1)
    s = latents().z.sum(1)
    pixels, maps = 4 * 0.5 * s, torch.stack([4 * 0.5 * s, 4 * (0.5 * s) ** 2])
    slopes = torch.stack([0.4 * 4 * s, -0.1 * 4 * 2 * 0.5 * s ** 2])  # d logit / d a
    of_features = -torch.sigmoid(-torch.tensor([[0.4], [-0.1]]) * maps) * slopes
    expected = -torch.sigmoid(-0.3 * pixels) * 0.3 * 4 * s + 0.5 * of_features.mean(0)
    assert net.a.grad.item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_each_head_learns_as_if_it_were_alone():
    gan, net = with_features()
    gan.accumulate('D', torch.full([2, 1, 2, 2], 0.25), torch.zeros(2, 0), latents(), 1)
    s, h = latents().z.sum(1), net.h.detach()[:, None]
    fake, real = torch.stack([4 * 0.5 * s, 4 * (0.5 * s) ** 2]), torch.tensor([[1.0], [0.25]])
    expected = (torch.sigmoid(h * fake) * fake).mean(1) - (torch.sigmoid(-h * real) * real)[:, 0]
    assert net.h.grad.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_r1_of_the_heads_is_weighted_by_its_gamma_and_the_interval():
    gan, net = with_features()
    gan.accumulate('D_reg', torch.ones(2, 1, 2, 2), torch.zeros(2, 0), latents(), 1)
    assert net.h.grad.tolist() == pytest.approx([6 / 2 * 5 * 2 * 4 * h for h in (0.4, -0.1)])


def on_windows(*sizes):
    """(loss of a run on windows, its network, latents of windows of these sizes)."""
    gan, net = make()
    gan.windows = SimpleNamespace(are_parts=lambda windows: True, labels=lambda c, windows: c, config=SimpleNamespace(consistency=0))
    return gan, net, dataclasses.replace(latents(len(sizes)), windows=torch.tensor([[size, 0, 0] for size in sizes]))


def test_consistency_is_a_mean_over_all_images_and_of_parts_alone():
    for sizes, expected in (((2, 2), 0), ((2, 4), 1 / 2), ((4, 4, 4), 1)):
        gan, net, drawn = on_windows(*sizes)
        ws = net.mapping(drawn.z, drawn.c)
        assert gan._consistency(ws, net.synthesis(ws, drawn.windows), drawn.windows).item() == pytest.approx(expected)


def test_path_lengths_are_those_of_the_windows_of_their_images():
    gan, net, drawn = on_windows(2, 4, 6, 8)
    gan.accumulate('G_reg', None, None, drawn, 1)
    assert net.windows[0][:, 0].tolist() == [2, 6]
