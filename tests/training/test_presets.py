"""The baseline's rows."""

import pytest

from tests.training.test_config import data
from training.config import build
from training.presets import PRESETS


@pytest.mark.parametrize('name', PRESETS)
@pytest.mark.parametrize('resolution', [16, 64, 256, 1024])
def test_rows_hold_at_every_resolution(name, resolution):
    assert build(name, PRESETS[name], data(resolution)).data.resolution == resolution


def test_stylegan2_runs_its_own_recipe():
    settings = build('stylegan2', PRESETS['stylegan2'], data(256), device='cuda')
    assert settings.loss.gamma == pytest.approx(0.0002 * 256 ** 2 / 32)
    assert settings.loss.pl_weight == 2 and settings.loss.style_mixing == 0.9
    assert settings.optimizer('G').lr == pytest.approx(0.0025 * 4 / 5) and settings.optimizer('D').lr == pytest.approx(0.0025 * 16 / 17)
    assert settings.optimizer('G').betas == pytest.approx((0, 0.99 ** 0.8))
    assert settings.generator.channel_base == 16384 and settings.generator.mapping_layers == 8
    assert settings.generator.half_res == settings.discriminator.half_res == 4 and settings.discriminator.conv_clamp == 256
    assert settings.ema.kimg == 10 and settings.ema.rampup == 0.05
    large = build('stylegan2', PRESETS['stylegan2'], data(1024))
    assert large.generator.channel_base == large.discriminator.channel_base == 32768 and large.optimizers.G.lr == 0.002


def test_tiny_row_has_no_path_length_and_keeps_its_rate():
    settings = build('stylegan2-tiny', PRESETS['stylegan2-tiny'], data(64))
    assert settings.optimizer('G').lr == 0.004 and settings.loss.pl_weight == 0
    assert settings.optimizer('D').lr == pytest.approx(0.004 * 16 / 17)


def test_tiny_rows_can_be_compared():
    rows = pytest.importorskip('inr.presets').PRESETS
    of_the_generator = {'summary', 'source', 'cost', 'G', 'synthesis'}
    baseline, inr = PRESETS['stylegan2-tiny'], rows['inr-tiny']
    assert {key for key in baseline if baseline[key] != inr[key]} == of_the_generator
