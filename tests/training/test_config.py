"""From a preset's row and options to the configuration, and back from JSON."""

import dataclasses
import json

import pytest

from dnnlib import options
from dnnlib.util import UserError
from tests.training.tiny import ROW
from training import config, plugins, validation
from training.config import DataConfig, OptimizerConfig, at_resolution, build, override
from training.config_json import from_json, to_json
from training.ema import ema_beta
from training.networks import Discriminator
from training.summary import describe


def data(resolution=64, **changed):
    return DataConfig(**{'path': 'a.zip', 'digest': 'd', 'resolution': resolution, 'channels': 3, 'images': 10, 'label_dim': 0,
                         'classes': None, 'mirror': False, 'subset': None, **changed})


def test_resolution_rule():
    rule = {16: 'a', 256: 'b', 1024: 'c'}
    assert [at_resolution(rule, res) for res in (16, 128, 256, 512, 1024)] == ['a', 'a', 'b', 'b', 'c']
    assert at_resolution({'trunk': 1}, 64) == {'trunk': 1} and at_resolution({}, 64) == {} and at_resolution(5, 64) == 5
    with pytest.raises(UserError, match='resolution 16 is below the lowest that this preset has a rule for, 32'):
        at_resolution({32: 1}, 16)


def test_rules_and_automatic_values():
    row = {**ROW, 'batch': {16: 64, 256: 32}, 'gamma': 'auto', 'ema_kimg': 'auto', 'g_lr': {16: {'a': 1e-3, 'b': 1e-5}}}
    settings = build('x', row, data(256))
    assert settings.run.batch == 32 and settings.run.batch_gpu == 32
    assert settings.loss.gamma == pytest.approx(0.0002 * 256 ** 2 / 32)
    assert settings.ema.kimg == 10
    assert settings.optimizers.G.lr == {'a': 1e-3, 'b': 1e-5}
    smaller = build('x', row, data(256), batch=8)
    assert smaller.loss.gamma == pytest.approx(0.0002 * 256 ** 2 / 8) and smaller.ema.kimg == 2.5 and smaller.run.batch_gpu == 8


def test_ticks_are_short_on_a_cpu_where_a_step_takes_long():
    ticks = [build('x', ROW, data(resolution), batch=batch).run.tick for resolution, batch in ((32, 4), (64, 4), (64, 400))]
    assert ticks == [0.5, 0.25, 1.6] and build('x', ROW, data(64), device='cuda').run.tick == 4


def test_options_replace_the_preset_and_none_does_not():
    settings = build('x', ROW, data(), gamma=7.5, kimg=None, seed=3, batch_gpu=2, keep_last=0)
    assert (settings.loss.gamma, settings.run.kimg, settings.run.seed, settings.run.batch_gpu, settings.run.keep_last) == (7.5, 1, 3, 2, 0)
    assert build('x', ROW, data(), gamma=0).loss.gamma == 0


def test_one_rate_for_all_keeps_the_ratio_of_groups():
    settings = build('x', {**ROW, 'g_lr': {'trunk': 1e-5, 'rest': 5e-4}}, data(), lr=1e-3)
    assert settings.optimizers.G.lr == pytest.approx({'trunk': 2e-5, 'rest': 1e-3}) and settings.optimizers.D.lr == 1e-3


def test_lazy_regularization_scales_rates_and_betas():
    scaled = OptimizerConfig(0.0025, (0.0, 0.99), 1e-8).scaled(4)
    assert scaled.lr == pytest.approx(0.002) and scaled.betas == pytest.approx((0, 0.99 ** 0.8))
    grouped, share = OptimizerConfig({'a': 1.0}, (0.5, 0.9), 1e-8).scaled(16), 16 / 17
    assert grouped == OptimizerConfig({'a': share}, (0.5 ** share, 0.9 ** share), 1e-8)
    assert OptimizerConfig(0.0025, (0.0, 0.99), 1e-8).scaled(1) == OptimizerConfig(0.0025, (0.0, 0.99), 1e-8)


