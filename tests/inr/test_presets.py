"""The recipes of inr, run: two steps of every preset and rung at a small width; what --dry-run says; options that do not belong."""

import numpy as np
import pytest
import torch

import train
from inr.decoders import DECODERS
from inr.presets import PRESETS
from tests.tiny_snapshots import call, mistake
from tests.training.test_config import data
from tests.training.tiny import make_images
from training import checkpoint, run_folder, starting
from training.config import build
from training.training_loop import Training

RUNS = {name: [f'--cfg={name}'] for name in PRESETS} | {f'paper {name}': ['--cfg=paper', f'--decoder={name}'] for name in DECODERS} | {
    'full rank': ['--cfg=paper', '--fmm-rank=full'], 'rank 1': ['--cfg=inr', '--fmm-rank=1'],
    'every option': ['--cfg=inr', '--noise', '--coord-skips', '--mixing=0.9', '--no-equalized-lr', '--no-pixel-norm', '--squash=tanh'],
    'every option of paper': ['--cfg=paper', '--no-coord-skips', '--mixing=0.9', '--equalized-lr', '--pixel-norm', '--fmm-rank=2'],
}  # fmt: skip


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_images(tmp_path / 'shapes', classes=2)


@pytest.mark.parametrize('name', RUNS)
def test_two_steps(images, name):
    """Both networks and the average move, and nothing but finite gradients was seen."""
    dataset, settings = new_run(images, *RUNS[name], '--width=0.02', '--batch=2', '--cond', '--no-mirror')
    training = Training(settings, dataset)
    before = {network: {key: value.clone() for key, value in module.named_parameters()} for network, module in training.networks.items()}
    for first in (0, 2):
        reals, labels = zip(*(dataset[i] for i in (first, first + 1)), strict=True)
        training.step(torch.from_numpy(np.stack(reals)), torch.from_numpy(np.stack(labels)))
    assert training.images == 4 and training.skipped == {'G': 0, 'D': 0}
    for network, module in training.networks.items():
        moved = [key for key, value in module.named_parameters() if not value.equal(before[network][key])]
        assert len(moved) > 0.9 * len(before[network]), network


def test_groups_of_parameters_have_their_rates(images):
    dataset, settings = new_run(images, '--cfg=paper', '--width=0.02')
    rates = [group['lr'] for group in Training(settings, dataset).optimizers['G'].param_groups]
    assert rates == [1e-5, 5e-4] and settings.optimizers.D.lr == 0.003


@pytest.mark.parametrize('name', ['inr', 'inr-bil', 'cips', 'inr-baseline'])
def test_the_authors_recipe_on_four_gpus(name):
    """Their configuration leaves batch, rates and average to the rules of the trainer they build on."""
    for resolution, batch, lr in ((128, 64, 0.0025), (256, 64, 0.0025), (512, 32, 0.0025), (1024, 16, 0.002)):
        settings = build(name, PRESETS[name], data(resolution), device='cuda')
        assert (settings.run.batch, settings.ema.kimg, settings.ema.rampup) == (batch, batch * 10 / 32, 0.05)
        assert settings.optimizers.G.lr == settings.optimizers.D.lr == lr and settings.loss.gamma == 10
        assert settings.generator.half_res == 0 and settings.discriminator.half_res == 4 and PRESETS[name]['mirror']
        assert settings.generator.channel_base == settings.discriminator.channel_base == 32768 and settings.generator.mapping_layers == 2
        of_stylegan2 = (2, 0.9) if name == 'inr-baseline' else (0, 0)
        assert (settings.loss.pl_weight, settings.loss.style_mixing) == of_stylegan2
    assert build(name, PRESETS[name], data(256), batch=32).ema.kimg == 10


def new_run(images, *args):
    """(data set, configuration) of a command line."""
    options = train.main.make_context('train.py', [*args, f'--data={images}']).params
    return starting.new_run(options['data'], None, train.Call.parsed(options).given, 'cpu')


def test_a_run_of_generator_a_resumes_bit_for_bit(images):
    args = ['--cfg=paper', '--width=0.02', f'--data={images}', '--batch=4', '--device=cpu', '--cond']
    assert call(train.main, *args, '--kimg=0.012', '--outdir=whole')[0] == 0
    assert call(train.main, *args, '--kimg=0.004', '--outdir=halves')[0] == 0
    assert call(train.main, '--resume=latest', '--kimg=0.012', '--outdir=halves')[0] == 0
    whole, halves = (checkpoint.load_networks(run_folder.find_latest_snapshot(outdir)) for outdir in ('whole', 'halves'))
    for network in ('G', 'D', 'G_ema'):
        pairs = zip(whole[network].state_dict().values(), halves[network].state_dict().values(), strict=True)
        assert all(a.equal(b) for a, b in pairs)


