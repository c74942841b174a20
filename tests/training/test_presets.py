"""The baseline's rows."""

import pytest

from tests.training.test_config import data
from training.config import build
from training.presets import PRESETS


@pytest.mark.parametrize('name', PRESETS)
@pytest.mark.parametrize('resolution', [16, 64, 256, 1024])
def test_rows_hold_at_every_resolution(name, resolution):
    assert build(name, PRESETS[name], data(resolution)).data.resolution == resolution


def test_stylegan2_is_the_public_recipe_of_that_name():
    for resolution in (64, 256, 1024):
        settings = build('stylegan2', PRESETS['stylegan2'], data(resolution), device='cuda')
        assert (settings.run.batch, settings.discriminator.mbstd_group, settings.data.mirror) == (32, 4, False)
        assert (settings.loss.gamma, settings.loss.pl_weight, settings.loss.style_mixing) == (10, 2, 0.9)
        assert settings.generator.channel_base == settings.discriminator.channel_base == 32768 and settings.generator.mapping_layers == 8
        assert settings.optimizer('G').lr == pytest.approx(0.002 * 4 / 5) and settings.optimizer('D').lr == pytest.approx(0.002 * 16 / 17)
        assert settings.optimizer('G').betas == pytest.approx((0, 0.99 ** 0.8))
        assert settings.generator.half_res == settings.discriminator.half_res == 4 and settings.discriminator.conv_clamp == 256
        assert settings.ema.kimg == 10 and settings.ema.rampup is None and settings.run.kimg == 25000


def test_tiny_row_has_no_path_length_and_keeps_its_rate():
    settings = build('stylegan2-tiny', PRESETS['stylegan2-tiny'], data(64))
    assert settings.optimizer('G').lr == 0.004 and settings.loss.pl_weight == 0
    assert settings.optimizer('D').lr == pytest.approx(0.004 * 16 / 17)


def test_tiny_rows_can_be_compared():
    rows = pytest.importorskip('inr.presets').PRESETS
    of_the_generator = {'summary', 'source', 'cost', 'G', 'synthesis'}
    baseline, inr = PRESETS['stylegan2-tiny'], rows['inr-tiny']
    assert {key for key in baseline if baseline[key] != inr[key]} == of_the_generator