def test_effective_recipe_is_what_is_printed():
    text = describe(build('x', {**ROW, 'pl_weight': 0, 'g_reg_interval': 4}, data(), lr=0.0025))
    assert 'G optimizer: Adam, lr 0.002, betas 0 0.99199' in text and 'scaled for a penalty interval of 4' in text
    assert 'R1 gamma 0.5 every 3 steps, weighted by 3; path length off' in text
    assert 'batch:       4: 1 process(es), 1 pass(es) of 4' in text


@pytest.mark.parametrize('batch, batch_gpu, world, at_once, group', [
    (16, 16, 1, 16, 4), (16, 5, 1, 4, 4), (16, 16, 2, 8, 4), (16, 2, 1, 2, 2), (6, 6, 1, 6, 3), (3, 3, 1, 3, 3), (7, 7, 1, 7, 1),
])
def test_passes_and_groups_divide_the_batch(batch, batch_gpu, world, at_once, group):
    settings = build('x', {**ROW, 'mbstd_group': 4}, data(), batch=batch, batch_gpu=batch_gpu)
    assert settings.images_at_once(world) == at_once and settings.mbstd_group(world) == group
    assert settings.discriminator_kwargs(world)['epilogue_kwargs'] == {'mbstd_group_size': group}


def test_groups_stay_those_that_a_run_began_with():
    begun = build('x', {**ROW, 'mbstd_group': 4}, data(), batch=8, batch_gpu=8).with_groups_of(4)
    assert [begun.mbstd_group(world) for world in (4, 2, 1)] == [2, 2, 2] and begun.mbstd_group(8) == 1
    assert 'minibatch groups of 2\n' in describe(begun, 1)
    assert 'minibatch groups of 1, as many as a pass holds, in place of 2\n' in describe(begun, 8)


def test_width_multiplies_channels_and_w():
    row = {**ROW, 'w_dim': 64, 'g_channel_base': 4096, 'g_channel_max': 128, 'd_channel_base': 2048, 'd_channel_max': 100}
    half = build('x', row, data(), width=0.5)
    assert (half.generator.w_dim, half.generator.channel_base, half.generator.channel_max) == (32, 2048, 64)
    assert (half.discriminator.channel_base, half.discriminator.channel_max) == (1024, 50)
    least = build('x', row, data(), width=0.01)
    assert (least.generator.w_dim, least.generator.channel_base, least.discriminator.channel_max) == (8, 4 * 64, 8)
    assert build('x', {**row, 'g_channel_base': None}, data(), width=2).generator.channel_base is None and half.run.width == 0.5


def test_knobs_replace_what_the_row_says_and_belong_to_it():
    pytest.importorskip('inr')  # whose options they are
    row = {**ROW, 'synthesis': {'fmm_rank': 10, 'noise': False}}
    settings = build('x', row, data(), fmm_rank='full', noise=True, mixing=0.25)
    assert settings.generator.synthesis == {'fmm_rank': 'full', 'noise': True} and settings.loss.style_mixing == 0.25
    assert row['synthesis'] == {'fmm_rank': 10, 'noise': False}
    with pytest.raises(UserError, match='--decoder is no option of --cfg=x. Of its kind there are --fmm-rank, --noise'):
        build('x', row, data(), decoder='basic')
    with pytest.raises(UserError, match='--coord-skips is no option of --cfg=x. Of its kind there is none'):
        build('x', ROW, data(), coord_skips=True)


def test_a_preset_sets_any_option_by_its_name_and_the_command_line_comes_first():
    row = {**ROW, 'snap': {16: 7, 1024: 9}, 'channels_last': True, 'lr': 0.01, 'width': 2.0}
    settings = build('x', row, data())
    assert (settings.run.snap, settings.run.channels_last, settings.optimizers.D.lr, settings.run.width) == (7, True, 0.01, 2)
    assert settings.generator.w_dim == 2 * ROW['w_dim']
    assert build('x', row, data(), snap=5).run.snap == 5
    with pytest.raises(UserError, match="'cond' is not known"):  # of the data, which are given
        build('x', {**ROW, 'cond': True}, data())


