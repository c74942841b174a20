"""Makes assets/emoji.safetensors, the model that is drawn from where nothing has been trained: a run's average of G, and its D for
`train.py --init-from`, stored in half precision; Fourier rows, which multiply coordinates of any size, stay in float32. Both compute in
float32, whatever the run did: few CPUs multiply bfloat16.

python script/bundle_model.py training-runs/demo-model     # the newest snapshot below a folder, or a snapshot
python script/bundle_model.py EARLIER.safetensors LAST.safetensors     # G is the mean of the weights of several, D the last one's
"""

import sys
from dataclasses import replace
from pathlib import Path

import click
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dnnlib import cli  # noqa: E402
from dnnlib.util import UserError  # noqa: E402
from inference.opening import BUNDLED  # noqa: E402
from training import checkpoint, plugins, run_folder  # noqa: E402
from training.dataset import ImageDataset  # noqa: E402


def halved(network):
    """A network in half precision but for its Fourier rows."""
    rows = {name: buffer.clone() for name, buffer in network.named_buffers() if name.endswith('_basis')}
    network.half()
    for name, buffer in rows.items():
        network.get_buffer(name).data = buffer
    return network


def are_of_one_run(weights, others):
    """Whether two state dicts may be averaged: tensors of the same names and sizes, on the same Fourier rows."""
    return weights.keys() == others.keys() and all(
        torch.equal(value, others[key]) if key.endswith('_basis') else value.shape == others[key].shape
        for key, value in weights.items())


def mean_weights(networks):
    """The mean of the weights of several networks of one run, by key; None for those of several runs."""
    weights = [network.state_dict() for network in networks]
    if not all(are_of_one_run(weights[-1], others) for others in weights[:-1]):
        return None
    return {key: torch.stack([each[key].double() for each in weights]).mean(0).to(value.dtype) if value.is_floating_point() else value
            for key, value in weights[-1].items()}


def bundle(given, dest):
    """Writes networks as a file that says it learned the demo set: those of a snapshot, or G as the mean of several and the last one's D.

    given: [path] of snapshots, or of folders, which stand for the newest snapshot below them;  dest: path of the file
    Raises UserError where there is no snapshot, and for snapshots of several runs.
    """
    snapshots = [run_folder.find_latest_snapshot(path) if path.is_dir() else path for path in given]
    if None in snapshots:
        raise UserError(f'{given[snapshots.index(None)]}: no snapshot below it')
    snapshot = snapshots[-1]
    loaded = checkpoint.load_networks(snapshot, only=('G_ema', 'D'))
    earlier = [checkpoint.load_networks(other, only=['G_ema'])['G_ema'] for other in snapshots[:-1]]
    mean = mean_weights([*earlier, loaded['G_ema']])
    if mean is None:
        raise UserError(f'not of one run, their generators differ: {", ".join(map(str, snapshots))}')
    config = run_folder.stored_config(snapshot.parent)
    config = replace(config, data=replace(config.data, path='demo', digest=ImageDataset('demo').digest, res=None),
                     generator=replace(config.generator, half_res=0), discriminator=replace(config.discriminator, half_res=0),
                     run=replace(config.run, precision='fp32'))
    networks = {'G_ema': plugins.build_generator(config), 'D': plugins.build_discriminator(config, world_size=1)}
    networks['G_ema'].load_state_dict(mean)
    networks['D'].load_state_dict(loaded['D'].state_dict())
    halves = {name: halved(network) for name, network in networks.items()}
    checkpoint.save_networks(dest, halves, config, loaded['meta']['images'])


@click.command()
@click.argument('given', nargs=-1, required=True, metavar='SNAPSHOT|FOLDER...', type=click.Path(exists=True, path_type=Path))
def main(given):
    """Makes assets/emoji.safetensors of a snapshot, of the newest one below a folder, or of the mean of several of one run."""
    bundle(given, BUNDLED)
    print(f'{BUNDLED}: {BUNDLED.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    cli.run(main)
