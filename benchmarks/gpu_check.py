"""Everything that a GPU must show, in one command: operators against their oracles, benchmarks, a short training.

python benchmarks/gpu_check.py --outdir=DIR

Takes less than 9 minutes (--minutes). DIR/gpu_check.json has all of it, DIR has what the parts wrote. Exit code 1 if something failed or
was cut off. --dry runs it on a CPU in small sizes, to see that the script works; what it measures there means nothing.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import click
from side_by_side import ROOT, finish, header, output_of, seconds_of

SHARE = 0.7  # of the free memory that train.py fills by its estimate: training.memory.SHARE


@dataclass
class Check:
    """The state of a run. ends: on the monotonic clock."""

    outdir: Path
    device: str
    ends: float
    found: dict = field(default_factory=dict)

    @property
    def dry(self):
        return self.device == 'cpu'

    def part(self, function):
        """Does a part, keeps what it returns or why it failed, and writes all there is so far."""
        name, begin = function.__name__, time.monotonic()
        print(f'-- {name}', flush=True)
        try:
            result = {'ok': True, **function(self)}
        except Exception as why:  # the other parts still count
            result = {'ok': False, 'error': f'{type(why).__name__}: {why}'[:2000]}
        result['took_s'] = round(time.monotonic() - begin, 2)
        self.found[name] = result
        print(json.dumps(result)[:400], flush=True)
        (self.outdir / 'gpu_check.json').write_text(json.dumps(self.found, indent=1) + '\n')

    def run(self, command, seconds):
        """(exit code, what it printed) of a process and its own, which all end when the time is up; then the exit code is None."""
        seconds = min(seconds, self.ends - time.monotonic())
        if seconds < 10:
            raise RuntimeError('no time left')
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        try:
            text = process.communicate(timeout=seconds)[0]
            return process.returncode, text
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, process.communicate()[0]

    def script(self, *command, seconds):
        """What a script of this repository prints. command: its name and options, or -m, a module and the like"""
        code, text = self.run([sys.executable, *command], seconds)
        if code != 0:
            how = 'cut off' if code is None else f'exit code {code}'
            raise RuntimeError(f'{" ".join(command)}: {how}: {text[-1500:]}')
        return text

    def benchmark(self, script, *options, seconds, name=None):
        """The figures of a benchmark, which also lie in DIR/name.json; one repetition when dry. name: default the script's."""
        place = self.outdir / f'{name or script}.json'
        options = [*options, f'--device={self.device}', f'--json={place}', *(['--repeats=1'] if self.dry else [])]
        place.with_suffix('.txt').write_text(self.script(f'benchmarks/{script}.py', *options, seconds=seconds))
        return {'figures': json.loads(place.read_text())}


def machine(check):
    """What the figures are of."""
    import torch

    found = dict(torch=torch.__version__, cuda=torch.version.cuda, python=sys.version.split()[0], cpus=os.cpu_count(),
                 commit=output_of('git', 'describe', '--always', '--dirty'), date=time.strftime('%Y-%m-%d'))  # fmt: skip
    if not check.dry:
        import triton

        found.update(gpu=torch.cuda.get_device_name(), capability=torch.cuda.get_device_capability(), triton=triton.__version__,
                     driver=output_of('nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader'),
                     nvcc=output_of('nvcc', '--version').splitlines()[-1:])  # fmt: skip
    return found


def first_use(check):
    """Seconds until the first result of the operators, compilation included where caches are empty."""
    import torch

    from inr.ops import dispatch
    from torch_utils.ops import bias_act

    impl = 'auto' if check.dry else 'cuda'
    x, w = torch.ones(1, 64, 64, 64, device=check.device), torch.ones(1, 64, 64, device=check.device)
    return dict(bias_act_and_upfirdn2d_s=seconds_of(lambda: bias_act.bias_act(x, act='lrelu', impl=impl)),
                fmm_layer_s=seconds_of(lambda: dispatch.layer(w, x=x, impl=impl)))  # fmt: skip


def operators(check):
    """check_operators.py."""
    place = check.outdir / 'operators.json'
    options = [f'--device={check.device}', f'--json={place}', *(['--small'] if check.dry else [])]
    text = check.script('benchmarks/check_operators.py', *options, seconds=180)
    found = json.loads(place.read_text())
    share = max(off / allowed for case in found for off, allowed in case['errors'].values())
    return dict(cases=len(found), worst_share_of_what_is_allowed=share, says=text.splitlines()[-1])