WITHOUT_A_VALUE = ('subset', 'channels_last', 'res', 'scale_max', 'p', 'target', 'ada_kimg')  # None has a meaning


def test_every_option_has_one_row_and_lands_where_it_says():
    settings = build('x', ROW, data(label_dim=2))
    for name, row in config.OPTIONS.items():
        assert row.help and (row.place == '') == (name == 'lr'), name
        if row.place:
            kept = options.kept(settings, row.place)
            assert (row.as_option(kept) if row.as_option else kept) is not None or name in WITHOUT_A_VALUE, name


def test_decay_in_one_step_is_what_runs():
    settings = build('x', {**ROW, 'ema_kimg': {'decay': 0.999}}, data(), batch=12)
    assert ema_beta(12, settings.ema.kimg, settings.ema.rampup, 0) == pytest.approx(0.999, rel=1e-12)
    assert '(0.999 a step)' in describe(settings)


def test_files_of_earlier_versions_are_read():
    tree = json.loads(to_json(build('x', ROW, data())))
    del tree['run']['width']
    assert from_json(json.dumps(tree)).run.width == 1


def test_constructor_arguments():
    row = {**ROW, 'g_fp16_res': 2, 'd_fp16_res': 3, 'conv_clamp': 256, 'synthesis': {'fmm_rank': 10, 'extra_layers': {128: 1}}}
    settings = build('x', row, data(label_dim=5), device='cuda')
    assert settings.run.precision == 'fp16'
    assert settings.generator_kwargs() == dict(
        z_dim=8, c_dim=5, w_dim=8, img_resolution=64, img_channels=3, mapping_kwargs={'num_layers': 2}, synthesis_kwargs={
            'channel_base': 128, 'channel_max': 8, 'num_fp16_res': 2, 'conv_clamp': 256, 'fmm_rank': 10, 'extra_layers': {'128': 1}})
    assert settings.discriminator_kwargs(1)['num_fp16_res'] == 3 and settings.discriminator_kwargs(1)['conv_clamp'] == 256
    plain = build('x', row, data(), device='cpu')
    assert plain.run.precision == 'fp32' and plain.generator_kwargs()['synthesis_kwargs']['num_fp16_res'] == 0
    assert plain.discriminator_kwargs(1)['conv_clamp'] is None
    assert settings.discriminator_kwargs(1)['block_kwargs'] == {'fp16_channels_last': True}
    planes = build('x', row, data(), device='cuda', channels_last=False)
    assert planes.discriminator_kwargs(1)['block_kwargs'] == {'fp16_channels_last': False}
    assert plain.discriminator_kwargs(1)['block_kwargs'] == {}
    wide = build('x', row, data(), device='cuda', precision='bf16')
    assert wide.discriminator_kwargs(1)['block_kwargs'] == {'half_dtype': 'bfloat16', 'fp16_channels_last': True}
    assert wide.generator_kwargs()['synthesis_kwargs']['half_dtype'] == 'bfloat16'
    for asked, blocks in (('fp16', 0), ('bf16', 4)):  # a row without half precision in G
        half = build('x', {**row, 'g_fp16_res': 0}, data(), device='cuda', precision=asked)
        assert half.generator.half_res == blocks and half.generator.conv_clamp == (256 if blocks else None)


def test_json_returns_the_same():
    settings = build('x', {**ROW, 'g_lr': {'a': 1e-3}, 'synthesis': {'squash': 'demod', 'features': {64: {'log': 3}}}},
                     data(classes=['cat', 'dog'], label_dim=2), subset=None)
    assert from_json(to_json(settings)) == settings


