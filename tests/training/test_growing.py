import dataclasses

import pytest
import torch

from dnnlib.util import UserError
from training import growing, run_folder
from training.growing import Stage
from training.loss import GanLoss
from training.networks import Discriminator, Generator
from training.options import GrowConfig
from training.training_loop import Training, train

from .runs import assert_same_snapshot
from .tiny import make_images, tiny_run

INR = {'input_features': {'random': 4, 'raw': True}, 'features': {'random': 4, 'raw': True}, 'upsampling': 'linear'}


def inr(**synthesis):
    Generator = pytest.importorskip('inr.generator').Generator
    return Generator(4, 0, 4, 32, 3, {}, dict(channel_base=128, channel_max=8, **INR, **synthesis))


@pytest.mark.parametrize('images, expected', [
    (0, Stage(8)), (1999, Stage(8)), (2000, Stage(16, 0.0)), (3000, Stage(16, 0.5)), (4000, Stage(16)), (4999, Stage(16)),
    (5000, Stage(32, 0.0)), (6500, Stage(32, 0.75)), (7000, Stage(32)), (10 ** 9, Stage(32)),
])
def test_stages_follow_the_images_seen(images, expected):
    assert growing.stage_at('8:2,16:3', 2, 32, images) == expected


@pytest.mark.parametrize('begin, end, expected', [
    (0, 9000, {8: 2000, 16: 3000, 32: 4000}), (3000, 6000, {8: 0, 16: 2000, 32: 1000}), (0, 1000, {8: 1000, 16: 0, 32: 0})])
def test_images_of_a_run_by_their_size(begin, end, expected):
    assert growing.images_by_size('8:2,16:3', 32, begin, end) == expected
    assert growing.images_by_size('', 32, begin, end) == {32: end - begin}


def test_without_a_fade_sizes_come_at_once():
    assert growing.stage_at('8:2', 0, 32, 2000) == Stage(32)


def test_a_size_of_no_images_still_fades_into_the_next():
    assert growing.stage_at('16:0', 2, 32, 0) == Stage(32, 0.0)
    assert growing.stage_at('16:0', 2, 32, 500) == Stage(32, 0.25)


@pytest.mark.parametrize('text, says', [
    ('32', 'is not SIZE:KIMG'), ('32:x', 'is not SIZE:KIMG'), ('24:1', 'power of two'), ('4:1', 'power of two'), ('32:1,16:1', 'rise'),
    ('32:1,32:1', 'rise'), ('16:-1', '0 or more'), ('16:nan', '0 or more'), ('16:inf', '0 or more'), (':', 'is not SIZE:KIMG'),
])
def test_what_is_no_schedule_is_refused_in_words(text, says):
    with pytest.raises(ValueError, match=says):
        growing.checked(text)


def test_a_schedule_is_kept_in_one_form():
    assert growing.checked('16:20.0,32:0.5') == '16:20,32:0.5'
    assert growing.checked('none') == growing.checked('') == ''


@pytest.mark.parametrize('known, full, left', [
    (64, 128, '64:0'), (32, 128, '32:0,64:75'), (128, 128, ''), (256, 128, ''), (8, 128, '16:30,32:75,64:75')])
def test_what_a_network_draws_already_is_not_grown_again(known, full, left):
    assert growing.from_size('16:30,32:75,64:75', known, full) == left
    assert growing.from_size('', known, full) == ''


def test_reals_are_averaged_down_and_blended():
    x = torch.arange(2 * 64.0).reshape(2, 1, 8, 8)
    small = growing.fit(x, Stage(4), 8)
    assert small[1, 0, 2, 3] == x[1, 0, 4:6, 6:8].mean()
    assert growing.fit(x, Stage(2), 8)[1, 0, 1, 0] == x[1, 0, 4:, :4].mean()
    assert torch.equal(growing.fit(x, Stage(8), 8), x)
    half = growing.fit(x, Stage(8, 0.25), 8)
    assert half[0, 0, 5, 2].item() == pytest.approx(0.25 * x[0, 0, 5, 2].item() + 0.75 * x[0, 0, 4:6, 2:4].mean().item())


@pytest.mark.parametrize('make', [
    lambda: Generator(4, 0, 4, 32, 3, {}, dict(channel_base=128, channel_max=8)),
    lambda: inr(input_resolution=8),
    lambda: inr(input_resolution=16),
], ids=['stylegan2', 'inr from 8', 'inr from 16'])
def test_a_smaller_image_is_what_the_blocks_of_its_size_draw(make):
    torch.manual_seed(0)
    G = make().eval()
    growing.begin_at_zero(G.synthesis, '16:1', 32)
    zero = {name for name, value in G.synthesis.named_parameters() if 'torgb.weight' in name and not value.any()}
    assert zero == {'b32.torgb.weight'}
    ws = torch.randn(2, G.num_ws, 4)
    small = G.synthesis(ws, noise_mode='const', resolution=16)
    assert small.shape == (2, 3, 16, 16)
    whole = G.synthesis(ws, noise_mode='const')
    # before the new block has learned anything the full size is the small picture enlarged: averaged down it is nearly the same
    assert torch.nn.functional.avg_pool2d(whole, 2).sub(small)[:, :, 2:-2, 2:-2].abs().mean() < 0.3 * small.std()
    assert torch.equal(G.synthesis(ws, noise_mode='const', resolution=32), whole)
    with pytest.raises(ValueError, match='resolution=24'):
        G.synthesis(ws, resolution=24)