def trained(check, *options, seconds, processes=1, falls=True):
    """Figures of a run of train.py on the demo's data. D's loss must fall: it begins near ln 4, where telling real from fake is guessing.

    processes: that torchrun starts;  falls: whether the run is long enough for that
    """
    runs = check.outdir / 'runs'
    shutil.rmtree(runs, ignore_errors=True)
    launch = [] if processes == 1 else ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={processes}', '--']
    text = check.script(*launch, 'train.py', '--data=demo', f'--device={check.device}', f'--outdir={runs}', *options, seconds=seconds)
    run = next(runs.glob('0*'))
    lines = [json.loads(line) for line in (run / 'stats.jsonl').read_text().splitlines()]
    lines = [line for line in lines if 'Loss/D_real' in line]
    losses = [line['Loss/D_real'] + line['Loss/D_fake'] for line in lines]
    shutil.copy(run / 'log.txt', check.outdir / f'training_log_{len(list(check.outdir.glob("training_log_*")))}.txt')
    shutil.rmtree(runs)
    if len(losses) < 4 or falls and not sum(losses[-2:]) / 2 < losses[0]:
        raise RuntimeError(f"D's loss did not fall: {losses}")
    peak = max(line.get('Resources/peak_gpu_bytes', line['Resources/memory_bytes']) for line in lines)
    return dict(options=options, loss_D=losses, images_per_second=[line['Timing/images_per_second'] for line in lines],
                **against_estimate(peak, text, check.dry))  # fmt: skip


def against_estimate(peak, text, dry):
    """The most memory of a run beside what train.py said it would take. On a CPU, where PyTorch itself is part of it, nothing is asked."""
    number, unit = re.search(r'^memory: +about ([0-9.]+) (B|[KMG]iB) besides', text, re.MULTILINE).groups()
    estimate = float(number) * 1024 ** ('B', 'KiB', 'MiB', 'GiB').index(unit)
    if not dry and peak > estimate / SHARE:
        raise RuntimeError(f'the step took {peak / 2**30:.2f} GiB, the estimate is {estimate / 2**30:.2f}: a run that should fit would not')
    return dict(peak_bytes=peak, estimated_bytes=estimate, peak_over_estimate=peak / estimate)


def training(check):
    """2 kimg of `inr` as a user gets it without further options: G in float32, D in float16."""
    if check.dry:
        return trained(check, '--cfg=inr-tiny', '--kimg=0.128', '--tick=0.016', '--batch-gpu=16', seconds=150)
    return trained(check, '--cfg=inr', '--kimg=2', '--tick=0.25', seconds=150)


def training_fast(check):
    """1 kimg of `inr` with what makes it fast: bfloat16 and TF32."""
    if check.dry:
        return {'skipped': 'no GPU'}
    return trained(check, '--cfg=inr', '--kimg=1', '--tick=0.125', '--precision=bf16', '--allow-tf32', seconds=90)


