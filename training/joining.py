"""What processes settle before a run: that they begin with the same, and which run a job goes on with that torchrun starts again."""

import dataclasses
import hashlib
import os
import platform
import socket
from pathlib import Path

import numpy as np
import psutil
import torch

from dnnlib.util import atomic_path
from torch_utils import distributed
from training import run_folder
from training.config import Config

ROOT = Path(__file__).resolve().parents[1]
CODE = ('dnnlib', 'torch_utils', 'training', 'inr')  # what decides a step
ENDINGS = ('.py', '.cpp', '.hpp', '.cu', '.cuh')
OWN = ('data.path', 'run.workers')  # may differ: a copy of the data on each machine, as many processes that load it as there are cores


def expect_same_start(settings: Config) -> None:
    """Raises UserError, in all processes, unless options, data, packages and code are the same in all."""
    if distributed.world_size() > 1:
        distributed.expect_agreement(facts(settings))


def facts(settings: Config) -> dict[str, object]:
    """{name: value} of what must be the same in all processes."""
    options = {}
    for section, values in dataclasses.asdict(settings).items():
        options |= {f'{section}.{name}': value for name, value in values.items()}
    options['data digest'] = options.pop('data.digest')
    return {'Python': platform.python_version(), 'torch': torch.__version__, 'numpy': np.__version__, 'the code': code_digest(),
            **{name: value for name, value in options.items() if name not in OWN}}


def code_digest(root: Path = ROOT) -> str:
    """A digest of the source files that decide a step."""
    total = hashlib.sha256()
    found = (path for folder in CODE for path in (root / folder).rglob('*') if path.suffix in ENDINGS)
    for path in sorted(found):
        total.update(f'{path.relative_to(root)}'.encode() + b'\0' + path.read_bytes() + b'\0')
    return total.hexdigest()[:16]


def expect_same_weights(networks: dict[str, torch.nn.Module]) -> None:
    """Raises UserError, in all processes, unless all have the same weights, bit for bit."""
    if distributed.world_size() > 1:
        distributed.expect_agreement({f'the weights of {name}': weights_digest(network) for name, network in networks.items()})


def weights_digest(network: torch.nn.Module) -> str:
    """A digest of a network's weights and buffers."""
    total = hashlib.sha256()
    for name, value in network.state_dict().items():
        total.update(name.encode() + value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


# ---- A job that is started again


def job_file(outdir: Path) -> Path | None:
    """Where the run folder of this job is written down; None for a process that torchrun did not start.

    A job is what one call of torchrun, or several with one --rdzv-id, do. Without an id it is known by the process that started this one.
    """
    name = os.environ.get('TORCHELASTIC_RUN_ID')
    if name is None:
        return None
    if name == 'none':
        agent = psutil.Process(os.getppid())
        name = f'{socket.gethostname()}-{agent.pid}-{agent.create_time():.2f}'
    return outdir / '.jobs' / hashlib.sha256(name.encode()).hexdigest()[:16]


def run_of_job(outdir: Path) -> Path | None:
    """The run folder that this job has begun before; None at its first start. To be called before the group is made."""
    path = job_file(outdir)
    if path is None or not path.is_file():
        return None
    folder = outdir / path.read_text(encoding='utf-8').strip()
    return folder if run_folder.is_run(folder) else None


def remember_run(outdir: Path, folder: Path) -> None:
    """Writes down the run folder of this job. To be called by the main process when all are there."""
    path = job_file(outdir)
    if path is not None:
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(folder.name, encoding='utf-8')
