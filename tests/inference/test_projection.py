"""The projection procedure: its schedules by their numbers, and known images found again by tiny generators."""

import pytest
import torch

from inference.projection import Options, composite, learning_rate, noise_roughness, noise_scale, project, w_statistics
from training.networks import Generator


def tiny_generator(seed=0, c_dim=0, noise_strength=0.0):
    torch.manual_seed(seed)
    G = Generator(z_dim=8, c_dim=c_dim, w_dim=8, img_resolution=16, img_channels=3, mapping_kwargs={'num_layers': 2},
                  synthesis_kwargs={'channel_base': 256, 'channel_max': 16})
    for name, parameter in G.named_parameters():
        if name.endswith('noise_strength'):
            parameter.data.fill_(noise_strength)
    return G.eval().requires_grad_(False)


def pixels(images):
    return images.flatten(1) / images[0].numel() ** 0.5


def draw(G, ws):
    return G.synthesis(ws, noise_mode='const', force_fp32=True)


def run(G, target, options, **kwargs):
    start, deviation = w_statistics(G.mapping, G.z_dim, samples=500)
    steps = list(project(G.synthesis, start, deviation, target, pixels, options, **kwargs))
    return draw(G, start.expand(-1, G.num_ws, -1)), steps


def test_schedules_are_stylegan2s():
    options = Options()
    assert [round(learning_rate(options, i), 6) for i in (0, 25, 50, 750, 875, 1000)] == [0, 0.05, 0.1, 0.1, 0.05, 0]
    assert [round(noise_scale(options, i), 6) for i in (0, 375, 750, 999)] == [0.05, 0.0125, 0, 0]


def test_w_statistics_of_a_known_mapping():
    class Known(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor([1.0, 2.0, 2.0]))

        def forward(self, z, c):
            w = z * self.scale + (5 if c is None else c.sum(dim=1, keepdim=True))
            return w[:, None].repeat(1, 4, 1)

    mean, deviation = w_statistics(Known(), 3, samples=20_000)
    assert mean.shape == (1, 1, 3) and (mean - 5).abs().max() < 0.05
    assert deviation == pytest.approx(3, rel=0.02)  # sqrt(1 + 4 + 4)
    mean, _deviation = w_statistics(Known(), 3, label=torch.tensor([[0.0, 7.0]]), samples=1001, batch=1000)
    assert (mean - 7).abs().max() < 0.3


@pytest.mark.parametrize('space', ['w', 'w+'])
def test_a_known_image_is_found_again(space):
    G = tiny_generator()
    wanted = G.mapping(torch.randn(1, 8), None)
    before, steps = run(G, draw(G, wanted), Options(steps=120, space=space))
    first, last = ((pixels(image) - pixels(draw(G, wanted))).square().sum().item() for image in (before, draw(G, steps[-1].ws)))
    assert last < first / 100
    assert [step.index for step in steps] == list(range(120))
    assert steps[-1].ws.shape == (1, G.num_ws, 8)
    assert steps[-1].distance == pytest.approx((pixels(steps[-1].image) - pixels(draw(G, wanted))).square().sum().item(), rel=1e-4)
    same = torch.equal(steps[-1].ws, steps[-1].ws[:, :1].expand_as(steps[-1].ws))
    assert same == (space == 'w')


def test_w_plus_reaches_what_w_cannot():
    G = tiny_generator()
    wanted = torch.cat([G.mapping(torch.randn(1, 8), None)[:, :1] for _ in range(G.num_ws)], dim=1)
    ends = [run(G, draw(G, wanted), Options(steps=100, space=space))[1][-1].distance for space in ('w', 'w+')]
    assert ends[1] < ends[0] / 3


