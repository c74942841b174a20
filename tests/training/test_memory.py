"""What a step is said to need, against networks whose needs are known; and how many images at once are chosen."""

import math

import pytest
import torch

from dnnlib.util import UserError
from tests.training.test_config import data
from tests.training.tiny import make_images, tiny_run
from training import memory, plugins
from training.config import build


class Exponential(torch.nn.Module):
    """Keeps its result, and its parameter, for the backward pass."""

    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return (self.rate * x).exp()  # the product keeps x, the exponential itself


@pytest.fixture
def settings(tmp_path):
    return tiny_run(make_images(tmp_path / 'images'), batch=12)[1]


def needed(fixed, per_image):
    return memory.Needs({'G': 1, 'D': 1}, {'G': 4, 'D': 4}, fixed, per_image, {'G': 1, 'D': 1})


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_bytes_kept_for_the_backward_pass(device):
    x = torch.zeros([2, 5], device=device)
    assert memory.saved_bytes(lambda: Exponential().to(device)(x)) == 2 * 5 * 4 + 2 * 5 * 4
    half = x.half()
    assert memory.saved_bytes(lambda: (half.requires_grad_().exp(), half.exp())) == 2 * 2 * 5 * 2


def test_needs_grow_by_what_an_image_keeps(settings):
    found = memory.needs(settings)
    small = build('x', plugins.presets()['stylegan2-tiny'], data(32), batch=4)
    large = build('x', plugins.presets()['stylegan2-tiny'], data(64), batch=4)
    assert 2 < memory.needs(large).per_image / memory.needs(small).per_image < 3  # channels halve from one to the next
    assert found.memory(7) - found.memory(3) == pytest.approx(4 * found.per_image)
    assert found.fixed > memory.BASE + 5 * found.weights['G'] + 4 * found.weights['D']


def test_the_largest_pass_counts(settings):
    plain = memory.needs(build('x', {**plugins.presets()['stylegan2-tiny'], 'gamma': 0}, data(64)))
    with_path_length = memory.needs(build('x', {**plugins.presets()['stylegan2-tiny'], 'gamma': 0, 'pl_weight': 2}, data(64)))
    assert with_path_length.per_image >= plain.per_image > 0
    half = memory.needs(build('x', plugins.presets()['stylegan2'], data(32), device='cuda'))
    assert half.per_image < 0.7 * memory.needs(build('x', plugins.presets()['stylegan2'], data(32))).per_image


@pytest.mark.parametrize('name', plugins.presets())
def test_every_preset_can_be_estimated(name):
    found = memory.needs(build(name, plugins.presets()[name], data(16, label_dim=3)))
    assert found.per_image > 0 and found.parameters['G'] > 0


@pytest.mark.parametrize('free, world, expected', [(1e9, 1, 12), (1e9, 2, 6), (100, 1, 6), (59, 1, 3), (25, 1, 1), (19, 1, 1), (17, 1, 0)])
def test_the_largest_divisor_that_fits_is_taken(settings, free, world, expected):
    assert needed(10, 8).fitting(settings, free, world) == expected


def test_choice_is_told(settings, monkeypatch):
    monkeypatch.setattr(memory, 'free_bytes', lambda device: 30 * 2 ** 20)
    small, line = memory.fit(settings, needed(2 ** 20, 15 * 2 ** 20), 'cpu', 1, chosen=False)
    assert small.run.batch_gpu == 1 and small.images_at_once(1) == 1
    assert line == ('memory:      about 16.0 MiB besides PyTorch itself in passes of 1, 30.0 MiB free; more do not fit, so a batch of 12 '
                    'takes 12 passes and minibatch groups shrink from 2 to 1')
    same, line = memory.fit(settings, needed(2 ** 20, 15 * 2 ** 20), 'cpu', 1, chosen=True)
    assert same is settings and line.endswith('181.0 MiB besides PyTorch itself in passes of 12, 30.0 MiB free. '
                                              'This may not fit: --batch-gpu=1 needs less')
    all_fit, line = memory.fit(settings, needed(2 ** 20, 2 ** 20), 'cpu', 1, chosen=False)
    assert all_fit.run.batch_gpu == 12 and line.endswith('in passes of 12, 30.0 MiB free')
    with pytest.raises(UserError, match='one image at a time needs about 41.0 MiB of memory on cpu, and 30.0 MiB is free'):
        memory.fit(settings, needed(2 ** 20, 40 * 2 ** 20), 'cpu', 1, chosen=False)


def test_control_groups_limit_what_is_free(tmp_path):
    root, membership = tmp_path / 'cgroup', tmp_path / 'self'
    inner = root / 'box' / 'inner'
    inner.mkdir(parents=True)

    def group(folder, limit, used, cached, names=('memory.max', 'memory.current', 'inactive_file')):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names[0]).write_text(f'{limit}\n')
        (folder / names[1]).write_text(f'{used}\n')
        (folder / 'memory.stat').write_text(f'anon 5\n{names[2]} {cached}\n')

    membership.write_text('0::/box/inner\n')
    assert memory.cgroup_free(root, membership) == math.inf
    group(inner, 'max', 10, 0)
    assert memory.cgroup_free(root, membership) == math.inf
    group(root / 'box', 1000, 300, 50)
    assert memory.cgroup_free(root, membership) == 750
    group(inner, 500, 400, 0)
    assert memory.cgroup_free(root, membership) == 100
    membership.write_text('9:name=systemd:/\n4:cpu,memory:/old\n')
    group(root / 'memory' / 'old', 90, 80, 5, ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'))
    assert memory.cgroup_free(root, membership) == 15
    assert memory.cgroup_free(root, tmp_path / 'none') == math.inf


def test_processes_share_the_memory_of_the_machine(monkeypatch):
    monkeypatch.setattr(memory.psutil, 'virtual_memory', lambda: type('Free', (), {'available': 1000}))
    monkeypatch.setattr(memory, 'cgroup_free', lambda: 900)
    assert memory.free_bytes('cpu') == 900
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '3')
    assert memory.free_bytes('cpu') == 300


def test_windows_take_little_more_than_whole_pictures():
    row = plugins.presets()['inr-any']
    whole, windows = (memory.needs(build('inr-any', row, data(256, res=256), windows=on)) for on in (False, True))
    assert windows.memory(16) < 1.05 * whole.memory(16)
    assert whole.macs['G'] < windows.macs['G'] < 1.3 * whole.macs['G']
