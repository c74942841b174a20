"""--init-from: what is taken of a snapshot, said line by line, and what is refused."""

import dataclasses
import math

import pytest
import torch

from dnnlib.util import UserError
from tests.helpers import ROOT
from tests.training.test_config import data
from tests.training.tiny import ROW
from torch_utils.ops import upfirdn2d
from training import plugins, transfer
from training.checkpoint import read_header, save_networks
from training.config import build
from training.ema import ema_beta
from training.transfer import Classes


def networks(settings, seed=0):
    torch.manual_seed(seed)
    G = plugins.build_generator(settings)
    return {'G': G, 'D': plugins.build_discriminator(settings), 'G_ema': plugins.build_generator(settings)}


@pytest.fixture
def file(tmp_path):
    """A function that writes networks of a configuration and returns (path, networks)."""
    def write(settings, only=('G', 'D', 'G_ema')):
        made = {name: network for name, network in networks(settings, seed=1).items() if name in only}
        path = tmp_path / 'a.safetensors'
        save_networks(path, made, settings, 4000)
        return path, made

    return write


def settings_of(resolution=16, row=None, **changed):
    return build('x', {**ROW, **(row or {})}, data(resolution, **changed))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_everything_is_taken_where_everything_fits(file):
    settings = settings_of()
    path, there = file(settings)
    here = networks(settings)
    assert not any(same(here[name], there[name]) for name in here)
    lines = transfer.load(path, here)
    assert all(same(here[name], there[name]) for name in here)
    count = len(here['G'].state_dict())
    assert lines[0] == f'G: {count} of {count} tensors, 100% of its numbers, from G of {path}'
    assert lines == transfer.check(path, settings)


@pytest.mark.parametrize('only', [('G_ema',), ('G',)])
def test_generator_and_average_stand_in_for_each_other(file, only):
    path, there = file(settings_of(), only)
    here = networks(settings_of())
    D = [value.clone() for value in here['D'].state_dict().values()]
    lines = transfer.load(path, here)
    assert same(here['G'], there[only[0]]) and same(here['G_ema'], there[only[0]])
    assert all(torch.equal(a, b) for a, b in zip(here['D'].state_dict().values(), D, strict=True))
    assert f'from {only[0]} of' in lines[0] and lines[1] == f'D: as initialized, {path} has none'


def test_the_bundled_model_starts_a_run_of_its_preset():
    bundled = next((ROOT / 'assets').glob('*.safetensors'))
    meta = read_header(bundled)
    if meta['cfg'] not in plugins.presets():
        pytest.skip('there is no inr')
    settings = build(meta['cfg'], plugins.presets()[meta['cfg']], data(64, label_dim=meta['dataset']['label_dim']))
    lines = transfer.check(bundled, settings)
    assert ' tensors, 100% of its numbers, from G_ema of ' in lines[0] and '; ' not in lines[0]
    with pytest.raises(UserError, match=f"only 0.0% of G would be taken: .* have another shape.*: take the --cfg={meta['cfg']}"):
        transfer.check(bundled, build('stylegan2', plugins.presets()['stylegan2'], data(64)))


def test_a_higher_resolution_takes_the_blocks_that_it_has_as_well(file):
    path, there = file(settings_of(16))
    here = networks(settings_of(32))
    initial = here['G'].synthesis.b32.conv0.weight.clone()
    lines = transfer.load(path, here)
    assert torch.equal(here['G'].synthesis.b16.conv0.weight, there['G'].synthesis.b16.conv0.weight)
    assert torch.equal(here['G'].synthesis.b32.conv0.weight, initial)
    assert 'as initialized, since the file has none: synthesis.b32.' in lines[0]
    assert torch.equal(here['D'].b8.conv0.weight, there['D'].b8.conv0.weight) and 'b32.' in lines[1]


def test_a_run_grows_out_of_a_smaller_one_without_losing_what_it_learned(file):
    path, there = file(settings_of(16))
    grown = build('x', ROW, data(32), grow='16:0', fade=1)
    here = networks(grown)
    lines = transfer.load(path, here)
    assert lines == transfer.check(path, grown)
    assert 'zero, so that the image begins as the smaller one enlarged: synthesis.b32.torgb.weight, synthesis.b32.torgb.bias' in lines[0]
    assert 'b16.entry' not in lines[1] and 'b32.fromrgb.weight' in lines[1]
    ws, x = torch.randn(2, here['G'].num_ws, 8), torch.randn(2, 3, 32, 32)
    for name in ('G', 'G_ema'):
        small = there[name].synthesis(ws[:, : there[name].num_ws], noise_mode='const')
        enlarged = here[name].synthesis(ws, noise_mode='const')
        assert torch.equal(enlarged, upfirdn2d.upsample2d(small, here[name].synthesis.b32.resample_filter))
    torch.testing.assert_close(here['D'](x, None, fade=0.0), there['D'](torch.nn.functional.avg_pool2d(x, 2), None))

    path, there = file(grown)  # and back: the smaller images enter where they did while it grew
    here = networks(settings_of(16))
    transfer.load(path, here)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(here['D'](x, None), there['D'](x, None))


