"""Network pickles of stylegan2-ada-pytorch, of its forks that keep the network classes, and of INR-GAN, read without running them.

Such a file is a dict of G, D and G_ema, each an object of torch_utils.persistence: the source text of its class, which is not looked at,
the class's name, and the attributes of the object, its weights and constructor arguments among them. From these a network of ours is
built, which has the same names of weights; folders beside this one may know more kinds (`plugins.foreign_generator`).

    python -m training.legacy network.pkl network.safetensors
"""

import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import torch

from dnnlib import cli
from dnnlib.util import UserError, fetch
from training import plugins
from training.building import built, load_weights
from training.data.pickled import Call, Name, NotPlain, Plain, convert, expect, follow, shown
from training.tensors import TENSOR_RULES, dictionary

OBJECT = 'torch_utils.persistence _reconstruct_persistent_obj'
CLASSES = {'G': 'Generator', 'D': 'Discriminator', 'G_ema': 'Generator'}
GENERATOR = ('z_dim', 'c_dim', 'w_dim', 'img_resolution', 'img_channels', 'mapping_kwargs', 'synthesis_kwargs')
DISCRIMINATOR = ('c_dim', 'img_resolution', 'img_channels', 'architecture', 'channel_base', 'channel_max', 'num_fp16_res', 'conv_clamp',
                 'cmap_dim', 'block_kwargs', 'mapping_kwargs', 'epilogue_kwargs')
