"""Snapshots: what is written is read back, and every kind of damage gets one line."""

import copy
import dataclasses
import json
import os
import pickle
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from dnnlib.util import UserError
from tests.training.tiny import make_images, tiny_run
from training import checkpoint
from training.checkpoint import load_networks, load_pair, network_path, save_networks, save_state, snapshots, state_path, step_name
from training.state import expect_state, read_state
from training.training_loop import Training


@pytest.fixture(scope='module')
def training(tmp_path_factory):
    dataset, settings = tiny_run(make_images(tmp_path_factory.mktemp('data') / 'images', classes=2), use_labels=True)
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, class_sizes=dataset.class_sizes))
    result = Training(settings, dataset)
    with torch.no_grad():
        for i, network in enumerate((result.D, result.G_ema)):
            next(network.parameters()).add_(i + 1.0)
    return result


@pytest.fixture
def network(training, tmp_path):
    path = network_path(tmp_path, 12_288)
    save_state(state_path(path), {**training.state_dict(), 'images': 12_288})
    save_networks(path, training.networks, training.settings, 12_288)
    return path


def rewrite(path, change=lambda header: None, tensors=lambda tensors: None):
    """Changes a snapshot's header and tensors."""
    with checkpoint.safe_open(path, framework='pt') as file:
        header = json.loads(file.metadata()['header'])
    values = load_file(path)
    change(header)
    tensors(values)
    save_file(values, path, metadata={'header': json.dumps(header)})