def test_paper_is_the_recipe_of_the_appendix(images):
    code, out, _ = call(train.main, '--cfg=paper', f'--data={images}', '--dry-run', '--width=0.05')
    for line in ('inr.hypernetwork.Generator, z 512, w 51, 3 mapping layers, channels 26 at most, all widths times 0.05',
                 'decoder=multiscale, fmm_rank=10, coord_skips=True, equalized_lr=False, pixel_norm=False',
                 'lr trunk 1e-05, inr 0.0005, betas 0 0.98, eps 1e-08', 'Adam, lr 0.003, betas 0 0.98, eps 1e-08',
                 'R1 gamma 10 in every step; path length off; style mixing 0', '(0.999 a step)'):
        assert line in out
    code, out, _ = call(train.main, '--cfg=paper', f'--data={images}', '--dry-run')
    assert code == 0 and 'channels min(16384 / res, 512)' in out and ' GMAC, D ' in out


def test_what_does_not_fit_is_told_with_its_number_before_it_is_built(images):
    code, out, err = call(train.main, '--cfg=paper', '--decoder=hyper', f'--data={images}', '--dry-run', '--width=10')
    assert code == 2 and 'parameters:  G 1' in out and 'memory:      does not fit' in out
    assert 'the weights alone take ' in err and ' TiB, a step about ' in err and '--width' in err and err.count('\n') == 1
    assert ' TiB, a step about ' in mistake(train.main, '--cfg=paper', '--decoder=hyper', f'--data={images}', '--width=10', '--device=cpu')
    line = mistake(train.main, '--cfg=paper', '--decoder=hyper', f'--data={images}', '--width=16', '--device=cpu', '--batch-gpu=1')
    assert line.startswith('Error: the weights alone take ')
    assert not (images.parent / 'training-runs').exists()


@pytest.mark.parametrize('args, expected', [
    (['--cfg=paper', '--decoder=multi'], "'multi' is not known. Did you mean 'multiscale'?"),
    (['--cfg=inr', '--decoder=fmm'], '--decoder is no option of --cfg=inr. Of its kind there are --fmm-rank, --squash, --noise,'),
    (['--cfg=stylegan2', '--fmm-rank=3'], '--fmm-rank is no option of --cfg=stylegan2. Of its kind there is none'),
    (['--cfg=paper', '--fmm-rank=0'], "'0' is not a rank: write a whole number from 1 on, or full"),
    (['--cfg=paper', '--fmm-rank=half'], "'half' is not a rank"),
    (['--cfg=paper', '--fmm-rank=9999'], '--cfg=paper: FMM rank 9999 is above the 1024 inputs of the widest layer'),
    (['--cfg=inr', '--fmm-rank=9999'], 'FMM rank 9999 is above the '),
    (['--cfg=paper', '--decoder=basic', '--fmm-rank=3'], '--fmm-rank has no effect with --cfg=paper: --decoder=basic has no FMM,'),
    (['--cfg=cips', '--squash=tanh'], '--squash has no effect with --cfg=cips: it has no FMM, --fmm-rank=N gives it one'),
    (['--cfg=paper', '--width=0'], "'--width': 0.0 is not in the range"),
    (['--cfg=inr', '--mixing=2'], "'--mixing': 2.0 is not in the range"),
    (['--cfg=inr', '--squash=cube'], "'cube' is not known. Known: demod, tanh, sigmoid"),
])
def test_mistakes_get_one_line(images, args, expected):
    assert expected in mistake(train.main, *args, f'--data={images}', '--dry-run')


def test_options_that_shape_a_run_cannot_change(images):
    code, _, err = call(train.main, '--cfg=paper', '--width=0.02', f'--data={images}', '--batch=2', '--kimg=0.002', '--device=cpu')
    assert code == 0, err
    for option, stored in (('--decoder=fmm', 'multiscale'), ('--fmm-rank=3', '10'), ('--width=1.0', '0.02'), ('--pixel-norm', 'False'),
                           ('--mixing=0.5', '0'), ('--no-coord-skips', 'True')):
        line = mistake(train.main, '--resume=latest', option)
        assert f'{option} cannot change when a run is resumed' in line and line.split(' has ')[1].startswith(stored + ':')
