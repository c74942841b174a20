"""Opening a trained generator: which network, on which device, in which precision."""

import copy
from pathlib import Path

from dnnlib.util import UserError
from training.checkpoint import load_networks, snapshots
from training.run_folder import find_latest_snapshot

RUNS = 'training-runs'
BUNDLED = Path(__file__).resolve().parents[1] / 'assets' / 'emoji.safetensors'
HOW_TO_TRAIN = 'python train.py --cfg=inr-small --data=demo'
HALF = {'fp16': 'float16', 'bf16': 'bfloat16'}
HALF_BLOCKS = 4  # of the highest resolutions, as StyleGAN2 does


def open_network(given, device):
    """The averaged generator of a snapshot.

    given: path, URL, or a folder of a run or of runs, whose newest snapshot is taken; None: the newest snapshot under training-runs/,
           or the bundled model where there is none
    Returns (G, header of the snapshot, with its 'path'). Prints which one it is. Raises UserError when there is none.
    """
    path, which = given, ''
    if given is None:
        path, which = find_latest_snapshot(RUNS), f', the newest under {RUNS}/'
        if path is None and BUNDLED.is_file():
            path, which = BUNDLED, f', the bundled model, as there is no snapshot under {RUNS}/; to train your own: {HOW_TO_TRAIN}'
    elif Path(given).is_dir():
        path = next(reversed(snapshots(Path(given))), None) or find_latest_snapshot(given)
    if path is None:
        where = f'under {RUNS}/' if given is None else f'in {given}'
        raise UserError(f'there is no snapshot {where}: train one ({HOW_TO_TRAIN}) or give --network=FILE')
    networks = load_networks(path, device=device, only=['G_ema'])
    print(f'Network {str(path).removeprefix(f"{Path.cwd()}/")}{which}')
    return networks['G_ema'], {**networks['meta'], 'path': str(path)}


def with_precision(G, precision):
    """The generator computing in 'fp32', or with its four highest resolutions in 'fp16' or 'bf16'."""
    if precision == 'fp32':
        return G
    arguments = copy.deepcopy(G.init_kwargs)
    synthesis = arguments['synthesis_kwargs']
    synthesis.update(num_fp16_res=HALF_BLOCKS, half_dtype=HALF[precision], conv_clamp=synthesis.get('conv_clamp') or 256)
    half = type(G)(**arguments)
    half.load_state_dict(G.state_dict())
    return half.eval().requires_grad_(False).to(next(G.parameters()).device)
