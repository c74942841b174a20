"""What folders beside this one bring: networks, presets, options. The only place in training/ that names one, or a class to trust.

Each may be missing. In its presets.py are plain rows: PRESETS, {name: row as in training/presets.py}, and OPTIONS, {name: dict} for what
lands in `synthesis_kwargs` under that name, with the keys
    help; type: bool, a tuple of names, or a function from text that raises ValueError; metavar, which may be left out
    unused: function of synthesis_kwargs that says why the option has no effect there, or None; may be left out
"""

import importlib
import re
from typing import Any

from dnnlib import cli
from dnnlib.options import Option
from dnnlib.util import UserError, optional
from training.presets import PRESETS

PLUGINS = ('inr',)
NETWORKS = 'training.networks', 'training.projected'  # modules of this folder that hold networks


def presets() -> dict[str, dict]:
    """All presets by name."""
    found = dict(PRESETS)
    for folder in PLUGINS:
        found.update(optional(f'{folder}.presets', 'PRESETS', {}))
    return found


def knobs() -> dict[str, dict]:
    """The plain rows of all options that land in synthesis_kwargs."""
    found: dict[str, dict] = {}
    for folder in PLUGINS:
        found.update(optional(f'{folder}.presets', 'OPTIONS', {}))
    return found


def knob_rows() -> list[Option]:
    """The same as rows of the command line."""
    return [Option(name, row['help'], _click_type(row['type']), shown='preset', metavar=row.get('metavar'),
                   place=f'generator.synthesis.{name}') for name, row in knobs().items()]


def _click_type(kind: Any):
    if kind is bool:
        return None
    return cli.PresetName(kind) if isinstance(kind, tuple) else cli.Parsed(kind)


# ---- Networks by name


def check_class_name(name: str, where: str) -> None:
    """Raises UserError for a class that is not of this project, so that what a file names is never imported on its word alone."""
    module, _, short = name.rpartition('.')
    if module not in NETWORKS and not re.fullmatch(rf'(?:{"|".join(PLUGINS)})(?:\.[a-z]\w*)+', module) or not short.isidentifier():
        raise UserError(f'{where} names another class, {name}: only networks of {", ".join((*NETWORKS, *PLUGINS))} are built')


def network_class(name: str, where: str) -> type:
    """The class of a network. where: for messages, what names it. Raises UserError for any that is not a network of this project."""
    import torch

    check_class_name(name, where)
    module, _, short = name.rpartition('.')
    try:
        found = getattr(importlib.import_module(module), short, None)
    except ModuleNotFoundError as err:
        raise UserError(f'{where}: there is no {err.name} in this copy of the code, which {name} needs') from None
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module) and found.__module__ == module):
        raise UserError(f'{where} names another class, {name}: only networks of {", ".join((*NETWORKS, *PLUGINS))} are built')
    return found


def foreign_generator(arguments: dict, state: dict, where: str) -> tuple[str, dict, dict]:
    """(class name, constructor arguments, state dict) here of a generator from elsewhere that no class of training.networks is.

    arguments: of its constructor, `cfg` among them;  state: its tensors;  where: for messages
    A folder beside this one that knows such generators has them as `translated` in its public.py, which raises ValueError.
    """
    for folder in PLUGINS:
        translated = optional(f'{folder}.public', 'translated', None)
        if translated is not None:
            try:
                return translated(arguments, state)
            except ValueError as err:
                raise UserError(f'{where}: {" ".join(str(err).split())}') from None
    raise UserError(f'{where} is a generator of INR-GAN, which this copy of the code does not have: it needs {", ".join(PLUGINS)}/')


def build_generator(settings) -> Any:
    """The generator of a `config.Config`, as initialized."""
    G = _built('G', settings, settings.generator.class_name, settings.generator_kwargs())
    if settings.windows.on and not getattr(G.synthesis, 'draws_windows', False):
        raise UserError(f'--windows: the generator of --cfg={settings.run.cfg} draws no windows of its pictures; take another preset, '
                        'such as inr or inr-small')
    return G


def build_discriminator(settings, world_size: int = 1) -> Any:
    """The discriminator of a `config.Config`, as initialized."""
    return _built('D', settings, settings.discriminator.class_name, settings.discriminator_kwargs(world_size))


def _built(name: str, settings, class_name: str, arguments: dict) -> Any:
    found = network_class(class_name, f'the configuration of {name}')
    try:
        return found(**arguments)
    except ValueError as err:  # what a network says of its arguments
        raise UserError(f'--cfg={settings.run.cfg}: {err}') from err
    except (TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, AssertionError) as err:
        if cli.is_out_of_memory(err):
            raise
        raise UserError(f'the configuration of {name} does not make a {class_name}: {" ".join(str(err).split())[:200]}') from err
