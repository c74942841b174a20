"""The ladder of the paper's Table 4, run: six decoders under one budget on small sets, scored, and written to docs/results-log.md.

Each rung is a run of train.py in OUTDIR/SET/RUNG. What is there already is gone on with, or left alone when it is finished, so the command
can be stopped at any moment and given again. Then all rungs of a set are scored alike: features of the packaged EfficientNet-Lite0 (Frechet
distance, kernel distance), and on Fashion-MNIST a small classifier trained here (an inception-like score, and how many images are of the
class that was asked for). `real` is the test split, scored in the same way.
"""

import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'script')]

import ladder_scores  # noqa: E402  beside this file

from dnnlib import cli  # noqa: E402
from dnnlib.util import UserError, atomic_path  # noqa: E402

RUNGS = ('basic', 'hyper', 'fourier', 'fmm', 'multiscale', 'stylegan2')
NAMES = {'basic': 'Basic INR decoder', 'hyper': '+ Hypernetwork-based decoder', 'fourier': '+ Fourier embeddings', 'fmm': '+ FMM',
         'multiscale': '+ Multi-scale INR', 'stylegan2': 'StyleGAN2', 'real': 'real images (test split)'}
PAPER = {  # Table 4: FID and IS on LSUN-10 256 and MiniImageNet-100 128
    'basic': '216.8 / 1.0, 271.5 / 1.03', 'hyper': 'OOM, 112.9 / 8.76', 'fourier': 'OOM, 102.8 / 9.85', 'fmm': '23.78 / 2.48, 84.66 / 9.32',
    'multiscale': '12.47 / 3.02, 59.63 / 11.29', 'stylegan2': '8.99 / 3.18, 52.94 / 12.32', 'real': '0.42 / 9.93, 0.39 / 61.79'}
FASHION = '/usr/share/datasets/fashion-mnist'
COLUMNS = 16  # images of a rung on a sample sheet


@dataclass(frozen=True)
class Set:
    """A data set of the ladder: where it comes from, its side, classes or not, flips or not."""

    source: str
    resolution: int
    cond: bool
    mirror: bool


SETS = {
    'fashion-cond': Set('fashion', 32, cond=True, mirror=False),
    'fashion': Set('fashion', 32, cond=False, mirror=False),
    'emoji': Set('emoji', 64, cond=False, mirror=True),
}


@dataclass(frozen=True)
class Budget:
    """What every rung gets: preset of the rungs and of StyleGAN2, further options, kimg for each set."""

    cfg: str
    baseline: str
    options: tuple[str, ...]
    kimg: dict[str, float]


BUDGETS = {
    'cpu': Budget('paper-tiny', 'stylegan2-tiny', (), {'fashion-cond': 20, 'fashion': 12, 'emoji': 8}),  # 5 to 15 minutes a rung on a core
    'gpu': Budget('paper-tiny', 'stylegan2-tiny', ('--width=2',), {'fashion-cond': 2000, 'fashion': 2000, 'emoji': 2000}),  # hours each
}


# ---- Training


def data_of(name: str, sources: dict[str, str], outdir: Path) -> Path:
    """The data set of a ladder's set, converted once."""
    entry = SETS[name]
    source = sources[entry.source]
    if source == 'demo' or source.endswith('.zip'):
        return Path(source)
    if not Path(source).exists():
        raise UserError(f'{source} is not there. Fashion-MNIST: apt-get install dataset-fashion-mnist, or download its four idx files from '
                        'github.com/zalandoresearch/fashion-mnist and name their folder with --fashion')
    dest = outdir / f'{entry.source}{entry.resolution}.zip'
    if not dest.exists():
        outdir.mkdir(parents=True, exist_ok=True)
        run_python('dataset_tool.py', 'convert', source, dest, f'--resolution={entry.resolution}')
    return dest


def run_python(script: str, *args, **env) -> None:
    """Runs one of the commands; its mistakes are this command's."""
    done = subprocess.run([sys.executable, str(ROOT / script), *map(str, args)], env={**os.environ, **env}, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or '?').splitlines()[-1]
        raise UserError(f'{script} {" ".join(map(str, args))} ended with {done.returncode}: {last}')