NO_COUNTERPART = ('fused_modconv_default',)  # of arguments: says how to compute, not what
MOST_OPCODES = 4_000_000  # a generator of INR-GAN at 32x32, with its configuration in every layer, has 40,000
MOST_BYTES = 4 << 30  # of a file; the largest networks that were published have 0.4
MOST_PARTS = 5000  # of a network, in each other


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, by its first bytes or, in the oldest protocols, which have no mark, by its name."""
    with open(path, 'rb') as file:
        start = file.read(9)
    return start[:1] == b'\x80' and start[1:2] in b'\2\3\4\5' and start[8:] != b'{' or path.suffix == '.pkl'


def load(path: Path, only: Iterable[str] | None = None) -> tuple[dict[str, Any], dict[str, torch.nn.Module]]:
    """(header as a snapshot has it, networks as initialized from the file's weights). only: out of 'G', 'D', 'G_ema'; None: all there are.

    Raises UserError, in one line, for what is no such file.
    """
    try:
        content = _content(path)
        about = _about(content.get('training_set_kwargs'))
        found = {name: content[name] for name in CLASSES if content.get(name) is not None}
        if 'D' in found and _described(found['D'])[0] != CLASSES['D']:
            del found['D']  # a fork's own, which drawing has no need of
        if not found:
            raise NotPlain(f'it holds {", ".join(map(repr, list(content)[:5])) or "nothing"}, not G, D or G_ema')
        networks = {name: _network(path, name, content[name]) for name in (found if only is None else only) if name in found}
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as err:  # of parts of other kinds
        reason = ' '.join(str(err).split())[:300] or type(err).__name__
        raise UserError(f'{path}: not a network pickle of stylegan2-ada-pytorch or INR-GAN ({reason}); nothing in it was run') from None
    header = {'cfg': 'stylegan2', 'kimg': 0.0, 'images': 0, 'recipe': {}, 'dataset': about, 'networks': dict.fromkeys(found)}
    for network in networks.values():
        if type(network).__module__ != 'training.networks':
            header['cfg'] = type(network).__module__.partition('.')[0]
        about.update(resolution=network.img_resolution, channels=network.img_channels, label_dim=network.c_dim)
    return header, networks


# ---- What the file says


def _content(path: Path) -> dict[str, Any]:
    """The dict that is the pickle, its values as `follow` gives them."""
    size = path.stat().st_size
    if not 0 < size <= MOST_BYTES:
        raise NotPlain(f'{size:,} bytes')
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        content = follow(data, MOST_OPCODES)
    if type(content) is Call and content.content is not None:  # an EasyDict
        content = content.content
    if type(content) in (tuple, list):
        raise NotPlain('a tuple of networks, as the TensorFlow versions wrote: convert it with legacy.py of stylegan2-ada-pytorch first')
    return expect(content, dict)


def _about(data: Any) -> dict[str, Any]:
    """The header's entry on the data set, which may be described in ways that are not known."""
    try:
        place = expect(convert(data, Plain(RULES)), dict).get('path')
    except NotPlain:
        place = None
    known = place if type(place) is str else 'unknown'
    return {'path': known, 'digest': '', 'resolution': 0, 'channels': 0, 'label_dim': 0, 'classes': None, 'class_sizes': None}


def _described(found: Any) -> tuple[str, dict]:
    """(name of the class, its attributes) of an object of torch_utils.persistence."""
    if type(found) is not Call:
        raise NotPlain(f'a {type(found).__name__} where a network should be')
    if found.name != OBJECT:
        raise NotPlain(f'it asks for {shown(found.name)}')
    (about,) = found.args
    if expect(about, dict).get('type') != 'class':
        raise NotPlain('an object of torch_utils.persistence that has no class')
    return expect(about.get('class_name'), str), expect(about.get('state'), dict)


def _tensors(found: Any, prefix: str, plain: Plain, into: dict[str, torch.Tensor], seen: dict[int, Any]) -> dict[str, torch.Tensor]:
    """The state dict of an object: its parameters and persistent buffers, and those of its parts. A ModuleList has parts alone.

    seen: the parts so far, by id: none is in two places, or there would be no end of them
    """
    if len(seen) > MOST_PARTS or id(found) in seen or prefix.count('.') > 20:
        raise NotPlain('more parts than a network has')
    seen[id(found)] = found
    if type(found) is Call and found.name.startswith('torch.nn.modules.container '):
        attributes = expect(found.state, dict)
    else:
        attributes = _described(found)[1]
    passing = _entries(attributes, '_non_persistent_buffers_set', list)
    for group in ('_parameters', '_buffers'):
        for key, value in _entries(attributes, group, dict).items():
            if value is not None and key not in passing:
                into[f'{prefix}{expect(key, str)}'] = expect(convert(value, plain), torch.Tensor)
    for key, part in _entries(attributes, '_modules', dict).items():
        if part is not None:
            _tensors(part, f'{prefix}{expect(key, str)}.', plain, into, seen)
    return into


def _entries(attributes: dict, name: str, kind: type) -> Any:
    """An attribute that is a dict or a set, also as the OrderedDict or the call of set() that older versions wrote; empty if missing."""
    value = attributes.get(name)
    if type(value) is Call and value.name in ('builtins set', '__builtin__ set'):
        value = value.args[0] if value.args else []
    elif type(value) is Call and value.name == 'collections OrderedDict':
        value = value.content
    return expect(value, kind) if value is not None else kind()


# ---- Constructor arguments


def _any_dict(call: Call, plain: Plain) -> dict:
    """An object of a class that copyreg rebuilds, such as an EasyDict of the oldest protocols: (class, dict, pairs)."""
    kind, base, content = call.args
    if type(kind) is not Name or kind.text not in RULES or type(base) is not Name or base.text not in ('builtins dict', '__builtin__ dict'):
        raise NotPlain(f'it asks for {shown(kind.text) if type(kind) is Name else "another class"}')
    return {**expect(plain(content), dict), **expect(plain(call.content or {}), dict)}


def _configuration(call: Call, plain: Plain) -> Any:
    """A node of omegaconf: what it holds, references in it as they are written."""
    state = expect(call.state, dict)
    return plain(state['_content'] if '_content' in state else state['_val'])


RULES = {**TENSOR_RULES, 'dnnlib.util EasyDict': dictionary, 'copyreg _reconstructor': _any_dict, 'copy_reg _reconstructor': _any_dict,
         **{f'omegaconf.{name}': _configuration for name in (
             'dictconfig DictConfig', 'listconfig ListConfig', 'nodes AnyNode', 'nodes IntegerNode', 'nodes FloatNode', 'nodes StringNode',
             'nodes BooleanNode')}}


def _arguments(attributes: dict, names: tuple[str, ...]) -> dict[str, Any]:
    """Constructor arguments by name."""
    if '_init_kwargs' not in attributes:
        raise NotPlain('a network without its constructor arguments')
    plain = Plain(RULES)
    by_position = expect(convert(attributes.get('_init_args', ()), plain), tuple)
    by_name = expect(convert(attributes['_init_kwargs'], plain), dict)
    if len(by_position) > len(names):
        raise NotPlain('a network with other constructor arguments')
    return {**dict(zip(names, by_position, strict=False)), **by_name}


def _network(path: Path, name: str, found: Any) -> torch.nn.Module:
    """One of the networks, built and with its weights."""
    class_name, attributes = _described(found)
    if class_name != CLASSES[name]:
        raise NotPlain(f'{name} is of a class {class_name:.100}, not a {CLASSES[name]}')
    state = _tensors(found, '', Plain(RULES), {}, {})
    if any(key.startswith('synthesis.L0_') for key in state):
        raise UserError(f'{path}: {name} is a generator of StyleGAN3, which is not read: give one of StyleGAN2 or INR-GAN')
    where = f'{path}: {name}'
    arguments = _arguments(attributes, DISCRIMINATOR if name == 'D' else GENERATOR)
    if name != 'D' and 'cfg' in arguments:
        class_name, arguments, state = plugins.foreign_generator(arguments, state, where)
        return load_weights(built(class_name, arguments, state, where), state, where)
    arguments = {key: value for key, value in arguments.items() if key not in NO_COUNTERPART}
    if name != 'D':  # the fork of StyleGAN3 hands those of the synthesis over one by one
        more = {key: arguments.pop(key) for key in list(arguments) if key not in GENERATOR}
        arguments['synthesis_kwargs'] = {**(arguments.get('synthesis_kwargs') or {}), **more}
    network = built(f'training.networks.{CLASSES[name]}', arguments, state, where)
    return load_weights(network, state, where)


@click.command()
@click.argument('source', metavar='IN.pkl')
@click.argument('dest', metavar='OUT.safetensors', type=click.Path(path_type=Path))
def main(source: str, dest: Path) -> None:
    """Convert a network pickle of stylegan2-ada-pytorch or INR-GAN (a path or URL) into a snapshot of this project."""
    from training import checkpoint  # which reads pickles by way of this file

    path = fetch(source)
    if not is_pickle(path):
        raise UserError(f'{path} is no pickle: give a network pickle of stylegan2-ada-pytorch or INR-GAN')
    if dest.suffix != '.safetensors':
        raise UserError(f'{dest}: give a name that ends in .safetensors')
    header, networks = load(path)
    checkpoint.write_networks(dest, networks, header)
    print(f'{dest}  {", ".join(networks)}')


if __name__ == '__main__':
    cli.run(main)
