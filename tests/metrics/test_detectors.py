"""Feature networks: how they are named, found, checked and fed."""

import warnings

import pytest
import torch

from dnnlib.util import UserError, cached_path, file_digest
from metrics import detectors
from metrics.inception import Inception
from tests.helpers import relative_error


class TinyScript(torch.nn.Module):
    """Takes the calls that stylegan2-ada-pytorch makes to its Inception and VGG16."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 5)

    def forward(self, images: torch.Tensor, return_features: bool = False, no_output_bias: bool = False, resize_images: bool = True,
                return_lpips: bool = False) -> torch.Tensor:
        pooled = images.float().mean(dim=(2, 3)) / 255
        if return_lpips:
            return pooled * 10
        if return_features:
            return pooled
        return torch.softmax(pooled @ self.linear.weight.t(), dim=1)


class TinyDino(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) if images.shape[2] == 224 else images[:, :, 0, 0] * 0


def script(module, path):
    with warnings.catch_warnings(action='ignore'):
        torch.jit.script(module).save(str(path))
    return path


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Random weights in pytorch-fid's format, as written before batch norm counted its batches."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'pt_inception.pth'
    torch.save({key: value for key, value in Inception().state_dict().items() if not key.endswith('num_batches_tracked')}, path)
    return path


def test_inception_weights_from_a_file(weights, monkeypatch):
    images = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    detector = detectors.load('inception', {'inception': str(weights)})
    assert detector.name == f'file-{file_digest(weights)[:8]}'  # random weights are not FID's
    torch.manual_seed(0)
    features = detector.features(images)
    assert relative_error(features, Inception()(images)) < 1e-5
    assert torch.allclose(detector.probabilities(images, features).sum(dim=1), torch.ones(1), atol=1e-5)
    grey = images[:, :1]
    assert torch.equal(detector.features(grey), detector.features(grey.repeat(1, 3, 1, 1)))
    monkeypatch.setitem(detectors.PUBLISHED, 'inception', [('https://x', file_digest(weights)[:8])])
    assert detectors.load('inception', {'inception': str(weights)}).name == 'inception'


def test_scripted_networks(tmp_path, monkeypatch):
    path = script(TinyScript(), tmp_path / 'net.pt')
    digest = file_digest(path)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    inception = detectors.load('inception', {'inception': path})
    assert inception.name == f'file-{digest[:8]}' and inception.has_probabilities and not inception.has_distance
    assert torch.allclose(inception.features(images), images.float().mean(dim=(2, 3)) / 255)
    assert inception.probabilities(images, None).shape == (2, 5)
    url = 'https://example.com/vgg16.pt'
    monkeypatch.setitem(detectors.PUBLISHED, 'vgg16', [(url, digest)])
    cached_path(url).parent.mkdir(parents=True, exist_ok=True)
    cached_path(url).write_bytes(path.read_bytes())
    vgg = detectors.load('vgg16')
    assert vgg.name == 'vgg16' and vgg.has_distance and not vgg.has_probabilities
    assert torch.allclose(vgg.embed(torch.ones(1, 1, 8, 8)), torch.full((1, 3), 10.0))  # fed in [0, 255]
    assert vgg.digest != inception.digest


def test_dinov2_is_normalized_and_named_by_its_file(tmp_path):
    path = script(TinyDino(), tmp_path / 'vits14.pt')
    detector = detectors.load('dinov2', {'dinov2': path})
    made = detector.features(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))
    assert made[0].tolist() == pytest.approx([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225], rel=1e-4)
    assert detector.name == f'dinov2-{file_digest(path)[:8]}'


def test_efficientnet_is_the_classifier():
    detector = detectors.load('efficientnet-lite0')
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    network = detector.distance.network
    features = detector.features(images)
    assert features.shape == (2, 1280)
    probs = torch.softmax(network((images.float() - 127) / 128), dim=1)
    assert relative_error(detector.probabilities(images, features), probs) < 1e-4
    assert detector.features(images[:, :1, :20, :20]).shape == (2, 1280)
    assert torch.equal(detector.embed(images.float() / 127.5 - 1), detector.distance.embed(images.float() / 127.5 - 1))


def test_files_are_named():
    assert detectors.parse_files(['a.pt', 'vgg16:b.pt', 'dinov2:c:d']) == {'inception': 'a.pt', 'vgg16': 'b.pt', 'dinov2': 'c:d'}
    assert detectors.parse_files(['https://x/a.pt']) == {'inception': 'https://x/a.pt'}
    for texts, message in ((['a', 'b'], 'given before'), (['vgg16:'], 'write PATH'), (['efficientnet-lite0:a'], 'takes no file')):
        with pytest.raises(UserError, match=message):
            detectors.parse_files(texts)


def test_mistakes_get_one_line(tmp_path, monkeypatch):
    (tmp_path / 'text.pt').write_text('no network')
    torch.save({'a': torch.ones(1)}, tmp_path / 'other.pth')
    script(torch.nn.Identity(), tmp_path / 'identity.pt')
    monkeypatch.setitem(detectors.PUBLISHED, 'inception', [('http://127.0.0.1:9/inception.pt', '0' * 8)])
    for name, files, message in (
        ('inception', {'inception': tmp_path / 'none.pt'}, 'no such file'),
        ('inception', {'inception': tmp_path / 'text.pt'}, 'neither a TorchScript nor weights'),
        ('inception', {'inception': tmp_path / 'other.pth'}, 'holds no weights of the 2015 Inception: Conv2d_1a_3x3.conv.weight'),
        ('inception', {'inception': tmp_path / 'identity.pt'}, 'is no inception as stylegan2-ada-pytorch calls it'),
        ('inception', {}, f'cannot download http://127.0.0.1:9/inception.pt .*put the file by hand at {cached_path("http://127.0.0.1:9/inception.pt")}'
                          '; --detector=PATH names a file elsewhere; efficientnet-lite0 needs no file'),
        ('dinov2', {}, 'give a TorchScript of the model, --detector=dinov2:PATH'),
        ('inceptoin', {}, "Did you mean 'inception'"),
    ):
        with pytest.raises(UserError, match=message) as err:
            detectors.load(name, files)
        assert '\n' not in str(err.value)
