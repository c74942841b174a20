"""script/before_after.py: what a run drew first and last, beside what it learned from."""

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests import helpers
from tests.training.tiny import make_set, tiny_run
from training.config_json import to_json


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def run_on(folder, size=16, sides=None):
    """A run folder of images of `size` pixels, or as it were of [width, height]."""
    folder.mkdir(parents=True, exist_ok=True)
    make_set(folder / 'set.zip', size=size)
    settings = tiny_run(folder / 'set.zip')[1]
    settings = replace(settings, data=replace(settings.data, size=sides))
    (folder / 'training_options.json').write_text(to_json(settings))
    return folder


def test_pictures_of_a_run_side_by_side(tmp_path):
    run = run_on(tmp_path / 'runs' / '00000-a')
    main = helpers.script('before_after').main
    out = tmp_path / 'out' / 'a.png'

    def call(folder):
        return CliRunner().invoke(main, [str(folder), str(out)], standalone_mode=False)

    assert 'it has drawn no pictures yet' in str(call(run).exception) and 'no run in it' in str(call(tmp_path).exception)
    for name, value in (('fakes_init', 10), ('fakes000009_008', 20), ('fakes000010', 30), ('reals', 40)):
        Image.new('RGB', [1024, 64], (value,) * 3).save(run / f'{name}.png')
    assert call(run).exception is None
    sheet = pixels(out)
    assert sheet.shape == (256, 3 * 384 + 2 * 16, 3) and sheet[0, [0, 383, 384, 400, 783, 800], 0].tolist() == [10, 10, 255, 30, 30, 40]
    (run / 'network-snapshot-000010.safetensors').write_bytes(b'')
    out.unlink()
    assert call(tmp_path / 'runs').exception is None and np.array_equal(pixels(out), sheet)


@pytest.mark.parametrize('size, width', [(64, 64), (64, 300), (512, 1024), (256, 800)])
def test_whole_pictures_are_shown(tmp_path, size, width):
    run_on(tmp_path, size)
    for name in ('fakes_init', 'fakes000001', 'reals'):
        Image.new('L', [width, 64]).save(tmp_path / f'{name}.png')
    module = helpers.script('before_after')
    assert CliRunner().invoke(module.main, [str(tmp_path), str(tmp_path / 'a.png')]).exit_code == 0
    assert pixels(tmp_path / 'a.png').shape == (64, 3 * {64: 64, 300: 300, 1024: 512, 800: 256}[width] + 32, 3)


def test_small_pictures_are_enlarged(tmp_path):
    run_on(tmp_path, size=32)
    corner = np.zeros((64, 256), np.uint8)
    corner[:32, :32] = 255
    for name in ('fakes_init', 'fakes000001', 'reals'):
        Image.fromarray(corner).save(tmp_path / f'{name}.png')
    assert CliRunner().invoke(helpers.script('before_after').main, [str(tmp_path), str(tmp_path / 'a.png')]).exit_code == 0
    sheet = pixels(tmp_path / 'a.png')
    assert sheet.shape == (128, 3 * 384 + 32, 3)
    assert (sheet[:64, :64] == 255).all() and not sheet[64:, 64:384].any() and (sheet[:64, 400:464] == 255).all()


def test_columns_are_as_wide_as_pictures(tmp_path):
    run_on(tmp_path, size=64, sides=[112, 128])
    for name in ('fakes_init', 'fakes000001', 'reals'):
        Image.new('RGB', [1000, 128]).save(tmp_path / f'{name}.png')
    assert CliRunner().invoke(helpers.script('before_after').main, [str(tmp_path), str(tmp_path / 'a.png')]).exit_code == 0
    assert pixels(tmp_path / 'a.png').shape == (128, 3 * 336 + 32, 3)