def test_a_run_from_a_file_grows_from_its_size(file):
    path, _ = file(settings_of(16))
    row = {**ROW, 'ema_rampup': 0.05, 'grow': {16: '', 32: '16:30', 64: '16:30,32:75'}}
    assert transfer.starting_row(path, row, 64) == {**row, 'ema_rampup': transfer.RAMPUP, 'grow': '16:0,32:75'}
    assert transfer.starting_row(path, row, 16)['grow'] == transfer.starting_row(path, ROW, 64)['grow'] == ''


def test_the_average_of_a_short_run_leaves_the_file_behind():
    """Where the half-life was the preset's 5,000 images, 2,560 images left 70% of the file's average in that of the run. It begins with G;
    what G was after 160 images is a thousandth of it then."""
    for kimg in (5, 10):
        assert ema_beta(16, kimg, transfer.RAMPUP, 0) == 0
        assert 0 < math.prod(ema_beta(16, kimg, transfer.RAMPUP, images) for images in range(160, 2560, 16)) < 1e-3
    assert ema_beta(16, 5, transfer.RAMPUP, 20_000) == ema_beta(16, 5, None, 0)  # a long run has the preset's


def test_shapes_alone_decide():
    G = networks(settings_of())['G']
    shapes = {f'G.{key}': list(value.shape) for key, value in G.state_dict().items()}
    headless = transfer.compare('G', G, {key: shape for key, shape in shapes.items() if 'torgb' not in key})
    assert headless.zero == [] and 'synthesis.b16.torgb.weight' in headless.absent  # zero everywhere would be no image
    wide = transfer.compare('G', G, {**shapes, 'G.synthesis.b16.torgb.bias': [5], 'G.synthesis.b8.torgb.bias': [5, 1]})
    assert wide.cut == ['synthesis.b16.torgb.bias'] and wide.other_shape == ['synthesis.b8.torgb.bias']


def test_image_channels_and_labels_take_the_common_part(file):
    path, there = file(settings_of())
    here = networks(settings_of(channels=4, label_dim=3))
    before = here['G'].synthesis.b16.torgb.weight.clone()
    lines = transfer.load(path, here)
    torgb, fc0 = here['G'].synthesis.b16.torgb.weight, here['G'].mapping.fc0.weight
    assert torch.equal(torgb[:3], there['G'].synthesis.b16.torgb.weight) and torch.equal(torgb[3:], before[3:])
    assert torch.equal(fc0[:, :8], there['G'].mapping.fc0.weight) and fc0.shape == (8, 16)
    assert torch.equal(here['D'].b16.fromrgb.weight[:, :3], there['D'].b16.fromrgb.weight)
    assert 'in part: synthesis.b4.torgb.weight, synthesis.b4.torgb.bias, ' in lines[0] and 'mapping.embed.weight' in lines[0]


@pytest.mark.parametrize('there_lr, here_lr', [(0.01, 0.3), (0.3, 0.01), (1.0, 0.1)])
@pytest.mark.parametrize('labels', [0, 3])
def test_a_mapping_network_of_another_rate_begins_as_the_same_function(file, there_lr, here_lr, labels):
    path, there = file(settings_of(row={'mapping_lr': there_lr}))
    here = networks(settings_of(row={'mapping_lr': here_lr}, label_dim=labels))
    initial = here['G'].mapping.fc0.weight.clone()
    assert read_header(path)['networks']['G']['init_kwargs']['mapping_kwargs'].get('lr_multiplier', 0.01) == there_lr
    transfer.load(path, here)
    z, c = torch.randn(4, 8), torch.zeros(4, labels)
    for name in ('G', 'G_ema'):
        mapping, theirs = here[name].mapping, there[name].mapping
        torch.testing.assert_close(mapping.fc1(z), theirs.fc1(z))
        torch.testing.assert_close(mapping.fc0.weight[:, :8] * here_lr, theirs.fc0.weight * there_lr)
        if not labels:
            torch.testing.assert_close(mapping(z, c), theirs(z, None))
    assert torch.equal(here['G'].mapping.fc0.weight[:, 8:], initial[:, 8:])
    assert same(here['D'].b16, there['D'].b16)


