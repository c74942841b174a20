"""Our Inception against its own description: names and shapes of weights, resizing, pooling, scale; weights are random."""

import pytest
import torch
import torch.nn.functional as F

from metrics import inception
from metrics.inception import Inception, Mixed
from tests.helpers import relative_error


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return Inception()


def test_resizing_reads_where_tensorflow_1_does():
    image = torch.rand(1, 2, 5, 7, dtype=torch.float64)
    out = inception.resized(image, side=12)
    for i, j in ((0, 0), (3, 8), (11, 11), (5, 10)):
        y, x = i * 5 / 12, j * 7 / 12
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, 4), min(x0 + 1, 6)
        top = image[0, :, y0, x0] * (1 - x + x0) + image[0, :, y0, x1] * (x - x0)
        bottom = image[0, :, y1, x0] * (1 - x + x0) + image[0, :, y1, x1] * (x - x0)
        assert torch.allclose(out[0, :, i, j], top * (1 - y + y0) + bottom * (y - y0))
    assert torch.equal(inception.resized(image, side=5)[:, :, :, 0], image[:, :, :, 0])


def test_resizing_agrees_with_the_affine_grid_of_the_torchscript():
    """The published TorchScript shifts an affine grid by half an input pixel less half an output pixel, borders repeated."""
    image = torch.rand(1, 3, 20, 20)
    shift = 1 / 20 - 1 / 33
    theta = torch.tensor([[[1.0, 0, shift], [0, 1.0, shift]]])
    grid = F.affine_grid(theta, [1, 3, 33, 33], align_corners=False)
    expected = F.grid_sample(image, grid, mode='bilinear', padding_mode='border', align_corners=False)
    assert relative_error(inception.resized(image, side=33), expected) < 1e-5


def test_weights_have_the_names_and_shapes_of_pytorch_fid(network):
    state = {key: tuple(value.shape) for key, value in network.state_dict().items() if not key.endswith('num_batches_tracked')}
    auxiliary = 768 * 128 + 2 * 128 + 128 * 768 * 25 + 2 * 768 + 769 * 1000
    torchvision = 27_161_264 - auxiliary + 8 * 2049  # its Inception v3, without the auxiliary head, with 8 more classes
    assert len(state) == 94 * 5 + 2  # 94 convolutions with batch norm, one linear layer
    assert sum(torch.Size(shape).numel() for key, shape in state.items() if 'running' not in key) == torchvision
    for key, shape in {
        'Conv2d_1a_3x3.conv.weight': (32, 3, 3, 3), 'Conv2d_4a_3x3.bn.running_var': (192,),
        'Mixed_5b.branch5x5_2.conv.weight': (64, 48, 5, 5),
        'Mixed_5d.branch_pool.conv.weight': (64, 288, 1, 1), 'Mixed_6a.branch3x3dbl_3.conv.weight': (96, 96, 3, 3),
        'Mixed_6b.branch7x7dbl_4.conv.weight': (128, 128, 7, 1), 'Mixed_6e.branch7x7_2.conv.weight': (192, 192, 1, 7),
        'Mixed_7a.branch7x7x3_4.conv.weight': (192, 192, 3, 3), 'Mixed_7b.branch3x3dbl_3b.conv.weight': (384, 384, 3, 1),
        'Mixed_7c.branch1x1.conv.weight': (320, 2048, 1, 1), 'fc.weight': (1008, 2048), 'fc.bias': (1008,),
    }.items():
        assert state[key] == shape


def test_shapes_along_the_way(network):
    seen = {}
    hooks = [getattr(network, name).register_forward_hook(lambda module, args, out, name=name: seen.__setitem__(name, tuple(out.shape[1:])))
             for name in ('Conv2d_1a_3x3', 'Conv2d_4a_3x3', 'Mixed_5b', 'Mixed_5d', 'Mixed_6a', 'Mixed_6e', 'Mixed_7a', 'Mixed_7c')]
    features = network(torch.randint(0, 256, (1, 3, 64, 48), dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    assert seen == {'Conv2d_1a_3x3': (32, 149, 149), 'Conv2d_4a_3x3': (192, 71, 71), 'Mixed_5b': (256, 35, 35), 'Mixed_5d': (288, 35, 35),
                    'Mixed_6a': (768, 17, 17), 'Mixed_6e': (768, 17, 17), 'Mixed_7a': (1280, 8, 8), 'Mixed_7c': (2048, 8, 8)}
    assert features.shape == (1, 2048) and features.dtype == torch.float32
    logits = network.logits(features)
    assert logits.shape == (1, 1008)
    expected = torch.softmax(logits - network.fc.bias, dim=1)  # the inception score leaves the bias out
    assert relative_error(network.probabilities(features), expected) < 1e-5
    assert not network.train().training


def test_grey_of_128_is_zero(network):
    seen = []
    hook = network.Conv2d_1a_3x3.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    network(torch.tensor([0, 128, 255]).reshape(1, 3, 1, 1).expand(1, 3, 20, 20).to(torch.uint8))
    hook.remove()
    assert seen[0].shape == (1, 3, 299, 299) and seen[0][0, :, 7, 9].tolist() == [-1, 0, 127 / 128]


def test_a_block_by_hand():
    torch.manual_seed(1)
    block = Mixed(8, inception.block_8(inception._maximum)).eval()
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 8, 8, 8)

    def layer(name, x, padding=0):
        part = getattr(block, name)
        y = F.conv2d(x, part.conv.weight, padding=padding)
        mean, var = (v.reshape(1, -1, 1, 1) for v in (part.bn.running_mean, part.bn.running_var))
        return ((y - mean) / (var + 0.001).sqrt()).clamp(min=0)

    three = layer('branch3x3_1', x)
    double = layer('branch3x3dbl_2', layer('branch3x3dbl_1', x), 1)
    expected = torch.cat([
        layer('branch1x1', x), layer('branch3x3_2a', three, (0, 1)), layer('branch3x3_2b', three, (1, 0)),
        layer('branch3x3dbl_3a', double, (0, 1)), layer('branch3x3dbl_3b', double, (1, 0)),
        layer('branch_pool', F.max_pool2d(x, 3, 1, 1))], dim=1)
    assert relative_error(block(x), expected) < 1e-5


def test_average_pool_leaves_padding_out():
    assert torch.allclose(inception._average(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))