def test_same_seed_same_search():
    G = tiny_generator()
    target = draw(G, G.mapping(torch.randn(1, 8), None))
    runs = [run(G, target, Options(steps=5), seed=seed)[1][-1].ws for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_masked_pixels_of_the_target_do_not_matter():
    G = tiny_generator()
    target = draw(G, G.mapping(torch.randn(1, 8), None))
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    spoilt = torch.where(mask > 0.5, target, torch.randn_like(target))
    ends = [run(G, x, Options(steps=30), mask=mask)[1][-1] for x in (target, spoilt)]
    assert torch.equal(ends[0].ws, ends[1].ws) and ends[0].distance == ends[1].distance
    kept = torch.where(mask > 0.5, spoilt, target)  # a change under the mask does matter
    moved = run(G, kept.flip(3), Options(steps=30), mask=mask)[1][-1]
    assert not torch.equal(moved.ws, ends[0].ws)


def test_the_unmasked_half_is_fitted():
    G = tiny_generator()
    wanted = draw(G, G.mapping(torch.randn(1, 8), None))
    mask = torch.zeros(1, 1, 16, 16)
    mask[:, :, :6] = 1
    before, steps = run(G, torch.where(mask > 0.5, wanted, torch.ones(())), Options(steps=100), mask=mask)
    error = [((x - wanted) * mask).square().sum().item() for x in (before, draw(G, steps[-1].ws))]
    assert error[1] < error[0] / 50


def test_composite_has_no_difference_and_no_gradient_outside_the_mask():
    image, target = torch.randn(1, 3, 4, 4, requires_grad=True), torch.randn(1, 3, 4, 4)
    mask = torch.zeros(1, 1, 4, 4)
    mask[0, 0, 1, 2] = 1
    a, b = composite(image, target, mask)
    assert torch.equal((a != b)[:, :1].float(), mask) and torch.equal(a, image)
    assert torch.equal(b[..., 1, 2], target[..., 1, 2])
    (a.sum() + b.sum()).backward()
    assert torch.equal(image.grad, mask.expand(1, 3, 4, 4))  # and none through the second


def test_noise_roughness_by_hand():
    stripes = torch.tensor([1.0, -1.0] * 8).repeat(16, 1)  # neighbours along x disagree, along y agree; at 8x8 all is 0
    assert noise_roughness(stripes).item() == 2
    constant = torch.ones(16, 16)
    assert noise_roughness(constant).item() == 4  # both axes, at 16 and at 8
    assert noise_roughness(torch.randn(64, 64)).item() < 0.02


def test_noise_maps_are_optimized_where_asked_for():
    G = tiny_generator(noise_strength=0.3)
    stored = {name: buffer.clone() for name, buffer in G.synthesis.named_buffers() if name.endswith('noise_const')}
    target = G.synthesis(G.mapping(torch.randn(1, 8), None), noise_mode='random')
    plain = run(G, target, Options(steps=60))[1][-1]
    assert all(torch.equal(G.synthesis.get_buffer(name), x) for name, x in stored.items())
    free = run(G, target, Options(steps=60, noise_maps=True, noise_weight=0))[1][-1]
    assert free.distance < plain.distance / 2
    rough = [sum(noise_roughness(G.synthesis.get_buffer(name)).item() for name in stored)]
    run(G, target, Options(steps=60, noise_maps=True))
    rough.append(sum(noise_roughness(G.synthesis.get_buffer(name)).item() for name in stored))
    assert rough[1] < rough[0] / 10
    for name in stored:
        found = G.synthesis.get_buffer(name)
        assert not found.requires_grad
        assert found.mean().abs() < 1e-5 and found.square().mean().item() == pytest.approx(1, rel=1e-4)


def test_noise_maps_of_a_model_that_has_none():
    G = tiny_generator()
    for block in [G.synthesis.b4, G.synthesis.b8, G.synthesis.b16]:
        for layer in (block.conv1, *([block.conv0] if hasattr(block, 'conv0') else [])):
            del layer._buffers['noise_const']
    with pytest.raises(ValueError, match='no noise maps'):
        next(project(G.synthesis, torch.zeros(1, 1, 8), 1.0, torch.zeros(1, 3, 16, 16), pixels, Options(noise_maps=True)))


def test_closed_early_it_stops_collecting_gradients():
    G = tiny_generator(noise_strength=0.1)
    search = project(G.synthesis, torch.zeros(1, 1, 8), 1.0, torch.zeros(1, 3, 16, 16), pixels, Options(noise_maps=True))
    next(search)
    search.close()
    assert not any(buffer.requires_grad for buffer in G.synthesis.buffers())


@pytest.mark.parametrize('shape, dtype', [((1, 3, 16, 16), torch.uint8), ((3, 16, 16), torch.float32), ((2, 3, 16, 16), torch.float32),
                                          ((1, 3, 8, 8), torch.float32), ((1, 1, 16, 16), torch.float32)])
def test_targets_of_another_kind_are_refused(shape, dtype):
    """A target that broadcasts would be searched for without an error."""
    with pytest.raises(ValueError, match='the target'):
        run(tiny_generator(), torch.zeros(shape, dtype=dtype), Options(steps=1))