def test_a_mapping_network_without_equalized_rates_is_taken_as_it_is(file):
    inr = pytest.importorskip('inr.presets')
    settings = build('inr-tiny', inr.PRESETS['inr-tiny'], data(32), equalized_lr=False)
    path, there = file(settings)
    here = networks(settings)
    transfer.load(path, here)
    assert same(here['G'], there['G']) and same(here['D'], there['D'])


def label_inputs(network):
    """What a network's embedding makes of each label input alone, as the network uses it: [label inputs, features]."""
    embed = network.mapping.embed
    return embed(torch.eye(embed.weight.shape[1]))


def test_classes_are_known_by_their_names(file):
    path, there = file(settings_of(label_dim=3, classes=['bird', 'cat', 'dog']))
    settings = settings_of(label_dim=5, classes=['dog', 'cat/tabby', 'cow', 'cat/black/big', 'bird'])
    here = networks(settings)
    untouched = label_inputs(here['G'])[2] - here['G'].mapping.embed.bias
    lines = transfer.load(path, here, Classes(settings.data.classes))
    for name in here:
        torch.testing.assert_close(label_inputs(here[name])[[0, 1, 3, 4]], label_inputs(there[name])[[2, 1, 1, 0]])
    torch.testing.assert_close(label_inputs(here['G'])[2] - here['G'].mapping.embed.bias, untouched)
    assert lines == transfer.check(path, settings) and 'by the names of classes: mapping.embed.weight' in lines[0]
    taken = transfer.compare('G', here['G'], {f'G.{key}': list(value.shape) for key, value in there['G'].state_dict().items()},
                             ['bird', 'cat', 'dog'], settings.data.classes)
    assert taken.of - taken.numbers == len(here['G'].mapping.embed.weight)  # the column of the cow


def test_classes_of_a_hypernetwork_are_known_by_their_names_too(file):
    inr = pytest.importorskip('inr.presets')
    path, there = file(build('paper-tiny', inr.PRESETS['paper-tiny'], data(32, label_dim=2, classes=['cat', 'dog'])))
    for classes, rows in ((['dog', 'cat'], [1, 0]), (['cow', 'dog/1', 'dog/2'], [None, 1, 1])):
        settings = build('paper-tiny', inr.PRESETS['paper-tiny'], data(32, label_dim=len(classes), classes=classes))
        here = networks(settings)
        lines = transfer.load(path, here, Classes(classes))
        for name in ('G', 'G_ema'):
            ours, theirs = here[name].mapping.embedding, there[name].mapping.embedding
            known = [i for i, row in enumerate(rows) if row is not None]
            assert torch.equal(ours[known], theirs[[rows[i] for i in known]])
        assert all('by the names of classes: mapping.embed' in line for line in lines) and lines == transfer.check(path, settings)


def test_the_same_classes_in_another_order(file):
    path, there = file(settings_of(label_dim=2, classes=['cat', 'dog']))
    here = networks(settings_of(label_dim=2, classes=['dog', 'cat']))
    transfer.load(path, here, Classes(['dog', 'cat']))
    torch.testing.assert_close(label_inputs(here['D']), label_inputs(there['D']).flip(0))


def test_classes_of_a_discriminator_of_another_width(file):
    path, _ = file(settings_of(label_dim=2, classes=['cat', 'dog']))
    narrow = settings_of(label_dim=2, classes=['dog', 'cat'])
    narrow = dataclasses.replace(narrow, discriminator=dataclasses.replace(narrow.discriminator, channel_max=4))
    here = networks(narrow)
    before = here['D'].mapping.embed.weight.clone()
    lines = transfer.load(path, here, Classes(narrow.data.classes))
    assert torch.equal(here['D'].mapping.embed.weight, before) and 'by the names' in lines[0] and 'by the names' not in lines[1]


@pytest.mark.parametrize('there, here, their_classes, classes, expected', [
    (2, 2, ['a', 'b'], ['c', 'd'], [None, None]),  # no name in common
    (2, 2, None, ['c', 'd'], [None, None]),
    (2, 3, ['a', 'b'], None, [None] * 3),
    (4, 5, ['a', 'b'], ['b', 'a', 'c'], [1, 0, None, 2, 3]),  # D of windows: two numbers more behind the classes
    (2, 5, ['a', 'b'], ['b', 'a', 'c'], [None] * 5),          # of whole pictures there, of windows here
    (9, 4, ['a/1', 'a/2', 'b/1'], ['a/1'], [None] * 4),       # of another number of other inputs
    (3, 4, ['a/1', 'b', 'a/2'], ['a/2', 'a/3', 'c/1', 'b'], [2, 3, None, 1])])  # a cluster that is not there: the mean of its group
