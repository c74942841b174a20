"""The Inception of 2015-12-05 that FID, KID and IS are defined with, as a module for weights in pytorch-fid's format.

Names of weights are those of torchvision's Inception v3. What makes it the 2015 network: 1008 classes, average pools that leave the padding
out of the mean, a maximum pool in the last block, and TensorFlow 1's resizing and scaling of its input.
"""

import torch
import torch.nn.functional as F
from torch import nn

SIDE = 299
FEATURES, CLASSES = 2048, 1008


def resized(images, side=SIDE):
    """Bilinear, as TensorFlow 1 does: output pixel i is read at i * input / output, the last pixel repeated.

    images: float [N, C, H, W];  returns [N, C, side, side]
    """
    for axis in (2, 3):
        size = images.shape[axis]
        place = torch.arange(side, dtype=torch.float64) * size / side
        low = place.floor().long()
        share = (place - low).to(images).reshape((-1, 1) if axis == 2 else (-1,))
        low, high = (index.clamp(max=size - 1).to(images.device) for index in (low, low + 1))
        images = torch.lerp(images.index_select(axis, low), images.index_select(axis, high), share)
    return images


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm with the stored statistics, ReLU."""

    def __init__(self, inputs, outputs, kernel, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def _average(x):
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _maximum(x):
    return F.max_pool2d(x, 3, stride=1, padding=1)


def _halve(x):
    return F.max_pool2d(x, 3, stride=2)


# A block is a list of branches, a branch a list of steps: a pool, (name, outputs, kernel[, stride]), or a list of such for the same input.


def block_35(pooled):
    """Branches of a block at 35 x 35; pooled: channels of its last branch."""
    return [[('branch1x1', 64, 1)], [('branch5x5_1', 48, 1), ('branch5x5_2', 64, 5)],
            [('branch3x3dbl_1', 64, 1), ('branch3x3dbl_2', 96, 3), ('branch3x3dbl_3', 96, 3)], [_average, ('branch_pool', pooled, 1)]]


def block_17(width):
    """Branches of a block at 17 x 17; width: channels between its long kernels."""
    return [[('branch1x1', 192, 1)],
            [('branch7x7_1', width, 1), ('branch7x7_2', width, (1, 7)), ('branch7x7_3', 192, (7, 1))],
            [('branch7x7dbl_1', width, 1), ('branch7x7dbl_2', width, (7, 1)), ('branch7x7dbl_3', width, (1, 7)),
             ('branch7x7dbl_4', width, (7, 1)), ('branch7x7dbl_5', 192, (1, 7))],
            [_average, ('branch_pool', 192, 1)]]


def block_8(pool):
    """Branches of a block at 8 x 8; pool: of its last branch."""
    return [[('branch1x1', 320, 1)],
            [('branch3x3_1', 384, 1), [('branch3x3_2a', 384, (1, 3)), ('branch3x3_2b', 384, (3, 1))]],
            [('branch3x3dbl_1', 448, 1), ('branch3x3dbl_2', 384, 3), [('branch3x3dbl_3a', 384, (1, 3)), ('branch3x3dbl_3b', 384, (3, 1))]],
            [pool, ('branch_pool', 192, 1)]]


TO_17 = [[('branch3x3', 384, 3, 2)], [('branch3x3dbl_1', 64, 1), ('branch3x3dbl_2', 96, 3), ('branch3x3dbl_3', 96, 3, 2)], [_halve]]
TO_8 = [[('branch3x3_1', 192, 1), ('branch3x3_2', 320, 3, 2)],
        [('branch7x7x3_1', 192, 1), ('branch7x7x3_2', 192, (1, 7)), ('branch7x7x3_3', 192, (7, 1)), ('branch7x7x3_4', 192, 3, 2)], [_halve]]


class Mixed(nn.Module):
    """Branches side by side, their outputs concatenated. Steps of stride 1 keep the size, those of stride 2 have no padding."""

    def __init__(self, inputs, branches):
        super().__init__()
        self.branches = branches
        self.outputs = sum(self._build(branch, inputs) for branch in branches)

    def _build(self, branch, width):
        """Makes the layers of a branch; returns its channels."""
        for step in branch:
            if isinstance(step, list):
                width = sum(self._build([part], width) for part in step)
            elif not callable(step):
                name, outputs, kernel, stride = (*step, 1)[:4]
                sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
                padding = tuple(side // 2 for side in sides) if stride == 1 else 0
                self.add_module(name, ConvNorm(width, outputs, kernel, stride, padding))
                width = outputs
        return width

    def _run(self, branch, x):
        for step in branch:
            if isinstance(step, list):
                x = torch.cat([self._run([part], x) for part in step], dim=1)
            else:
                x = step(x) if callable(step) else getattr(self, step[0])(x)
        return x

    def forward(self, x):
        return torch.cat([self._run(branch, x) for branch in self.branches], dim=1)


STEM = {  # name: ConvNorm's arguments; a pool of stride 2 follows 2b and 4a
    'Conv2d_1a_3x3': (3, 32, 3, 2), 'Conv2d_2a_3x3': (32, 32, 3), 'Conv2d_2b_3x3': (32, 64, 3, 1, 1),
    'Conv2d_3b_1x1': (64, 80, 1), 'Conv2d_4a_3x3': (80, 192, 3),
}
MIXED = {
    'Mixed_5b': block_35(32), 'Mixed_5c': block_35(64), 'Mixed_5d': block_35(64), 'Mixed_6a': TO_17, 'Mixed_6b': block_17(128),
    'Mixed_6c': block_17(160), 'Mixed_6d': block_17(160), 'Mixed_6e': block_17(192), 'Mixed_7a': TO_8, 'Mixed_7b': block_8(_average),
    'Mixed_7c': block_8(_maximum),
}


class Inception(nn.Module):
    """uint8 images to pooled features and class probabilities. Starts with random weights; always in evaluation mode."""

    def __init__(self):
        super().__init__()
        for name, arguments in STEM.items():
            self.add_module(name, ConvNorm(*arguments))
        width = 192
        for name, branches in MIXED.items():
            block = Mixed(width, branches)
            self.add_module(name, block)
            width = block.outputs
        self.fc = nn.Linear(FEATURES, CLASSES)
        self.eval().requires_grad_(False)

    def train(self, mode=True):
        return super().train(False)

    def forward(self, images):
        """uint8 [N, 3, H, W] -> features [N, 2048], float32."""
        x = (resized(images.float()) - 128) / 128
        for name in STEM:
            x = getattr(self, name)(x)
            if name in ('Conv2d_2b_3x3', 'Conv2d_4a_3x3'):
                x = _halve(x)
        for name in MIXED:
            x = getattr(self, name)(x)
        return x.mean(dim=(2, 3))

    def logits(self, features):
        """features [N, 2048] -> [N, 1008]."""
        return self.fc(features)

    def probabilities(self, features):
        """features [N, 2048] -> [N, 1008]; the bias is left out, as the inception score's own script does."""
        return torch.softmax(features @ self.fc.weight.T, dim=1)