def train_rung(name: str, rung: str, data: Path, folder: Path, budget: Budget, kimg: float, seed: int, device: str) -> None:
    """Trains a rung to its budget, going on with what is in its folder."""
    begin, log = time.monotonic(), folder / 'train.log'
    folder.mkdir(parents=True, exist_ok=True)
    common = [f'--kimg={kimg:g}', f'--device={device}', f'--outdir={folder}', '--keep-last=1']
    entry = SETS[name]
    cfg = [f'--cfg={budget.baseline}'] if rung == 'stylegan2' else [f'--cfg={budget.cfg}', f'--decoder={rung}']
    args = [*cfg, f'--data={data}', f'--seed={seed}', '--cond' if entry.cond else '--no-cond',
            '--mirror' if entry.mirror else '--no-mirror', *budget.options, *common]
    if any(folder.glob('*/training_options.json')):
        args.append('--resume=latest')  # which refuses a run of another budget or seed
    with open(log, 'a', encoding='utf-8') as out:
        done = subprocess.run([sys.executable, str(ROOT / 'train.py'), *args], stdout=out, stderr=subprocess.STDOUT)
    if done.returncode:
        last = (log.read_text(encoding='utf-8').strip() or '?').splitlines()[-1]
        raise UserError(f'{name} {rung}: train.py ended with {done.returncode}, see {log}: {last}')
    click.echo(f'{name} {rung}: at {kimg:g} kimg after {(time.monotonic() - begin) / 60:.1f} minutes more')


# ---- Scores and the table


def score_set(name: str, folder: Path, data: Path, test_data: Path | None, rungs, num: int, device) -> dict:
    """{rung: scores} of a set, and its sample sheet SET.png: a row for each rung in the order of the ladder, the last row real images."""
    import torch

    from training import checkpoint, run_folder
    from training.dataset import ImageDataset
    from training.snapshot import save_grid

    reals = ImageDataset(data, use_labels=SETS[name].source == 'fashion')
    test = ImageDataset(test_data, use_labels=True) if test_data else None
    num, classifier, found, sheet = min(num, len(reals)), None, {}, []
    if test is not None and reals.label_dim:  # one for all sets of a source
        classifier = ladder_scores.train_classifier(reals, folder.parent / f'{SETS[name].source}-classifier.pt', device)
    for rung in rungs:
        path = run_folder.find_latest_snapshot(folder / rung)
        if path is None:
            raise UserError(f'{folder / rung} holds no snapshot: train it first')
        loaded = checkpoint.load_networks(path, device=device, only=('G_ema', 'D'))
        G, stats = loaded['G_ema'], json.loads((path.parent / 'stats.jsonl').read_text().splitlines()[-1])
        images, labels = ladder_scores.drawn(G, num, device)
        sheet.append(images[:COLUMNS])
        found[rung] = {**ladder_scores.score(reals, images, num, device, classifier, labels), 'kimg': loaded['meta']['kimg'],
                       'minutes': stats['Timing/total_seconds'] / 60, 'parameters': sum(p.numel() for p in G.parameters())}
        click.echo(f'{name} {rung}: ' + ', '.join(f'{key} {value:.4g}' for key, value in found[rung].items()))
    others = test if test is not None else reals
    images = ladder_scores.pixels(others, min(num, len(others)))
    if test is not None:
        labels = np.array([others.get_label(int(i)).argmax() for i in np.linspace(0, len(others) - 1, len(images)).round()])
        found['real'] = ladder_scores.score(reals, images, num, device, classifier, torch.from_numpy(labels))
        click.echo(f'{name} real: ' + ', '.join(f'{key} {value:.4g}' for key, value in found['real'].items()))
    sheet.append(images[np.linspace(0, len(images) - 1, COLUMNS).round()])
    save_grid(folder / f'{name}.png', np.concatenate([part.numpy() for part in sheet]).transpose(0, 2, 3, 1), COLUMNS)
    return found


def order(scores: dict) -> list[str]:
    """Rungs from the worst Frechet distance to the best."""
    return sorted((rung for rung in scores if rung != 'real'), key=lambda rung: -scores[rung]['fd'])


def table(name: str, scores: dict, about: str) -> str:
    """A section of docs/results-log.md: the scores of a set beside the paper's, and both orders."""
    keys = [key for key in ('cs', 'accuracy') if key in next(iter(scores.values()))]
    heads = {'cs': 'classifier score', 'accuracy': 'of the class asked for'}
    lines = [f'### {name}', '', about, '', '| decoder | FD | KD x 1000 | ' + ''.join(f'{heads[key]} | ' for key in keys)
             + 'G parameters | minutes | paper: FID / IS, LSUN-10 and MiniImageNet |', '|---' * (6 + len(keys)) + '|']
    for rung, found in scores.items():
        figures = ''.join(f'{found[key]:.2f} | ' for key in keys)
        size = f'{found["parameters"] / 1e6:.2f} M | {found["minutes"]:.1f}' if rung != 'real' else ' | '
        distances = f'{found["fd"]:.1f} | {found["kd"]:.1f} +- {found["kd_std"]:.1f}'
        lines.append(f'| {NAMES[rung]} | {distances} | {figures}{size} | {PAPER[rung]} |')
    return '\n'.join([*lines, '', f'From worst to best, here: {", ".join(order(scores))}; in the paper: {", ".join(RUNGS)}.', ''])


