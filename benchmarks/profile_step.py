"""Where the time of a training step of bench_train_step.py's pair goes: by phase and, within a phase, by operator.

python benchmarks/profile_step.py [--plain] [--half] [--json=FILE]
"""

import json
import statistics
import sys
import time
from pathlib import Path

import click
from bench_train_step import Pair
from side_by_side import header

PHASES = {'G': 1, 'D': 1, 'D_reg': 1 / 16}  # how often in a step


@click.command()
@click.option('--res', default=64, show_default=True)
@click.option('--batch', default=16, show_default=True)
@click.option('--plain', is_flag=True, help='As the public implementations compute it.')
@click.option('--half', is_flag=True, help='In bfloat16.')
@click.option('--top', default=6, show_default=True, help='Operators to list of each phase.')
@click.option('--json', 'json_file', help='Also write the figures here.')
def main(res, batch, plain, half, top, json_file):
    """Print milliseconds of every phase, its share of a step, and its dearest operators."""
    from torch.profiler import ProfilerActivity, profile

    from torch_utils.misc import keep_freed_memory

    header()
    keep_freed_memory()  # as train.py does
    pair, figures = Pair(plain, res, batch, half), {}
    for name, often in PHASES.items():
        pair.phase(name)
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            pair.phase(name)
            seconds.append(time.perf_counter() - start)
        with profile(activities=[ProfilerActivity.CPU]) as record:
            pair.phase(name)
        dearest = sorted(record.key_averages(), key=lambda event: -event.self_cpu_time_total)[:top]
        figures[name] = dict(seconds=statistics.median(seconds), often=often,
                             operators={event.key: event.self_cpu_time_total / 1e6 for event in dearest})  # fmt: skip
    step = sum(figure['seconds'] * figure['often'] for figure in figures.values())
    for name, figure in figures.items():
        share = figure['seconds'] * figure['often'] / step
        print(f'{name:<8} {figure["seconds"] * 1e3:8.1f} ms, {figure["often"]:.3f} of it in a step: {share:4.0%}')
        for key, seconds in figure['operators'].items():
            print(f'    {key:<44} {seconds * 1e3:8.1f} ms')
    print(f'step     {step * 1e3:8.1f} ms, {batch / step:.1f} images/s')
    if json_file:
        Path(json_file).write_text(json.dumps(figures, indent=1) + '\n')


if __name__ == '__main__':
    sys.exit(main())