def test_below_its_first_grid_an_inr_is_the_same_function_at_fewer_points():
    torch.manual_seed(0)
    G = inr().eval()
    ws = torch.randn(2, G.num_ws, 4)
    whole, small = G.synthesis(ws), G.synthesis(ws, resolution=16)
    torch.testing.assert_close(small, whole[:, :, 1::2, ::2], rtol=1e-4, atol=1e-5)  # cells are sampled at their lower left corners
    with pytest.raises(ValueError, match='resolution=2: this network draws 32 and less'):
        G.synthesis(ws, resolution=2)


def test_d_fades_from_its_smaller_self_to_its_larger_one():
    torch.manual_seed(0)
    D = Discriminator(0, 32, 3, channel_base=128, channel_max=8, entries=[16])
    plain = Discriminator(0, 32, 3, channel_base=128, channel_max=8)
    plain.load_state_dict(D.state_dict(), strict=False)
    x = torch.randn(4, 3, 32, 32)
    small = torch.nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(D(x, None, fade=0.0), D(small, None))
    assert torch.equal(D(x, None), plain(x, None))
    assert not torch.allclose(D(x, None, fade=0.5), D(x, None))
    with pytest.raises(ValueError, match='given'):
        plain(small, None)
    with pytest.raises(ValueError, match='given'):
        D(torch.randn(4, 3, 8, 8), None)
    half = Discriminator(0, 32, 3, channel_base=128, channel_max=8, entries=[16], num_fp16_res=2, block_kwargs=dict(half_dtype='bfloat16'))
    half.load_state_dict(D.state_dict())
    torch.testing.assert_close(half(x, None, force_fp32=True, fade=0.5), D(x, None, fade=0.5))
    torch.testing.assert_close(half(x, None, fade=0.5), D(x, None, fade=0.5), rtol=0.1, atol=0.05)
    with pytest.raises(UserError, match='entries'):
        Discriminator(0, 32, 3, channel_base=128, channel_max=8, entries=[32])


def test_r1_weighs_small_images_by_their_pixels(tmp_path):
    dataset, settings = tiny_run(make_images(tmp_path / 'images', resolution=32), grow='16:1')
    training = Training(settings, dataset)
    loss = GanLoss(training.G, training.D, settings.loss, training.stats)
    assert loss._gamma() == settings.loss.gamma
    loss.stage = Stage(16)
    assert loss._gamma() == settings.loss.gamma / 4


@pytest.mark.parametrize('stop_at', [0.012, 0.02], ids=['in the smallest size', 'in a fade-in'])
def test_a_run_that_grows_resumes_bit_for_bit(tmp_path, stop_at):
    images = make_images(tmp_path / 'images', resolution=32)
    given = dict(tick=0.004, snap=100, grow='8:0.008,16:0.008', fade=0.008, aug='ada', p=0.5, ada_kimg=0.1)
    dataset, whole = tiny_run(images, kimg=0.04, **given)
    _, part = tiny_run(images, kimg=stop_at, **given)
    for name in ('whole', 'parts'):
        (tmp_path / name).mkdir()
    train(whole, dataset, tmp_path / 'whole')
    train(part, dataset, tmp_path / 'parts')
    train(whole, dataset, tmp_path / 'parts', resume=run_folder.find_resumable(tmp_path / 'parts'))
    assert_same_snapshot(tmp_path / 'parts', tmp_path / 'whole', 40)
    assert 'growing:     8:0.008,16:0.008 (size:kimg), then 32 pixels' in (tmp_path / 'whole' / 'log.txt').read_text()


def test_every_stage_trains_the_blocks_of_its_size_alone(tmp_path):
    dataset, settings = tiny_run(make_images(tmp_path / 'images', resolution=32), grow='16:0.004', fade=0.004)
    training = Training(settings, dataset)
    reals = torch.stack([torch.from_numpy(dataset[i][0]) for i in range(4)])
    before = {name: value.clone() for name, value in training.G.synthesis.named_parameters()}
    training.step(reals, torch.zeros(4, 0))
    moved = {name.split('.')[0] for name, value in training.G.synthesis.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {'b4', 'b8', 'b16'}
    for _ in range(2):
        training.step(reals, torch.zeros(4, 0))
    moved = {name for name, value in training.G.synthesis.named_parameters() if not torch.equal(value, before[name])}
    assert {'b32.torgb.weight', 'b32.conv1.weight'} <= moved


def test_a_size_that_is_blended_in_needs_the_one_below(tmp_path):
    images = make_images(tmp_path / 'images', resolution=32)
    with pytest.raises(UserError, match='--grow=8:1: 32 pixels are blended in from 16, which is missing'):
        tiny_run(images, grow='8:1')
    assert tiny_run(images, grow='8:1', fade=0)[1].grow.sizes == '8:1'
    assert growing.missing_size('8:1,32:1', 64) == 16 and growing.missing_size('8:1,16:1', 32) is None
    assert growing.missing_size('8:1', 64) == 32


def test_sizes_above_the_data_and_generators_that_cannot_grow_are_refused(tmp_path):
    images = make_images(tmp_path / 'images', resolution=16)
    with pytest.raises(UserError, match='below the 16 pixels'):
        tiny_run(images, grow='16:1')
    pytest.importorskip('inr')
    row = dict(G='inr.hypernetwork.Generator', synthesis=dict(decoder='multiscale'), g_channel_base=None)
    dataset, settings = tiny_run(images, row=row)
    with pytest.raises(UserError, match='no to-RGB layer'):
        Training(dataclasses.replace(settings, grow=GrowConfig('8:1')), dataset)
