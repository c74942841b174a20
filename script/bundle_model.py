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


def mean_weights(snapshots):
    """The mean of the averages of G of several snapshots of one run, by key. Raises UserError for those of several runs."""
    weights = [checkpoint.load_networks(snapshot, only=['G_ema'])['G_ema'].state_dict() for snapshot in snapshots]
    first = weights[0]
    fixed = [key for key in first if key.endswith('_basis')]  # Fourier rows, drawn once for a run
    if any({key: value.shape for key, value in of.items()} != {key: value.shape for key, value in first.items()}
           or not all(torch.equal(of[key], first[key]) for key in fixed) for of in weights):
        raise UserError(f'not of one run, their generators differ: {", ".join(map(str, snapshots))}')
    return {key: torch.stack([of[key].double() for of in weights]).mean(0).to(value.dtype) if value.is_floating_point() else value
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
    loaded['G_ema'].load_state_dict(mean_weights(snapshots))
    config = run_folder.stored_config(snapshot.parent)
    config = replace(config, data=replace(config.data, path='demo', digest=ImageDataset('demo').digest, res=None),
                     generator=replace(config.generator, half_res=0), discriminator=replace(config.discriminator, half_res=0),
                     run=replace(config.run, precision='fp32'))
    networks = {'G_ema': plugins.build_generator(config), 'D': plugins.build_discriminator(config, world_size=1)}
    for name, network in networks.items():
        network.load_state_dict(loaded[name].state_dict())
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