def message(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_names_sort_and_parse(tmp_path):
    assert step_name(12_000) == '000012' and step_name(12_288) == '000012_288' and step_name(1_234_567_000) == '1234567'
    counts = [0, 64, 999, 1000, 1001, 12_000, 12_288, 250_000]
    names = [network_path(tmp_path, count).name for count in counts]
    assert names == sorted(names)
    others = ('network-best.safetensors', 'network-snapshot-1.safetensors', '.tmp-network-snapshot-000001.safetensors')
    for name in (*reversed(names), *others):
        (tmp_path / name).touch()
    assert [path.name for path in snapshots(tmp_path)] == names
    assert state_path(network_path(tmp_path, 12_288)).name == 'training-state-000012_288.pt'


def test_networks_come_back(training, network):
    loaded = load_networks(network)
    assert list(loaded) == ['meta', 'G', 'D', 'G_ema']
    assert network.stat().st_mode == state_path(network).stat().st_mode
    for name, original in training.networks.items():
        found = loaded[name].state_dict()
        assert found.keys() == original.state_dict().keys()
        assert all(torch.equal(found[key], value) for key, value in original.state_dict().items())
        assert not loaded[name].training and not any(p.requires_grad for p in loaded[name].parameters())
    assert type(loaded['G']) is type(training.G) and loaded['D'].init_kwargs == training.D.init_kwargs
    meta, data = loaded['meta'], training.settings.data
    assert (meta['cfg'], meta['kimg'], meta['images'], meta['version']) == ('tiny', 12.288, 12_288, 1)
    about = {'path': data.path, 'digest': data.digest, 'resolution': 16, 'channels': 3, 'label_dim': 2, 'classes': None,
             'class_sizes': [5, 5], 'res': None}
    assert meta['dataset'] == about
    assert meta['recipe']['loss'] == dataclasses.asdict(training.settings.loss)


def test_only_some_networks(network):
    assert list(load_networks(network, only=('G_ema',))) == ['meta', 'G_ema']
    rewrite(network, lambda header: header['networks'].pop('D'))
    assert message(load_networks, network, only=('D',)).endswith('holds G, G_ema, not D')


def test_the_average_alone_in_half_precision(training, tmp_path):
    half = copy.deepcopy(training.networks['G_ema']).half()
    path = tmp_path / 'small.safetensors'
    save_networks(path, {'G_ema': half}, training.settings, 1000)
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    for only in (('G_ema',), None):
        loaded = load_networks(path, only=only)
        assert set(loaded) == {'G_ema', 'meta'}
        for key, value in loaded['G_ema'].state_dict().items():
            assert value.dtype == torch.float32 and torch.equal(value, half.state_dict()[key].float()), key


@pytest.mark.parametrize('class_name', ['os.system', 'training.config.Config', 'training.networks.torch.nn.Linear', 'torch.nn.Linear',
                                        'training.networks.normalize_2nd_moment', 'training.networks.nn', 'innr.generator.Generator', ''])
def test_a_header_cannot_name_other_classes(network, class_name):
    rewrite(network, lambda header: header['networks']['G'].update(class_name=class_name))
    assert f'G names another class, {class_name}' in message(load_networks, network)


def test_a_class_of_a_module_that_is_not_there(network):
    rewrite(network, lambda header: header['networks']['G'].update(class_name='inr.no_such.Generator'))
    assert 'there is no inr' in message(load_networks, network)


@pytest.mark.parametrize('change, expected', [
    (lambda header: header.update(version=2), 'was written in format 2 and this version reads up to 1: update the code'),
    (lambda header: header.pop('networks'), "the header is damaged, 'networks' is missing"),
    (lambda header: header.pop('version'), 'the header is damaged'),
    (lambda header: header['dataset'].update(class_sizes=[3, -1]), 'the header is damaged, dataset.class_sizes'),
    (lambda header: header['dataset'].update(class_sizes=[3]), 'the header is damaged, dataset.class_sizes'),
    (lambda header: header['dataset'].update(class_sizes='3'), 'the header is damaged, dataset.class_sizes'),
    (lambda header: header['networks']['G'].pop('init_kwargs'), 'the header is damaged, the entry of G'),
    (lambda header: header['networks']['G']['init_kwargs'].update(z_dims=3), 'training.networks.Generator cannot be built from its header'),
    (lambda header: header['networks']['D']['init_kwargs'].update(channel_max=4), 'D: b16.conv0.bias has shape [8], Discriminator needs'),
    (lambda header: header['networks']['G']['init_kwargs']['synthesis_kwargs'].update(conv_clamp='x'), "conv_clamp is 'x', which"),
])
def test_damaged_headers(network, change, expected):
    rewrite(network, change)
    assert expected in message(load_networks, network)


@pytest.mark.parametrize('rate', [0, -0.01, 'x', [1], float('nan'), float('inf'), 10 ** 400])
def test_rates_of_the_mapping_network_that_none_has(network, rate):
    assert checkpoint.open_weights(network).mapping_lr == {'G': 0.01, 'D': 0.01, 'G_ema': 0.01}
    rewrite(network, lambda header: header['networks']['G']['init_kwargs'].update(mapping_kwargs={'lr_multiplier': rate}))
    assert 'the header is damaged, the mapping network of G' in message(checkpoint.open_weights, network)


def test_missing_unexpected_and_changed_tensors(network):
    rewrite(network, tensors=lambda tensors: tensors.pop('G.mapping.fc0.bias'))
    assert 'G: the tensor mapping.fc0.bias is missing' in message(load_networks, network)
    rewrite(network, lambda header: header['crc32'].update({'G.extra': checkpoint.checksum(torch.ones(1))}),
            lambda tensors: tensors.update({'G.mapping.fc0.bias': torch.zeros(8), 'G.extra': torch.ones(1)}))
    assert 'G: Generator has no extra' in message(load_networks, network)
    rewrite(network, tensors=lambda tensors: tensors.pop('G.extra') and tensors['D.b4.out.weight'].add_(1))
    assert "the tensor 'D.b4.out.weight' is damaged (wrong checksum)" in message(load_networks, network)
    assert 'G_ema' in load_networks(network, only=('G_ema',))


@pytest.mark.parametrize('factor', [1, 2])
def test_a_constant_in_a_file_is_compared(training, tmp_path, factor):
    """A buffer that no state dict has: an equal one does no harm, another one is a line."""
    inr = pytest.importorskip('inr.generator')
    G, path = inr.Generator(8, 0, 8, 16, 3, {'num_layers': 1}, {'channel_base': 64}), tmp_path / 'constant.safetensors'
    key, constant = 'G_ema.synthesis.b4.coords.log_basis', G.synthesis.b4.coords.log_basis * factor
    save_networks(path, {'G_ema': G}, training.settings, 1000)
    crc = checkpoint.checksum(constant)
    rewrite(path, lambda header: header['crc32'].update({key: crc}), lambda tensors: tensors.update({key: constant}))
    if factor == 1:
        assert torch.equal(load_networks(path)['G_ema'].mapping.fc0.weight, G.mapping.fc0.weight)
    else:
        assert 'log_basis has other values than those that Generator computes with' in message(load_networks, path)


def test_files_that_are_no_snapshots(network, tmp_path):
    content = network.read_bytes()
    bad = tmp_path / 'bad.safetensors'
    for data, expected in (
        (content[:5], 'not a safetensors file'), (b'hello, this is text', 'not a safetensors file'), (b'', 'not a safetensors file'),
        (content[:3000], 'the header is damaged or cut off'), (content[:-1000], "cut off in the tensor 'G"),
        (content[:-4], "cut off in the tensor 'G"), (content + b'1234', 'the header does not fit the data'),
        (struct.pack('<Q', 8) + b'{"a": 1}', 'the header is damaged'),
    ):
        bad.write_bytes(data)
        assert f'{bad}: {expected}' in message(load_networks, bad)
    save_file({'a': torch.ones(1)}, bad)
    assert 'but not a snapshot of this project' in message(load_networks, bad)
    assert 'no such file' in message(load_networks, tmp_path / 'none.safetensors')
    (tmp_path / 'old.pkl').write_bytes(pickle.dumps({}))
    assert '(it holds nothing, not G, D or G_ema); nothing in it was run' in message(load_networks, tmp_path / 'old.pkl')


def test_pair_comes_back(training, network):
    fresh = Training(training.settings, training.dataset)
    state = load_pair(network, fresh.networks)
    assert state['images'] == 12_288
    assert torch.equal(next(fresh.D.parameters()), next(training.D.parameters()))


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_broken_pairs(training, network):
    networks = training.networks
    save_state(state_path(network), {'images': 5})
    assert 'is of another step than network-snapshot-000012_288.safetensors' in message(load_pair, network, networks)
    state_path(network).write_bytes(b'junk')
    assert 'training-state-000012_288.pt is damaged' in message(load_pair, network, networks)
    trace = network.with_name('trace')
    save_state(state_path(network), {'images': 12_288, 'x': Trap(trace)})
    assert 'training-state-000012_288.pt is damaged (it asks for posix.mkdir)' in message(load_pair, network, networks)
    assert not trace.exists()                                               # code is not run
    state_path(network).unlink()
    assert f'start anew with --init-from={network}' in message(load_pair, network, networks)


@pytest.fixture(scope='module')
def stepped(tmp_path_factory):
    """A run that has moments, and its state."""
    dataset, settings = tiny_run(make_images(tmp_path_factory.mktemp('data') / 'images'))
    result = Training(settings, dataset)
    result.step(torch.zeros([4, 3, 16, 16], dtype=torch.uint8), torch.zeros([4, 0]))
    return result, result.state_dict()


def moments(state):
    return state['optimizers']['D']['state'][2]


@pytest.mark.parametrize('change, expected', [
    (lambda state: moments(state).update(exp_avg_sq=torch.zeros(3, 3)), 'optimizers.D.2.exp_avg_sq is float32 [3, 3], not float32 [8,'),
    (lambda state: moments(state).update(exp_avg=moments(state)['exp_avg'].double()), 'optimizers.D.2.exp_avg is float64 [8, 8, 3, 3]'),
    (lambda state: moments(state)['exp_avg'][0].fill_(float('nan')), 'optimizers.D.2.exp_avg is not finite'),
    (lambda state: moments(state)['exp_avg_sq'][0].fill_(-1), 'optimizers.D.2 has a negative number of steps or mean square'),
    (lambda state: moments(state).update(step=torch.tensor(-1.0)), 'optimizers.D.2 has a negative number of steps or mean square'),
    (lambda state: moments(state).update(exp_avg=moments(state)['exp_avg'].to_sparse()), 'optimizers.D.2.exp_avg is float32 [8, 8, 3, 3]'),
    (lambda state: moments(state).update(step=torch.tensor([1.0, 2.0])), 'optimizers.D.2.step is float32 [2]'),
    (lambda state: moments(state).update(step=3), 'step is a int'),
    (lambda state: moments(state).pop('exp_avg'), 'optimizers.D.2 holds'),
    (lambda state: state['optimizers']['D']['state'].update({999: moments(state)}), 'optimizers.D holds 999, which is no parameter'),
    (lambda state: state['optimizers']['D']['state'].update({len(state['optimizers']['D']['param_groups'][0]['params']): moments(state)}),
        'optimizers.D holds '),
    (lambda state: state['optimizers']['G']['param_groups'][0]['params'].pop(), 'optimizers.G has other groups of parameters'),
    (lambda state: state['optimizers']['G']['param_groups'][0].update(params=torch.zeros(3)), 'optimizers.G has other groups'),
    (lambda state: state['optimizers'].pop('G'), 'G is missing'),
    (lambda state: state.pop('optimizers'), 'optimizers is missing'),
    (lambda state: state.update(pl_mean=torch.tensor(float('inf'))), 'pl_mean is not finite'),
    (lambda state: state.update(pl_mean=torch.zeros(2)), 'pl_mean is float32 [2], not float32 []'),
    (lambda state: state.update(seconds=float('nan')), 'seconds is nan'),
    (lambda state: state.update(seconds=float('inf')), 'seconds is inf'),
    (lambda state: state.update(best=float('nan')), 'best is NaN'),
    (lambda state: state.update(images=-4), 'images is -4'),
    (lambda state: state.update(images=True), 'images is a bool'),
    (lambda state: state.update(images='4'), 'images is a str'),
    (lambda state: state['skipped'].update(G=-1), 'skipped.G is negative'),
    (lambda state: state['skipped_in_a_row'].pop('D'), 'D is missing'),
    (lambda state: state['skipped_in_a_row'].update(D=-1), 'skipped_in_a_row.D is negative'),
    (lambda state: state['stats'].update(x=torch.zeros(3)), 'stats.x is float32 [3], not float64 [3]'),
    (lambda state: state['stats'].update(x=torch.zeros(2, dtype=torch.float64)), 'stats.x is float64 [2], not float64 [3]'),
    (lambda state: state['stats'].update(x=[0.0, 0.0, 0.0]), "stats holds 'x'"),
    (lambda state: state.update(augment={'p': 2.0, 'start': 0.0, 'r': 0.0, 'sums': torch.zeros(3)}), 'augment.sums is float32 [3]'),
    (lambda state: state.update(augment={'p': float('nan'), 'start': 0.0, 'r': 0.0}), 'augment.p is nan'),
    (lambda state: state.update(augment={'p': 0.0, 'start': float('inf'), 'r': 0.0}), 'augment.start is inf'),
    (lambda state: state.update(augment={'p': 0.0, 'start': 0.0, 'r': float('nan')}), 'augment.r is nan'),
])
def test_a_state_is_checked_before_it_is_used(stepped, change, expected):
    training, state = stepped
    expect_state('a.pt', state, training.optimizers)
    state = copy.deepcopy(state)
    change(state)
    line = message(expect_state, 'a.pt', state, training.optimizers)
    assert line.startswith(f'a.pt: {expected}') and 'resume from the snapshot before' in line


def test_a_damaged_state_ends_a_resumed_run_in_one_line(stepped, tmp_path):
    training, state = stepped
    state, path = copy.deepcopy(state), network_path(tmp_path, 4)
    moments(state).update(exp_avg_sq=torch.zeros(3, 3))
    save_state(state_path(path), state)
    save_networks(path, training.networks, training.settings, 4)
    assert 'exp_avg_sq is float32 [3, 3]' in message(Training(training.settings, training.dataset).resume, path)


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a.dtype == b.dtype and torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize('kind', ['network', 'state'])
def test_single_flipped_bits_are_noticed_or_harmless(stepped, tmp_path, kind):
    training, state = stepped
    path = network_path(tmp_path, 4)
    save_state(state_path(path), state)
    save_networks(path, training.networks, training.settings, 4)
    file = path if kind == 'network' else state_path(path)

    def read():
        if kind == 'state':
            return read_state(file)
        return {name: module if name == 'meta' else module.state_dict() for name, module in load_networks(file).items()}

    whole, content, noticed = read(), file.read_bytes(), 0
    places = torch.randint(8 * len(content), [60], generator=torch.Generator().manual_seed(0)).tolist()
    ends = range(0, 8 * 2000, 997) if kind == 'network' else range(8 * (len(content) - 1500), 8 * len(content), 499)  # headers, directory
    for place in (*places, *ends):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            found = read()
        except UserError:
            noticed += 1
            continue
        assert same(found, whole), place
    assert noticed > 30


def test_a_full_disk_names_the_file(training, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise checkpoint.SafetensorError('I/O error: No space left on device (os error 28)')

    monkeypatch.setattr(checkpoint, 'save_file', full)
    with pytest.raises(OSError) as caught:
        save_networks(tmp_path / 'a.safetensors', training.networks, training.settings, 0)
    assert caught.value.errno == 28 and caught.value.filename == str(tmp_path / 'a.safetensors')
    assert list(tmp_path.iterdir()) == []
