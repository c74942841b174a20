"""A run made by an earlier version (commit 8ca233d, `--cfg=inr-tiny --width=0.02 --batch=4`, 16 images seen) is still of use."""

import shutil

import numpy as np
import pytest
from PIL import Image

import generate
import train
from tests.helpers import ROOT
from tests.tiny_snapshots import call
from training import checkpoint

pytest.importorskip('inr')  # the run is of its generator
RUN = ROOT / 'tests' / 'data' / 'run-of-0.1'


@pytest.fixture
def run(tmp_path):
    """A copy of the run folder, and the images that it was trained on."""
    random = np.random.RandomState(0)
    (tmp_path / 'images').mkdir()
    for i in range(8):
        Image.fromarray(random.randint(0, 256, [16, 16, 3], np.uint8)).save(tmp_path / 'images' / f'{i:02d}.png')
    return shutil.copytree(RUN, tmp_path / 'run')


def test_it_is_drawn_as_then(run, tmp_path):
    assert call(generate.main, f'--network={run}', '--seeds=3', '--res=40', f'--outdir={tmp_path}', '--device=cpu')[0] == 0
    now, then = (np.asarray(Image.open(path / 'seed0003.png')).astype(int) for path in (tmp_path, RUN))
    assert np.abs(now - then).max() <= 1 and then.std() > 10


def test_it_goes_on(run, tmp_path):
    code, out, _err = call(train.main, f'--resume={run}', f'--data={tmp_path / "images"}', '--kimg=0.024')
    assert code == 0, out
    G, before = (checkpoint.load_networks(checkpoint.network_path(run, images))['G_ema'].state_dict() for images in (24, 16))
    moved = [key for key, value in G.items() if not value.equal(before[key])]
    assert len(moved) > 0.8 * len(G)
    assert all(value.isfinite().all() for value in G.values())
