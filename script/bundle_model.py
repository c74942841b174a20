"""Makes assets/emoji.safetensors, the model that is drawn from where nothing has been trained: a run's average of G, and its D for
`train.py --init-from`, stored in half precision; Fourier rows, which multiply coordinates of any size, stay in float32. Both compute in
float32, whatever the run did: few CPUs multiply bfloat16.

python script/bundle_model.py training-runs/demo-model     # the newest snapshot below a folder, or a snapshot
"""

import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

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


def bundle(given, dest):
    """The networks of a snapshot, or of the newest one below a folder, as a file that says it learned the demo set."""
    snapshot = run_folder.find_latest_snapshot(given) if given.is_dir() else given
    loaded = checkpoint.load_networks(snapshot, only=('G_ema', 'D'))
    config = run_folder.stored_config(snapshot.parent)
    config = replace(config, data=replace(config.data, path='demo', digest=ImageDataset('demo').digest, res=None),
                     generator=replace(config.generator, half_res=0), discriminator=replace(config.discriminator, half_res=0),
                     run=replace(config.run, precision='fp32'))
    networks = {'G_ema': plugins.build_generator(config), 'D': plugins.build_discriminator(config, world_size=1)}
    for name, network in networks.items():
        network.load_state_dict(loaded[name].state_dict())
    halves = {name: halved(network) for name, network in networks.items()}
    checkpoint.save_networks(dest, halves, config, loaded['meta']['images'])


if __name__ == '__main__':
    bundle(Path(sys.argv[1]), BUNDLED)
    print(f'{BUNDLED}: {BUNDLED.stat().st_size / 1e6:.1f} MB')