def write_results(path: Path, sections: dict[str, str], outdir: Path) -> None:
    """Puts every section between its own marks in a document, replacing what stood there; new ones go to the end.

    The sample sheets OUTDIR/SET/SET.png are copied beside the document and shown in it.
    """
    text = path.read_text(encoding='utf-8')
    for name, section in sections.items():
        shutil.copyfile(outdir / name / f'{name}.png', path.with_name(f'ladder-{name}.png'))
        section += f'\n![A row for each decoder in the order of the table, the last row real images](ladder-{name}.png)\n'
        begin, end = f'<!-- ladder {name} -->', f'<!-- end of ladder {name} -->'
        block = f'{begin}\n{section}{end}\n'
        if begin in text:
            text = text[:text.index(begin)] + block + text[text.index(end) + len(end) + 1:]
        else:
            text = text.rstrip('\n') + '\n\n' + block
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


@click.command(context_settings={'show_default': True})
@click.option('--outdir', type=Path, default='training-runs/ladder', help='Where runs, scores and sheets go.')
@click.option('--sets', 'set_names', default='fashion-cond,fashion,emoji', help='Which sets.')
@click.option('--rungs', 'rung_names', default=','.join(RUNGS), help='Which rungs.')
@click.option('--fashion', default=FASHION, help='Folder of the idx files of Fashion-MNIST, train and t10k.')
@click.option('--emoji', default='demo', help='Zip of 64x64 images, folder of images, or demo: the bundled ones.')
@click.option('--budget', type=click.Choice(list(BUDGETS)), help='Widths and lengths.  [default: as the device is]')
@click.option('--kimg', type=cli.FiniteRange(min=0, min_open=True), help='Length of every run in place of the budget.')
@click.option('--device', default='auto', help='As in train.py.')
@click.option('--jobs', type=click.IntRange(1), default=1, help='Runs at a time.')
@click.option('--seed', type=click.IntRange(0), default=0)
@click.option('--num', type=click.IntRange(32), default=2048, help='Images that a score is made from.')
@click.option('--results', type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help='Document to write the tables to, such as docs/results-log.md; sheets go beside it.')
@click.option('--score/--no-score', default=True, help='Score when all are trained.')
def main(outdir, set_names, rung_names, fashion, emoji, budget, kimg, device, jobs, seed, num, results, score):
    """Train the six rungs of the paper's Table 4 under one budget, score them, and write tables and sample sheets."""
    import torch

    chosen = {'set': set_names.split(','), 'rung': rung_names.split(',')}
    for kind, known in (('set', SETS), ('rung', RUNGS)):
        for name in chosen[kind]:
            if name not in known:
                raise UserError(f'--{kind}s: {name!r} is not known. Known: {", ".join(known)}')
    device = ('cuda' if torch.cuda.is_available() else 'cpu') if device == 'auto' else device
    budget = BUDGETS[budget or ('gpu' if device.startswith('cuda') else 'cpu')]
    sources = {'fashion': fashion, 'emoji': emoji}
    data = {name: data_of(name, sources, outdir) for name in chosen['set']}
    with ThreadPoolExecutor(jobs) as pool:
        started = [pool.submit(train_rung, name, rung, data[name], outdir / name / rung, budget, kimg or budget.kimg[name], seed, device)
                   for name in chosen['set'] for rung in chosen['rung']]
        for run in started:
            run.result()
    if not score:
        return
    sections = {}
    for name in chosen['set']:
        test = data_of_test(fashion, outdir) if SETS[name].source == 'fashion' else None
        scores = score_set(name, outdir / name, data[name], test, chosen['rung'], num, device)
        recipe = ' '.join([f'`--cfg={budget.cfg}` and `--cfg={budget.baseline}`', *budget.options])
        about = (f'`{" ".join(["script/ladder", *sys.argv[1:]])}`, {machine(device)}, {datetime.date.today()}, commit {commit()}. Budget: '
                 f'{next(iter(scores.values()))["kimg"]:g} kimg of {recipe}; {num} images, features of EfficientNet-Lite0 against '
                 f'{data[name].name}.')
        with atomic_path(outdir / name / 'scores.json') as temporary:
            temporary.write_text(json.dumps({'about': about, 'budget': asdict(budget), 'scores': scores}, indent=2))
        sections[name] = table(name, scores, about)
        click.echo('\n' + sections[name])
    if results:
        write_results(results, sections, outdir)


def data_of_test(fashion: str, outdir: Path) -> Path:
    """The test split of Fashion-MNIST, converted once."""
    dest = outdir / 'fashion32-test.zip'
    if not dest.exists():
        run_python('dataset_tool.py', 'convert', Path(fashion) / 't10k-images-idx3-ubyte.gz', dest, '--resolution=32')
    return dest


def machine(device: str) -> str:
    """What was trained on, in words."""
    import torch

    return torch.cuda.get_device_name() if device.startswith('cuda') else f'{os.cpu_count()} cores, {platform.machine()}, no GPU'


def commit() -> str:
    """The commit of the code."""
    return subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout.strip() or 'unknown'


if __name__ == '__main__':
    cli.run(main)
