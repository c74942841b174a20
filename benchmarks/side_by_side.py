"""What the benchmarks share: timing two functions in turn, the line and the JSON that come of it.

A figure is a dict {case, baseline_s, fast_s, ratio, rel_err, peak_mib}: medians, their ratio, ||fast - baseline|| / ||baseline||, and the
memory that the fast one needed above what was held: the GPU's if the process uses one, else its own (on Linux; None elsewhere).
"""

import ctypes
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def set_up(device, tf32=True):
    """On a GPU: TF32, which the public implementations may use too, unless told otherwise, and the fastest convolutions."""
    import torch

    from torch_utils.misc import allow_tf32

    if str(device) != 'cpu':
        if not torch.cuda.is_available():
            raise click.UsageError(f'--device={device}: this PyTorch can use no GPU')
        allow_tf32(tf32)
        torch.backends.cudnn.benchmark = True


def header(device='cpu', tf32=True):
    """Sets up and prints machine, threads and commit."""
    import torch

    set_up(device, tf32)
    commit = output_of('git', 'describe', '--always', '--dirty')
    place = f'{torch.get_num_threads()} threads'
    if str(device) != 'cpu':
        place = f'{torch.cuda.get_device_name(device)}, TF32 {"on" if tf32 else "off"}'
    print(f'{platform.machine()}, {place}, torch {torch.__version__}, commit {commit}', flush=True)


def output_of(*command):
    """What a command prints, or that it is missing."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return f'{command[0]} is missing'


def finish():
    """Waits for the GPU, if the process uses one."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def seconds_of(run):
    """Seconds of one run()."""
    finish()
    start = time.perf_counter()
    run()
    finish()
    return time.perf_counter() - start


def status_mib(field):
    """A field of this process's memory: VmRSS now, VmHWM the highest since the mark was last reset; None where there is no /proc."""
    path = Path('/proc/self/status')
    return int(path.read_text().split(f'{field}:')[1].split()[0]) / 1024 if path.exists() else None


def peak_mib(run):
    """Memory that run() needs above what is held, in MiB, or None."""
    import torch

    if torch.cuda.is_initialized():
        finish()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        finish()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if status_mib('VmRSS') is None:
        return None
    ctypes.CDLL(None).malloc_trim(0)  # what earlier runs freed is otherwise still held, and hides what this one takes
    before = status_mib('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # resets VmHWM
    run()
    return status_mib('VmHWM') - before


def parse_case(text, **kinds):
    """The parts of --case=TEXT: kinds has the name of each and int, or the values it may take. One line for what does not fit."""
    parts, form = text.split(','), ','.join(kinds)
    if len(parts) != len(kinds):
        raise click.UsageError(f'--case={text}: give {form}')
    for part, (name, kind) in zip(parts, kinds.items(), strict=True):
        if not (part.isdigit() if kind is int else part in kind):
            raise click.UsageError(f'--case={text}: {name} is {"a number" if kind is int else "one of " + ", ".join(kind)}')
    return [int(part) if kind is int else part for part, kind in zip(parts, kinds.values(), strict=True)]


def relative_error(found, expected):
    """||found - expected|| / ||expected||, in float32."""
    return ((found.float() - expected.float()).norm() / expected.float().norm()).item()


def compare(case, baseline, fast, repeats=7, error=None):
    """The figure of two functions that are run in turn. error: rel_err, or None to compare the tensors they return."""
    expected, found = baseline(), fast()
    if error is None:
        error = relative_error(found, expected)
    times = {baseline: [], fast: []}
    for _ in range(repeats):
        for run, seconds in times.items():
            seconds.append(seconds_of(run))
    slow_s, fast_s = (statistics.median(seconds) for seconds in times.values())
    figure = dict(case=case, baseline_s=slow_s, fast_s=fast_s, ratio=slow_s / fast_s, rel_err=error, peak_mib=peak_mib(fast))
    memory = '' if figure['peak_mib'] is None else f'{figure["peak_mib"]:7.0f} MiB'
    print(line(figure, f'error {error:.1e} {memory}'), flush=True)
    return figure


def line(figure, rest=''):
    """A figure as text."""
    times = f'{figure["baseline_s"]:9.5f} s {figure["fast_s"]:9.5f} s'
    return f'{figure["case"]:<48} {times}   ratio {figure["ratio"]:5.2f}   {rest}'


def write(figures, json_file):
    """Writes the figures to a file, if one is named."""
    if json_file:
        Path(json_file).write_text(json.dumps(figures, indent=1) + '\n')
