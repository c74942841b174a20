"""Tiny generators and snapshots of them, and the commands run inside the test's own process."""

import contextlib
import io

import pytest
import torch

from dnnlib import cli
from training import checkpoint, config
from training.networks import Generator
from training.presets import PRESETS


def stylegan2(resolution=16, channels=3, c_dim=0, noise_strength=0.0, img_size=None):
    """A StyleGAN2 generator of a few thousand numbers."""
    G = Generator(z_dim=8, c_dim=c_dim, w_dim=8, img_resolution=resolution, img_channels=channels, mapping_kwargs={'num_layers': 2},
                  synthesis_kwargs={'channel_base': 16 * resolution, 'channel_max': 16}, img_size=img_size)
    for name, parameter in G.named_parameters():
        if name.endswith('noise_strength'):
            parameter.data.fill_(noise_strength)
    return G


def inr(resolution=16, channels=3, c_dim=0, img_size=None, **synthesis):
    """A generator of inr of a few thousand numbers; skips the test where there is no inr."""
    module = pytest.importorskip('inr.generator')
    synthesis = {'channel_base': 16 * resolution, 'channel_max': 16, **synthesis}
    return module.Generator(z_dim=8, c_dim=c_dim, w_dim=8, img_resolution=resolution, img_channels=channels,
                            mapping_kwargs={'num_layers': 2}, synthesis_kwargs=synthesis, img_size=img_size)


def save(path, G, data='none.zip', classes=None, class_sizes=None):
    """Writes a snapshot that holds G as its averaged generator, trained on the data set at `data`; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = config.DataConfig(path=str(data), digest='0' * 8, resolution=G.img_resolution, channels=G.img_channels, images=1,
                             label_dim=G.c_dim, classes=classes, class_sizes=class_sizes, mirror=False, subset=None,
                             size=None if len(set(G.img_size)) == 1 else list(G.img_size))
    run = config.build('stylegan2-tiny', PRESETS['stylegan2-tiny'], data)
    checkpoint.save_networks(path, {'G_ema': G}, run, images=0)
    return path


def call(command, *args):
    """Runs a click command as a user would: (exit code, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        cli.run(command, [str(arg) for arg in args])
    torch.manual_seed(0)
    return end.value.code, out.getvalue(), err.getvalue()


def mistake(command, *args):
    """The one line a mistake is answered with; fails unless that is all there is on stderr and the exit code is 2."""
    code, _out, err = call(command, *args)
    assert code == 2, err
    assert err.count('\n') == 1 and err.startswith('Error: '), err
    return err
