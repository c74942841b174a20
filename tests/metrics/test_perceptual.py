"""Perceptual distances against their definitions written out by hand, and their gradients."""

import pytest
import torch
import torch.nn.functional as F

from dnnlib.util import UserError, cached_path
from metrics import perceptual
from tests.helpers import relative_error

WIDTHS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256), 17: (256, 512),
          19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512)}


def random_vgg(narrow=16):
    """VGG16's convolutions, random and `narrow` times narrower, and LPIPS weights to match."""
    vgg = {}
    for index, (inputs, outputs) in WIDTHS.items():
        inputs, outputs = (inputs if inputs == 3 else inputs // narrow), outputs // narrow
        vgg[f'features.{index}.weight'] = torch.randn(outputs, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
        vgg[f'features.{index}.bias'] = torch.randn(outputs) * 0.1
    vgg['classifier.0.weight'] = torch.zeros(1)  # present in the real file and not wanted
    linear = {f'lin{k}.model.1.weight': torch.rand(1, width // narrow, 1, 1) for k, width in enumerate([64, 128, 256, 512, 512])}
    return vgg, linear


def lpips_by_hand(vgg, linear, a, b):
    """LPIPS written as its paper does, one layer of torchvision's vgg16.features after the other."""
    total, stage = 0, 0
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    a, b = (a - shift) / scale, (b - shift) / scale
    for index in range(30):
        if index in WIDTHS:
            a, b = (torch.conv2d(x, vgg[f'features.{index}.weight'], vgg[f'features.{index}.bias'], padding=1) for x in (a, b))
        elif index in (4, 9, 16, 23):
            a, b = (F.max_pool2d(x, 2, 2) for x in (a, b))
        else:
            a, b = a.clamp(min=0), b.clamp(min=0)
        if index in (3, 8, 15, 22, 29):
            difference = (F.normalize(a, dim=1) - F.normalize(b, dim=1)) ** 2
            total = total + torch.conv2d(difference, linear[f'lin{stage}.model.1.weight']).mean(dim=(1, 2, 3))
            stage += 1
    return total


def test_lpips_is_its_definition():
    vgg, linear = random_vgg()
    a, b = torch.rand(2, 3, 48, 40) * 2 - 1, torch.rand(2, 3, 48, 40) * 2 - 1
    distance = perceptual.LpipsVgg(vgg, linear)
    assert relative_error(distance(a, b), lpips_by_hand(vgg, linear, a, b)) < 1e-4
    assert distance(a, a).tolist() == [0, 0]


def test_unit_features_by_hand():
    a, b = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1), torch.tensor([0.0, 2.0]).reshape(1, 2, 1, 1)
    a, b = a.expand(1, 2, 5, 3), b.expand(1, 2, 5, 3)
    vectors = [perceptual.unit_features(x, torch.tensor([10.0, 1.0])) for x in (a, b)]
    assert (vectors[0] - vectors[1]).square().sum().item() == pytest.approx(10 * 0.6**2 + (0.8 - 1) ** 2, rel=1e-5)


def test_unit_features_of_silent_channels_have_a_gradient():
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    perceptual.unit_features(x).sum().backward()
    assert x.grad.isfinite().all()


def test_pixels_by_hand():
    a, b = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    b[:, :, ::2] = 1  # rows of 0 and 1: a mean square of 1/2 at 8x8, of 1/4 at 4x4
    assert perceptual.Pixels()(a, b).item() == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert perceptual.Pixels()(torch.zeros(1, 3, 64, 64), torch.full((1, 3, 64, 64), 0.5)).item() == pytest.approx(0.25)


def test_efficientnet_knows_more_than_pixels():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing='ij')
    disc = ((x**2 + y**2).sqrt() < 0.6).float().expand(1, 3, 64, 64) * 2 - 1
    moved = disc.roll(2, dims=3)
    level = (disc * 0.7)
    noisy = (disc * 0.8 + 0.2 * torch.randn(disc.shape)).clamp(-1, 1)
    distance = perceptual.EfficientNetLite0()
    pixels, features = distance.pixels, perceptual.EfficientNetLite0(pixel_weight=0)
    assert pixels(disc, noisy) < pixels(disc, moved) and features(disc, noisy) > features(disc, moved)  # noise is small in pixels only
    assert relative_error(distance(disc, level), features(disc, level) + pixels(disc, level)) < 1e-5


def test_efficientnet_stages_and_their_input():
    distance = perceptual.EfficientNetLite0()
    image = torch.rand(1, 3, 128, 128) * 2 - 1
    stages = distance.stages(image)
    assert [tuple(x.shape[1:]) for x in stages] == [(16, 64, 64), (24, 32, 32), (40, 16, 16), (112, 8, 8), (320, 4, 4)]
    fed = ((image + 1) * 127.5 - 127) / 128  # as the classifier was trained
    network = distance.network
    for block in (bottom := [network._conv_stem, network._bn0, torch.nn.functional.relu6, network._blocks[0]]):
        fed = block(fed)
    assert len(bottom) == 4 and relative_error(stages[0], fed) < 1e-5
    distance.train()
    assert not any(module.training for module in distance.modules())


@pytest.mark.parametrize('make', [lambda: perceptual.LpipsVgg(*random_vgg(32)), perceptual.EfficientNetLite0, perceptual.Pixels])
def test_gradient_leads_towards_the_target(make):
    distance = make()
    target = torch.rand(1, 3, 32, 32) * 2 - 1
    image = (target + 0.3 * torch.randn(1, 3, 32, 32)).requires_grad_()
    before = distance(image, target)
    before.sum().backward()
    assert image.grad.isfinite().all() and image.grad.norm() > 0
    step = 0.02 * before.item() / image.grad.square().sum().item()
    after = distance(image.detach() - step * image.grad, target)
    assert after.item() == pytest.approx(0.98 * before.item(), rel=5e-3)  # as the gradient foretells
    assert not any(parameter.requires_grad for parameter in distance.parameters())


def test_grey_alpha_and_size():
    assert torch.equal(perceptual.as_rgb(torch.ones(1, 1, 2, 2)), torch.ones(1, 3, 2, 2))
    rgba = torch.arange(4.0).reshape(1, 4, 1, 1)
    assert perceptual.as_rgb(rgba).flatten().tolist() == [0, 1, 2]
    large = torch.rand(1, 3, 512, 256)
    assert torch.allclose(perceptual.shrink(large), F.avg_pool2d(large, 2))
    small = torch.rand(1, 3, 256, 31)
    assert perceptual.shrink(small) is small


def test_choose(tmp_path, monkeypatch):
    monkeypatch.setenv('INR_CACHE_DIR', str(tmp_path))
    assert perceptual.choose('auto')[0].name == 'efficientnet-lite0'
    assert perceptual.choose('pixels')[0].name == 'pixels'
    monkeypatch.setattr(perceptual, 'efficientnet_is_installed', lambda: False)
    distance, reason = perceptual.choose('auto')
    assert distance.name == 'pixels' and 'no feature network is installed' in reason
    for text, message in [('lpips', "not known. Did you mean 'lpips-vgg'"), ('efficientnet-lite0', 'not installed; run pip install'),
                          ('pixels:/a', 'only lpips-vgg takes a folder'), (f'lpips-vgg:{tmp_path}', 'no such file: .*vgg16-397923af.pth')]:
        with pytest.raises(UserError, match=message):
            perceptual.choose(text)


def test_lpips_from_files(tmp_path, monkeypatch):
    """Both files in the download cache make it the default; a folder given by hand is checked by its digest."""
    monkeypatch.setenv('INR_CACHE_DIR', str(tmp_path / 'cache'))
    (tmp_path / 'cache').mkdir()
    vgg, linear = random_vgg()
    for (url, _digest), state in zip((perceptual.VGG16, perceptual.LPIPS_LINEAR), (vgg, linear), strict=True):
        torch.save(state, tmp_path / url.rsplit('/', 1)[-1])
        torch.save(state, cached_path(url))
    assert perceptual.lpips_is_cached()
    with pytest.raises(UserError, match='expected 397923af'):
        perceptual.choose(f'lpips-vgg:{tmp_path}')
    for name in ('VGG16', 'LPIPS_LINEAR'):
        monkeypatch.setattr(perceptual, name, (getattr(perceptual, name)[0], None))
    a, b = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    expected = lpips_by_hand(vgg, linear, a, b)
    for text in ('auto', f'lpips-vgg:{tmp_path}'):
        distance, _reason = perceptual.choose(text)
        assert distance.name == 'lpips-vgg' and relative_error(distance(a, b), expected) < 1e-4
