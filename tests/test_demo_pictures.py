"""script/before_after.py: what a run drew first and last, beside what it learned from."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests import helpers


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_pictures_of_a_run_side_by_side(tmp_path):
    run = tmp_path / 'runs' / '00000-a'
    run.mkdir(parents=True)
    (run / 'training_options.json').write_text('{}')
    main = helpers.script('before_after').main
    out = tmp_path / 'out' / 'a.png'

    def call(folder):
        return CliRunner().invoke(main, [str(folder), str(out)], standalone_mode=False)

    assert 'it has drawn no pictures yet' in str(call(run).exception) and 'no run in it' in str(call(tmp_path).exception)
    for name, value in (('fakes_init', 10), ('fakes000009_008', 20), ('fakes000010', 30), ('reals', 40)):
        Image.new('RGB', [1024, 64], (value,) * 3).save(run / f'{name}.png')
    assert call(run).exception is None
    sheet = pixels(out)
    assert sheet.shape == (64, 3 * 384 + 2 * 16, 3) and sheet[0, [0, 383, 384, 400, 783, 800], 0].tolist() == [10, 10, 255, 30, 30, 40]
    (run / 'network-snapshot-000010.safetensors').write_bytes(b'')
    out.unlink()
    assert call(tmp_path / 'runs').exception is None and np.array_equal(pixels(out), sheet)


@pytest.mark.parametrize('width', [64, 300])
def test_small_pictures_are_shown_whole(tmp_path, width):
    (tmp_path / 'training_options.json').write_text('{}')
    for name in ('fakes_init', 'fakes000001', 'reals'):
        Image.new('L', [width, 64]).save(tmp_path / f'{name}.png')
    module = helpers.script('before_after')
    assert CliRunner().invoke(module.main, [str(tmp_path), str(tmp_path / 'a.png')]).exit_code == 0
    assert pixels(tmp_path / 'a.png').shape == (64, 3 * width + 32, 3)