@pytest.mark.parametrize('change, message', [
    (lambda tree: tree['run'].update(batchh=3), "run: 'batchh' is not known. Did you mean 'batch'?"),
    (lambda tree: tree['run'].pop('seed'), "run: 'seed' is missing"),
    (lambda tree: tree['run'].update(batch='many'), "batch is 'many'; int is needed"),
    (lambda tree: tree.update(loss=3), 'an object with gamma, r1_interval'),
    (lambda tree: tree['loss'].update(gamma=-1), '--gamma=-1'),
])
def test_a_changed_file_is_told(change, message):
    tree = json.loads(to_json(build('x', ROW, data())))
    change(tree)
    with pytest.raises(UserError) as caught:
        from_json(json.dumps(tree))
    assert message in str(caught.value)


def test_misspelt_and_missing_keys_of_a_row():
    row = dict(ROW)
    row['gama'] = row.pop('gamma')
    with pytest.raises(UserError, match="preset 'x': 'gama' is not known. Did you mean 'gamma'?"):
        build('x', row, data())
    row.pop('gama')
    with pytest.raises(UserError, match="preset 'x': 'gamma' is missing"):
        build('x', row, data())
    with pytest.raises(UserError, match="'workerz' is not known. Did you mean 'workers'?"):
        build('x', ROW, data(), workerz=2)
    with pytest.raises(UserError, match='is not JSON'):
        from_json('{')


@pytest.mark.parametrize('changed, message', [
    ({'kimg': 0}, '--kimg=0'), ({'batch': 0}, '--batch=0'), ({'batch_gpu': 0}, '--batch-gpu=0'), ({'seed': -1}, '--seed=-1'),
    ({'tick': 0}, '--tick=0'), ({'snap': 0}, '--snap=0'), ({'workers': -1}, '--workers=-1'), ({'lr': 0.0}, '--lr=0.0: 0.0 is'),
    ({'gamma': -1.0}, '--gamma=-1.0'), ({'precision': 'fp8'}, "--precision=fp8: 'fp8' is not one of 'auto', 'fp32'"),
])
def test_values_out_of_range(changed, message):
    with pytest.raises(UserError) as caught:
        build('x', ROW, data(), **changed)
    assert message in str(caught.value)


@pytest.mark.parametrize('resolution', [8, 48, 2048, -1])
def test_resolutions_that_cannot_be_trained(resolution):
    with pytest.raises(UserError, match=rf'holds {resolution}x{resolution} images; training takes a power of two '):
        build('x', ROW, data(resolution))


def test_only_some_options_may_change_later():
    settings = build('x', ROW, data())
    assert override(settings, kimg=9.5, gamma=None) == dataclasses.replace(settings, run=dataclasses.replace(settings.run, kimg=9.5))
    with pytest.raises(UserError, match="'batch' is not known"):
        override(settings, batch=8)


def test_batch_is_dealt_out_evenly():
    with pytest.raises(UserError, match='--batch=4 cannot be split over 3 processes: give a multiple of 3'):
        validation.check_processes(build('x', ROW, data()), 3)
    validation.check_processes(build('x', ROW, data()), 2)


def test_augmentation_is_chosen_by_options_and_presets():
    assert build('x', ROW, data()).augment == config.AugmentConfig('noaug', 'bgc', None, None, None)
    chosen = build('x', ROW, data(), aug='ada', p=0.1, target=0.5, augpipe='bgcf', ada_kimg=50.0)
    assert chosen.augment == config.AugmentConfig('ada', 'bgcf', 0.1, 0.5, 50.0) and from_json(to_json(chosen)) == chosen
    row = {**ROW, 'aug': 'ada', 'target': 0.7}
    assert build('x', row, data(), augpipe='bg').augment == config.AugmentConfig('ada', 'bg', None, 0.7, None)
    assert build('x', row, data(), aug='noaug').augment.kind == 'noaug'
    later = override(build('x', ROW, data()), aug='fixed', p=0.25)
    assert (later.augment.kind, later.augment.p) == ('fixed', 0.25)