def test_label_inputs_that_a_network_begins_with(there, here, their_classes, classes, expected):
    assert transfer.columns(there, here, their_classes, classes) == expected


@pytest.mark.parametrize('names, sizes, part, expected', [
    (['a/1', 'a/2', 'a/3', 'b/1', 'c'], [5, 4, 3, 2, 1], False, [[0, 2], [0, 2], [0, 2], [1, 3], [4]]),  # divided more finely
    (['a/1', 'a/2', 'b/1', 'b/2', 'c'], [8, 7, 4, 2, 9], False, [[0, 2], [0, 2], [1, 3], [1, 3], [4]]),  # as many, of a smaller set
    (['a/1', 'a/2', 'b/1', 'b/2', 'c'], [8, 7, 4, 2, 9], True, [[0], [2], [1], [3], [4]]),               # a part of the same set
    (['a', 'b/2', 'a/2', 'c', 'b/1'], [16, 6, 7, 3, 8], True, [[0, 2], [3], [2], [4], [1]])])            # `a` is not divided
def test_clusters_of_another_division_begin_as_the_mean_of_their_group(file, names, sizes, part, expected):
    path, there = file(settings_of(label_dim=5, classes=['a/1', 'b/1', 'a/2', 'b/2', 'c'], class_sizes=[9, 8, 7, 6, 5]))
    settings = settings_of(label_dim=5, classes=names, class_sizes=sizes, subset=9 if part else None)
    here = networks(settings)
    begun = {name: network.mapping.embed.weight.detach().clone() for name, network in here.items()}
    lines = transfer.load(path, here, Classes(names, sizes, looks=True, part=part))
    for name, network in here.items():
        for place, members in enumerate(expected):
            column = there[name].mapping.embed.weight.detach()[:, members].mean(1)
            if len(members) > 1:  # half as it looks
                look = begun[name][:, place]
                column = (column + look * column.norm() / look.norm()) / 2 ** 0.5
            torch.testing.assert_close(network.mapping.embed.weight.detach()[:, place], column)
    means = sum(len(members) > 1 for members in expected)
    assert (f'{means} of them as the mean of a group' in lines[0]) == (means > 0) and lines == transfer.check(path, settings, looks=True)


def test_classes_with_numbers_that_are_no_clusters_are_known_by_their_names(file):
    names = [f'digits/{i}' for i in range(3)]
    path, there = file(settings_of(label_dim=3, classes=names, class_sizes=[100] * 3))
    settings = settings_of(label_dim=3, classes=names, class_sizes=[120] * 3)
    here = networks(settings)
    transfer.load(path, here, Classes(names, [120] * 3))
    torch.testing.assert_close(label_inputs(here['G']), label_inputs(there['G']))
    damaged = {'classes': names[:2], 'class_sizes': [1, 2, 3]}
    assert transfer.same_division(damaged, Classes(names, [1] * 3, looks=True))


@pytest.mark.parametrize('others, same', [(1, True), (2, False)])
def test_nine_in_ten_clusters_must_have_the_sizes_of_the_file(others, same):
    names = [f'a/{i}' for i in range(1, 11)]
    repaired = Classes(names, [4] * others + [5] * (10 - others), looks=True)
    assert transfer.same_division({'classes': names, 'class_sizes': [5] * 10}, repaired) is same



def test_other_widths_are_refused_with_the_reason(file):
    path, _ = file(settings_of())
    wide = settings_of(row=dict(g_channel_base=512, g_channel_max=32, w_dim=16))
    with pytest.raises(UserError) as caught:
        transfer.load(path, networks(wide))
    text = str(caught.value)
    assert text.startswith(f'--init-from={path}: only ') and ', such as synthesis.b4.const, [8, 4, 4] there and [32, 4, 4] here' in text
    assert 'take the --cfg=x that it was trained with, and its --width' in text and '\n' not in text


def test_a_discriminator_of_another_width_is_said(file):
    path, there = file(settings_of())
    narrow = settings_of()
    narrow = dataclasses.replace(narrow, discriminator=dataclasses.replace(narrow.discriminator, channel_max=4))
    here = networks(narrow)
    lines = transfer.load(path, here)
    assert same(here['G'], there['G']) and 'as initialized, since the file has another shape: b16.fromrgb.weight' in lines[1]