def two_processes(check):
    """A run and scores in two processes, where there are two GPUs. Scores are equal to those of one process."""
    import torch

    if not check.dry and torch.cuda.device_count() < 2:
        return {'skipped': f'{torch.cuda.device_count()} GPU'}
    if check.dry:
        small = ['--cfg=inr-tiny', '--kimg=0.016', '--tick=0.004', '--batch=4', '--batch-gpu=2']  # too short to learn anything
        return trained(check, *small, seconds=90, processes=2, falls=False)
    found = trained(check, '--cfg=inr', '--kimg=1', '--tick=0.125', seconds=120, processes=2)
    scores = []
    for launch in ([], ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', '--']):
        place = check.outdir / f'scores_{len(scores) + 1}.jsonl'
        place.unlink(missing_ok=True)
        options = ['--network=assets/inr-tiny.safetensors', '--data=demo', '--num=500', '--device=cuda', f'--record={place}']
        check.script(*launch, 'calc_metrics.py', '--metrics=kd_efficientnet-lite0,pr_efficientnet-lite0,swd', *options, seconds=60)
        scores.append({key: value for line in place.read_text().splitlines() for key, value in json.loads(line)['results'].items()})
    off = {key: abs(value - scores[1][key]) for key, value in scores[0].items()}
    if any(value > 1e-3 * abs(scores[0][key]) + 1e-4 for key, value in off.items()):
        raise RuntimeError(f'scores of one and of two processes differ: {scores}')
    return {**found, 'scores': scores}


def generator(check):
    """bench_generator.py."""
    cases = ['inr,16,2,bfloat16'] if check.dry else ['inr,256,50,bfloat16', 'inr,256,1,bfloat16', 'stylegan2,256,8,bfloat16']
    return check.benchmark('bench_generator', *(f'--case={case}' for case in cases), seconds=90)


def step(check):
    """bench_train_step.py."""
    options = ['--res=16', '--batch=4'] if check.dry else ['--res=256', '--preset=inr', '--repeats=5']
    return check.benchmark('bench_train_step', *options, seconds=120)


def layer(check):
    """bench_fmm.py."""
    return check.benchmark('bench_fmm', *(['--case=16,16,8,64,2'] if check.dry else []), '--dtype=bfloat16', seconds=90)


def layer_in_full(check):
    """bench_fmm.py with float32 products in full, as train.py does them on a GPU by default in G of `inr`."""
    options = ['--case=16,16,8,64,2'] if check.dry else ['--case=512,512,0,65536,16', '--case=64,64,128,4096,16']
    return check.benchmark('bench_fmm', *options, '--dtype=float32', '--no-tf32', seconds=90, name='bench_fmm_no_tf32')


def ops(check):
    """bench_ops.py."""
    return check.benchmark('bench_ops', seconds=60)


def graphs(check):
    """What replaying a CUDA graph would gain over drawing one image: whether launching kernels takes longer than they do."""
    import torch
    from bench_generator import build

    if check.dry:
        return {'skipped': 'no GPU'}
    G = build('inr', 256, 'bfloat16').cuda()
    ws = torch.randn(1, G.num_ws, G.w_dim, device='cuda')
    with torch.no_grad():
        for _ in range(3):
            image = G.synthesis(ws)
        finish()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            drawn = G.synthesis(ws)
        graph.replay()
        finish()
        times = {'eager_s': lambda: G.synthesis(ws), 'graph_s': graph.replay}
        return dict(equal=torch.equal(image, drawn), **{name: min(seconds_of(run) for _ in range(10)) for name, run in times.items()})


def sanitizer(check):
    """compute-sanitizer on a small case of each operator, where it is installed."""
    folder = Path(os.environ.get('CUDA_HOME', '/usr/local/cuda')) / 'bin'
    tool = shutil.which('compute-sanitizer') or shutil.which('compute-sanitizer', path=str(folder))
    if check.dry or tool is None:
        return {'skipped': 'no GPU' if check.dry else 'compute-sanitizer is not installed'}
    code, text = check.run([tool, '--error-exitcode=9', sys.executable, 'benchmarks/check_operators.py', '--small'], 90)
    if code != 0:
        raise RuntimeError(f'{"cut off" if code is None else f"exit code {code}"}: {text[-1500:]}')
    return {'says': text.splitlines()[-1]}


def tiles(check):
    """What other tiles would do for the largest layer. Being cut off is no failure: the best so far is not known then."""
    if check.dry:
        return {'skipped': 'no GPU'}
    options = ['--device=cuda', '--case=512,512,0,65536,16', '--dtype=bfloat16', '--repeats=3', '--tiles']
    _, text = check.run([sys.executable, 'benchmarks/bench_fmm.py', *options], 120)
    return {'says': text.splitlines()[-9:]}


PARTS = (machine, first_use, operators, training, training_fast, two_processes, generator, step, layer, layer_in_full, ops, graphs,
         sanitizer, tiles)


@click.command()
@click.option('--outdir', type=click.Path(file_okay=False, path_type=Path), required=True, help='Made if it is not there.')
@click.option('--dry', is_flag=True, help='On a CPU, in small sizes.')
@click.option('--minutes', default=8.5, show_default=True, help='When parts that still run are cut off.')
@click.option('--only', type=click.Choice([part.__name__ for part in PARTS]), multiple=True, help='These parts alone; may be repeated.')
def main(outdir, dry, minutes, only):
    """Print what is done and found, and write it to OUTDIR/gpu_check.json."""
    import torch

    if not dry and not torch.cuda.is_available():
        raise click.UsageError('there is no GPU that this PyTorch can use: --dry tries the script on a CPU')
    outdir = outdir.absolute()
    outdir.mkdir(parents=True, exist_ok=True)
    check = Check(outdir, 'cpu' if dry else 'cuda', time.monotonic() + minutes * 60)
    header(check.device)
    for part in PARTS:
        if not only or part.__name__ in only:
            check.part(part)
    failed = [name for name, result in check.found.items() if not result['ok']]
    print(f'{len(check.found)} parts, failed: {", ".join(failed) or "none"}; {outdir}/gpu_check.json', flush=True)
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