@pytest.mark.parametrize('name', ['weight', 'gamma', 'scale'])
def test_options_about_features_need_features(name):
    given = {f'd_features_{name}': 2.0}
    with_features = build('x', ROW, data(), d_features='efficientnet-lite1')
    assert getattr(override(with_features, **given).loss, f'features_{name}') == 2
    assert build('x', {**ROW, **given}, data(), d_features='none').discriminator.features == 'none'  # a preset's is not in the way
    for attempt in (lambda: build('x', ROW, data(), **given), lambda: override(build('x', ROW, data()), **given),
                    lambda: build('x', {**ROW, 'd_features': 'efficientnet-lite1'}, data(), d_features='none', **given)):
        with pytest.raises(UserError, match=f'--d-features-{name} has no effect without --d-features'):
            attempt()


def test_the_rate_of_the_mapping_network():
    slow, fast = (build('x', ROW, data(16), **given) for given in ({}, {'mapping_lr': 0.3}))
    assert slow.generator_kwargs()['mapping_kwargs'] == {'num_layers': 2}  # files of older runs have no more
    assert fast.generator_kwargs()['mapping_kwargs'] == {'num_layers': 2, 'lr_multiplier': 0.3}
    weights = [plugins.build_generator(each).mapping.fc1.weight.detach().std() for each in (slow, fast)]
    assert 15 < weights[0] / weights[1] < 60
    with pytest.raises(UserError, match='--mapping-lr=0.3: --cfg=paper has learning rates of its own for the parts of G'):
        build('paper', plugins.presets()['paper'], data(64), mapping_lr=0.3)


@pytest.mark.parametrize('given, message', [
    ({'aug': 'fixed'}, '--aug=fixed needs the chance of each augmentation, --p=0 to 1'),
    ({'p': 0.5}, '--p=0.5 has no effect with --aug=noaug: it is for --aug=ada and --aug=fixed'),
    ({'augpipe': 'bg'}, '--augpipe=bg has no effect with --aug=noaug'),
    ({'aug': 'fixed', 'p': 0.5, 'target': 0.5}, '--target=0.5 has no effect with --aug=fixed: it is for --aug=ada'),
    ({'aug': 'fixed', 'p': 0.5, 'ada_kimg': 9.0}, '--ada-kimg=9.0 has no effect with --aug=fixed'),
    ({'aug': 'ada', 'target': 1.0}, '--target=1.0'), ({'aug': 'ada', 'p': 1.5}, '--p=1.5'), ({'aug': 'Ada'}, '--aug=Ada'),
    ({'freeze_d': 14}, '--freeze-d=14: D has 13 layers above its last block at 64x64'),
    ({'freeze_d': 2, 'grow': '32:1'}, '--freeze-d=2 keeps layers that --grow=32:1 has yet to train: give --grow=none'),
])
def test_augmentation_that_cannot_work_is_refused(given, message):
    with pytest.raises(UserError) as caught:
        build('x', ROW, data(), **given)
    assert message in str(caught.value)
    if 'freeze_d' not in given:
        with pytest.raises(UserError) as caught:
            override(build('x', ROW, data()), **given)
        assert message in str(caught.value)


def test_frozen_layers_are_the_first_of_the_discriminator():
    kwargs = build('x', ROW, data(), freeze_d=4).discriminator_kwargs(1)
    trained = {name.rpartition('.')[0] for name, _ in Discriminator(**kwargs).named_parameters()}
    assert not {'b64.fromrgb', 'b64.conv0', 'b64.conv1', 'b64.skip'} & trained and {'b32.conv0', 'b4.conv', 'b4.out'} < trained
    assert set(Discriminator(**kwargs).state_dict()) == set(Discriminator(**{**kwargs, 'block_kwargs': {}}).state_dict())
    all_blocks = build('x', ROW, data(), freeze_d=13).discriminator_kwargs(1)
    assert {name.split('.')[0] for name, _ in Discriminator(**all_blocks).named_parameters()} == {'b4'}
