"""Counts what comes of files from strangers: mutated snapshots, states, pickles, zips, JSON, images, idx, lmdb, CIFAR archives, options.

Each case is damaged by a rule that (kind, number) decide, read as the commands read it, by a process of its own kind with an eye on it:
understood, refused in one line, or one of what must not be: a traceback, no end within 10 s, more than 1 GiB, code run, a file written
outside, the process gone. A run that was stopped goes on where it was; --shard=1/4 shares the cases with other runs.
"""

import json
import os
import platform
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name('fuzz_worker.py')
FINE, BAD = ('understood', 'refused'), ('traceback', 'hang', 'memory', 'code run', 'written outside', 'crash')
SHARES = {'snapshot': 4, 'state': 3, 'pickle': 3, 'projected_w': 2, 'zip': 3, 'json': 3, 'options': 2, 'images': 3, 'idx': 2, 'lmdb': 2,
          'cifar': 2}
SECONDS, MEMORY = 10, 1 << 30


class Child:
    """A worker and the case it has."""

    def __init__(self):
        limits = {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), 'INR_CACHE_DIR': tempfile.gettempdir()}
        self.process = subprocess.Popen([sys.executable, str(WORKER), str(MEMORY)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, env={**os.environ, **limits},
                                        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30)))
        if self.process.stdout.readline() != 'ready\n':
            raise click.ClickException(f'a worker did not start: {self.process.stderr.read()[-3000:]}')
        self.case = None

    def give(self, case):
        self.case, self.since = case, self.cpu()
        self.began = time.monotonic()
        self.process.stdin.write(f'{case[0]} {case[1]}\n')
        self.process.stdin.flush()

    def cpu(self):
        """Seconds of CPU it has had, so that a machine that does other things too makes nothing hang."""
        try:
            fields = Path(f'/proc/{self.process.pid}/stat').read_text().rpartition(')')[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
        except OSError:
            return 0.0

    def failure(self):
        """What the process has come to, None where it is at work."""
        if self.process.poll() is not None:
            return 'crash', f'signal or exit code {self.process.returncode}'
        if self.cpu() - self.since > SECONDS or time.monotonic() - self.began > 20 * SECONDS:
            return 'hang', ''
        try:
            pages = int(Path(f'/proc/{self.process.pid}/statm').read_text().split()[1])
        except OSError:
            return None
        return ('memory', '') if pages * os.sysconf('SC_PAGE_SIZE') > 2 * MEMORY else None

    def end(self):
        self.process.kill()
        self.process.wait()


def table(found):
    """The counts as a table, a row for each kind."""
    rows = ['| kind | cases | ' + ' | '.join((*FINE, *BAD)) + ' |', '|---|' + '---|' * (1 + len(FINE) + len(BAD))]
    for kind in [*SHARES, 'all']:
        some = [each for each in found if kind in (each['kind'], 'all')]
        counts = [sum(each['outcome'] == outcome for each in some) for outcome in (*FINE, *BAD)]
        rows.append(f'| {kind} | {len(some):,} | ' + ' | '.join(f'{count:,}' for count in counts) + ' |')
    return '\n'.join(rows)


@click.command()
@click.option('--cases', 'count', type=click.IntRange(1), default=20_000, show_default=True, help='In all kinds together.')
@click.option('--first', type=click.IntRange(0), default=0, show_default=True, help='The first case of each kind.')
@click.option('--kinds', default=','.join(SHARES), help='With commas between.  [default: all]')
@click.option('--jobs', type=click.IntRange(1), default=1, show_default=True, help='Processes that read.')
@click.option('--shard', default='1/1', metavar='I/N', help='Every N-th case, from the I-th on.')
@click.option('--outdir', default='out/fuzz', show_default=True, help='Results; cases found there are not done again.')
def main(count, first, kinds, jobs, shard, outdir):
    """Count what comes of damaged and crafted files. The exit code is 1 where anything came that must not."""
    share, step = map(int, shard.split('/'))
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    results = outdir / f'results-{share}-of-{step}.jsonl'
    lines = [line for path in outdir.glob('results-*.jsonl') for line in path.read_text().splitlines(keepends=True) if line.endswith('\n')]
    found = [json.loads(line) for line in lines]
    done = {(each['kind'], each['number']) for each in found}
    wanted = [(kind, first + i) for kind in kinds.split(',') for i in range(count * SHARES[kind] // sum(SHARES.values()) + 1)]
    left = [case for i, case in enumerate(wanted) if i % step == share - 1 and case not in done]
    random.Random(0).shuffle(left)
    children = [Child() for _ in range(min(jobs, len(left)))]
    with open(results, 'a', encoding='utf-8') as file:
        while left or any(child.case for child in children):
            for child in children:
                if child.case is None and left:
                    child.give(left.pop())
            ready = select.select([child.process.stdout for child in children if child.case], [], [], 0.1)[0]
            for i, child in enumerate(children):
                if child.case is None:
                    continue
                line = child.process.stdout.readline() if child.process.stdout in ready else ''
                failure = None if line else child.failure()
                if line:
                    each = json.loads(line)
                elif failure:
                    each = {'kind': child.case[0], 'number': child.case[1], 'outcome': failure[0], 'said': failure[1]}
                    child.end()
                    children[i] = Child()
                else:
                    continue
                child.case = None
                found.append(each)
                file.write(json.dumps(each) + '\n')
                file.flush()
                if each['outcome'] in BAD:
                    print(f'{each["kind"]} {each["number"]}: {each["outcome"]} {each["said"][-300:]}', flush=True)
    for child in children:
        child.end()
    print(f'{platform.machine()}, Python {platform.python_version()}, {time.strftime("%Y-%m-%d")}\n\n{table(found)}')
    sys.exit(any(each['outcome'] in BAD for each in found))


if __name__ == '__main__':
    main()
