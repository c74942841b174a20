"""Trains a GAN: python train.py --cfg=inr --data=ffhq.zip. Everything else follows from the preset's row and the data.

The options of a run are rows of training/config.py and inr/presets.py; those of this one call are the fields of `Call`.
"""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dnnlib import cli
from dnnlib.options import command_line, option, rows
from dnnlib.util import UserError
from training.config import OPTIONS, Config
from training.options import POSITIVE
from training.plugins import knob_rows, presets
from training.validation import check_processes


@dataclass(frozen=True)
class Call:
    """A command line. given: what it says of the run, {option: value}, without what it leaves out."""

    data: str | None = option("Zip or folder of images that dataset_tool.py made, or 'demo'; several as a.zip,b.zip or 'x/*.zip'; shards "
                             "as 'x/*.tar' or by the path or address of their index.json.", click.STRING, metavar='PATH')
    outdir: Path = option('Where the numbered run folders are.', click.Path(path_type=Path), otherwise=Path('training-runs'))
    minutes: float | None = option('Stop, with a snapshot, after so long.', POSITIVE, shown='no limit')
    device: str = option('auto, cpu, cuda or cuda:N; auto is a GPU if there is one.', click.STRING, otherwise='auto')
    resume: str | None = option('Go on with a run, in its folder and with its options.', click.STRING, metavar='latest|DIR|FILE')
    init_from: str | None = option('Start a new run from the weights of a snapshot.', click.STRING, metavar='FILE|URL')
    dry_run: bool = option('Check the data and print the recipe and what it needs; train nothing.', click.BOOL)
    given: dict[str, Any]

    @classmethod
    def parsed(cls, options: dict) -> 'Call':
        """From what click hands over."""
        own = [field.name for field in dataclasses.fields(cls)]
        given = {name: value for name, value in options.items() if name not in own and value is not None}
        return cls(**{name: value for name, value in options.items() if name in own}, given=given)

    def text(self) -> str:
        """', with --batch=8 --no-mirror', or '' for none."""
        return ', with ' + ' '.join(row.text(self.given[row.name]) for row in TABLE if row.name in self.given) if self.given else ''


def preset_list() -> str:
    """The end of --help: a paragraph for each preset."""
    return '\n\n'.join(f'{name}: {row["summary"]} ({row["cost"]})' for name, row in presets().items())


TABLE = [OPTIONS['cfg'], *rows(Call), *[row for row in OPTIONS.values() if row.name != 'cfg'], *knob_rows()]


@click.command(context_settings={'show_default': True, 'max_content_width': 140}, epilog='Presets.\n\n' + preset_list())
@command_line(TABLE)
def main(**options) -> int:
    """Trains a GAN on a folder or zip of images.

    python train.py --cfg=inr --data=ffhq.zip
    """
    from torch_utils import distributed
    from torch_utils.misc import pick_device
    from training import joining, resuming, run_folder, starting

    call = Call.parsed(options)
    if call.resume and call.init_from:
        raise UserError('--resume goes on with a run and --init-from starts one: give one of them')
    kind = str(pick_device(call.device))
    if not call.resume and (began := joining.run_of_job(call.outdir)):  # torchrun starts this job again
        call = dataclasses.replace(call, resume=str(began), init_from=None)
    if not call.resume:
        return run(call, kind, *starting.new_run(call.data, call.init_from, call.given, kind))
    folder, network = resuming.place(call.resume, call.outdir)
    with run_folder.held(folder) if distributed.is_main() and not call.dry_run else contextlib.nullcontext():
        network, settings = resuming.resumed(folder, network, call.given, kind)
        return run(call, kind, *resuming.same_data(call.data, settings), folder, network)


def run(call: Call, kind: str, dataset, settings: Config, folder: Path | None = None, network: Path | None = None) -> int:
    """Trains, or tells the plan. folder: of a run that goes on, from `network`; None: of a new one, which gets its own."""
    from torch_utils import distributed
    from training import checkpoint, joining, memory, run_folder, summary, training_loop, transfer

    loaded = transfer.check(call.init_from, settings, training_loop.has_looks(dataset)) if call.init_from else []
    world_size, chosen = distributed.world_size(), bool('batch_gpu' in call.given or call.resume)
    check_processes(settings, world_size)
    if call.dry_run:
        summary.print_plan(settings, kind, world_size, chosen, loaded)
        return 0
    if network is not None and (kimg := checkpoint.read_header(network)['kimg']) >= settings.run.kimg:
        distributed.print0(f'{folder} is at {kimg:g} of {settings.run.kimg:g} kimg already: --kimg=N makes it longer')
        return 0

    device = distributed.init(kind, settings.run.allow_tf32)
    joining.expect_same_start(settings)
    settings, line = memory.fit(settings, memory.needs(settings), device, world_size, chosen)
    note = f'Resuming {folder} from {network.name if network else "the start, it has no snapshot yet"}'
    with contextlib.ExitStack() as stack:
        stack.callback(distributed.shutdown)
        if folder is None:
            folder = call.outdir
            if distributed.is_main():
                folder = run_folder.new_run_folder(folder, f'{dataset.name}-{settings.run.cfg}')
                stack.enter_context(run_folder.held(folder))
                joining.remember_run(call.outdir, folder)
            note = f'New run in {folder}'
        evaluate = None
        if settings.run.metrics:
            from metrics.during_training import Evaluation
            evaluate = Evaluation(settings, folder, device)
        number = training_loop.train(settings, dataset, folder, device, network, call.init_from, call.minutes, evaluate,
                                     note=f'{note} on {device}{call.text()}\n{line}')
    return 128 + number if number else 0


if __name__ == '__main__':
    cli.run(main)
