"""Makes assets/inr-tiny.safetensors, the model that is drawn from where nothing has been trained: the average of a run in half precision.

python script/bundle_model.py training-runs/00000-demo-inr-tiny/network-snapshot-000096.safetensors
"""

import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from inference.opening import BUNDLED  # noqa: E402
from training import checkpoint  # noqa: E402

if __name__ == '__main__':
    snapshot = Path(sys.argv[1])
    loaded = checkpoint.load_networks(snapshot, only=('G_ema',))
    config = checkpoint.stored_config(snapshot.parent)
    config = replace(config, data=replace(config.data, path='demo'))
    checkpoint.save_networks(BUNDLED, {'G_ema': loaded['G_ema'].half()}, config, loaded['meta']['images'])
    print(f'{BUNDLED}: {BUNDLED.stat().st_size / 1e6:.1f} MB')
