"""Snapshots: networks in a safetensors file that tells what they are, and beside it what only training needs.

A snapshot is a pair: training-state-<kimg>.pt is written first, network-snapshot-<kimg>.safetensors last, each under a temporary name, so
that a network file is there only when its state is. <kimg> is thousands of images in six digits; where images remain, they follow as
three more: 000012 is 12,000 images, 000012_288 is 12,288. So the names sort and no two steps share one.

The header is JSON in the metadata of the safetensors file, under 'header'; tensors are keyed 'G.', 'D.' and 'G_ema.'. A checkpoint never
runs code: its class names are honoured in `training.networks` and `inr.*` only.
"""

import dataclasses
import json
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dnnlib.util import UserError, atomic_path, fetch
from training import legacy
from training.building import built, expect_same_tensors, load_weights
from training.options import SLOW_MAPPING
from training.state import read_state

if TYPE_CHECKING:
    from training.config import Config

VERSION = 1
LARGEST = 1 << 53  # of a number in a header
TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)
BEST = 'network-best.safetensors'
SNAPSHOT_NAME = re.compile(r'network-snapshot-(\d{6,})(?:_(\d{3}))?\.safetensors')


# ---- Names


def step_name(images: int) -> str:
    """'000012' for 12,000 images, '000012_288' for 12,288."""
    return f'{images // 1000:06d}' + (f'_{images % 1000:03d}' if images % 1000 else '')


def network_path(folder: Path, images: int) -> Path:
    """The network file of a snapshot."""
    return folder / f'network-snapshot-{step_name(images)}.safetensors'


def state_path(network: Path) -> Path:
    """The training state that belongs to a network file."""
    return network.with_name(network.name.replace('network-snapshot', 'training-state')).with_suffix('.pt')


def images_of(path: Path) -> int | None:
    """Images that the network of a numbered snapshot has seen, by its name; None for any other file."""
    match = SNAPSHOT_NAME.fullmatch(path.name)
    return int(match[1]) * 1000 + int(match[2] or 0) if match else None


def snapshots(folder: Path) -> list[Path]:
    """Network files of a run's numbered snapshots, earliest step first."""
    found = [(images, path) for path in folder.glob('network-snapshot-*') if (images := images_of(path)) is not None]
    return [path for _, path in sorted(found)]


# ---- Writing


def save_networks(path: Path, networks: dict[str, torch.nn.Module], config: 'Config', images: int) -> None:
    """Writes a network file.

    networks: 'G', 'D', 'G_ema', each with `init_kwargs`
    images:   images seen
    """
    data = config.data
    header = {
        'cfg': config.run.cfg, 'kimg': images / 1000, 'images': images, 'recipe': dataclasses.asdict(config),
        'dataset': {'path': data.path, 'digest': data.digest, 'resolution': data.resolution, 'channels': data.channels,
                    'label_dim': data.label_dim, 'classes': data.classes, 'class_sizes': data.class_sizes, 'res': data.res,
                    **({'size': data.size} if data.size else {})},
    }
    write_networks(path, networks, header)


def write_networks(path: Path, networks: dict[str, torch.nn.Module], header: dict[str, Any]) -> None:
    """Writes a network file with a header that lacks no more than what the networks are and their checksums."""
    tensors = {f'{name}.{key}': value.detach().cpu().contiguous()
               for name, network in networks.items() for key, value in network.state_dict().items()}
    described = {name: {'class_name': f'{type(network).__module__}.{type(network).__qualname__}', 'init_kwargs': network.init_kwargs}
                 for name, network in networks.items()}
    header = {'version': VERSION, **header, 'networks': described, 'crc32': {key: checksum(value) for key, value in tensors.items()}}
    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the umask allows; safetensors would let nobody else read it
        text = json.dumps(header)
        save_file(tensors, temporary, metadata={'format': 'pt', 'header': text, 'header_crc32': str(zlib.crc32(text.encode()))})
        temporary.chmod(mode)


def save_state(path: Path, state: dict) -> None:
    """Writes a training state: tensors, numbers, words, lists and dicts."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def checksum(tensor: torch.Tensor) -> int:
    """CRC-32 of a tensor's bytes."""
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy())


# ---- Reading


def load_networks(path_or_url: str | Path, device: torch.device | str = 'cpu', only: Iterable[str] | None = None) -> dict[str, Any]:
    """The networks of a snapshot, and what its header says.

    only: names out of 'G', 'D', 'G_ema' to build; None builds those that the file holds
    Returns {'G', 'D', 'G_ema': modules in eval mode without gradients, 'meta': header}; weights stored in half precision become float32.
    Raises UserError, in one line, for anything that is not a complete snapshot of this project's networks.
    """
    path = fetch(path_or_url)
    names = only if only is None else list(only)
    if legacy.is_pickle(path):
        meta, found = legacy.load(path, names)
    else:
        meta = read_header(path)
        names = list(meta['networks']) if names is None else [name for name in names if name in meta['networks']]
        tensors = read_tensors(path, meta, names)
        found = {name: _network(path, name, meta['networks'][name], _part(tensors, name)) for name in names}
    for name in only or ():
        if name not in found:
            raise UserError(f'{path}: holds {", ".join(meta["networks"])}, not {name}')
    return {'meta': meta, **{name: network.eval().requires_grad_(False).to(device) for name, network in found.items()}}


@dataclasses.dataclass(frozen=True)
class Weights:
    """A network file: its header, the shapes of its tensors by full key, and what gives the tensors of some of its networks.

    mapping_lr: {network: how much slower than the rest its mapping network learns, by which its weights are stored larger}
    """

    meta: dict[str, Any]
    shapes: dict[str, list[int]]
    tensors: Callable[[Iterable[str]], dict[str, torch.Tensor]]
    mapping_lr: dict[str, float]


def open_weights(path: Path) -> Weights:
    """A snapshot or a pickle, to take some of its tensors. Raises UserError."""
    if legacy.is_pickle(path):
        meta, networks = legacy.load(path)
        values = {f'{name}.{key}': value for name, network in networks.items() for key, value in network.state_dict().items()}
        rates = {name: mapping_lr(network.init_kwargs) for name, network in networks.items()}
        return Weights(meta, {key: list(value.shape) for key, value in values.items()},
                       lambda names: {key: value for key, value in values.items() if key.partition('.')[0] in names}, rates)
    meta = read_header(path)
    with safe_open(path, framework='pt') as file:
        shapes = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}
    return Weights(meta, shapes, lambda names: read_tensors(path, meta, names), _mapping_lr(path, meta))


def mapping_lr(init_kwargs: dict[str, Any]) -> float:
    """How much slower than the rest the mapping network of a network with these constructor arguments learns."""
    return float((init_kwargs.get('mapping_kwargs') or {}).get('lr_multiplier', SLOW_MAPPING))


def _mapping_lr(path: Path, meta: dict[str, Any]) -> dict[str, float]:
    """Weights.mapping_lr by a header. Raises UserError."""
    found = {}
    for name, network in meta['networks'].items():
        try:
            found[name] = mapping_lr(network['init_kwargs'])
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            found[name] = 0.0
        if not 0 < found[name] < math.inf:
            raise UserError(f'{path}: the header is damaged, the mapping network of {name}: take another snapshot')
    return found


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a network file, checked. Raises UserError."""
    if path.is_dir():
        raise UserError(f'{path} is a folder: give a network-snapshot-*.safetensors file in it')
    try:
        with safe_open(path, framework='pt') as file:
            metadata = file.metadata() or {}
    except (SafetensorError, ValueError) as err:
        raise UserError(f'{path}: {_damage(path)} ({" ".join(str(err).split())}): take another snapshot') from None
    if 'header' not in metadata:
        raise UserError(f'{path} is a safetensors file, but not a snapshot of this project: its metadata has no header')
    crc = str(zlib.crc32(metadata['header'].encode()))
    if metadata.get('header_crc32', crc) != crc:  # not in older files
        raise UserError(f'{path}: the header is damaged (wrong checksum): take another snapshot')
    try:
        meta = json.loads(metadata['header'])
        version = int(meta['version'])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UserError(f'{path}: the header is damaged: take another snapshot') from None
    if version > VERSION:
        raise UserError(f'{path} was written in format {version} and this version reads up to {VERSION}: update the code')
    for key, kind in (('networks', dict), ('dataset', dict), ('recipe', dict), ('crc32', dict), ('cfg', str), ('kimg', (int, float))):
        if not isinstance(meta.get(key), kind):
            raise UserError(f'{path}: the header is damaged, {key!r} is missing: take another snapshot')
    data = meta['dataset']
    for where, value, kind in (('images', meta.get('images', 0), int), ('kimg', meta['kimg'], (int, float)),
                               *((f'dataset.{key}', data.get(key, 0), int) for key in ('resolution', 'channels', 'label_dim')),
                               *((f'dataset.{key}', data.get(key, ''), str) for key in ('path', 'digest')),
                               *((f'dataset.{key}', data.get(key) or [], list) for key in ('classes', 'class_sizes'))):
        if not isinstance(value, kind) or isinstance(value, (int, float)) and not 0 <= value <= LARGEST:
            raise UserError(f'{path}: the header is damaged, {where} is {str(value)[:40]!r}: take another snapshot')
    if not all(isinstance(name, str) for name in data.get('classes') or []) or not meta['networks'].keys() <= {'G', 'D', 'G_ema'}:
        raise UserError(f'{path}: the header is damaged, the names of classes or networks: take another snapshot')
    meta['dataset'] = data = {'path': 'unknown', 'digest': '', 'resolution': 0, 'channels': 0, 'label_dim': 0, 'classes': None,
                              'class_sizes': None, **data}
    sizes = data['class_sizes']
    if sizes and (len(sizes) != data['label_dim'] or not all(type(size) is int and 0 <= size <= LARGEST for size in sizes)):
        raise UserError(f'{path}: the header is damaged, dataset.class_sizes: take another snapshot')
    return meta


def _damage(path: Path) -> str:
    """Which part of a file that safetensors cannot open is damaged."""
    with open(path, 'rb') as file:
        start = file.read(8)
        size = path.stat().st_size
        length = struct.unpack('<Q', start)[0] if len(start) == 8 else 0
        if not 2 <= length <= 100_000_000 or (text := file.read(1)) != b'{':
            return 'not a safetensors file'
        text += file.read(min(length, size) - 1)
    try:
        header = json.loads(text)
        ends = sorted((entry['data_offsets'][1], key) for key, entry in header.items() if key != '__metadata__')
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return 'the header is damaged or cut off'
    cut = [key for end, key in ends if 8 + length + end > size]
    return f'cut off in the tensor {cut[0]!r}' if cut else 'the header does not fit the data'


def read_tensors(path: Path, meta: dict, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """The tensors of some of a file's networks by full key, checked against the checksums of the header. Raises UserError."""
    tensors = {}
    with safe_open(path, framework='pt') as file:
        for key in file.keys():
            if key.partition('.')[0] in names:
                try:
                    tensors[key] = file.get_tensor(key)
                except (SafetensorError, RuntimeError, ValueError) as err:
                    raise UserError(f'{path}: the tensor {key[:100]!r} cannot be read ({" ".join(str(err).split())[:100]})') from None
                if tensors[key].dtype not in TYPES:
                    raise UserError(f'{path}: the tensor {key[:100]!r} is of a type that networks do not have, {tensors[key].dtype}')
                if meta['crc32'].get(key) != checksum(tensors[key]):
                    raise UserError(f'{path}: the tensor {key!r} is damaged (wrong checksum): take another snapshot')
                if tensors[key].is_floating_point() and not tensors[key].isfinite().all():
                    raise UserError(f'{path}: the tensor {key!r} holds numbers that are infinite or NaN: take an earlier snapshot')
    return tensors


def _part(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The state dict of one network."""
    return {key.removeprefix(f'{name}.'): value for key, value in tensors.items() if key.startswith(f'{name}.')}


def _network(path: Path, name: str, description: Any, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """A network from its entry in the header, of a class that is known to be harmless, with its weights."""
    if not isinstance(description, dict) or not isinstance(description.get('init_kwargs'), dict):
        raise UserError(f'{path}: the header is damaged, the entry of {name}: take another snapshot')
    where = f'{path}: {name}'
    return load_weights(built(str(description.get('class_name')), description['init_kwargs'], state, where), state, where)


def load_pair(network: Path, networks: dict[str, torch.nn.Module]) -> dict[str, Any]:
    """Loads a snapshot's weights into networks that are there already, and returns its training state, as `state.expect_state` wants it.

    Raises UserError.
    """
    tensors, state = read_pair(network, networks)
    for name, module in networks.items():
        weights = _part(tensors, name)
        expect_same_tensors(module, weights, f'{network}: {name}')
        load_weights(module, weights, f'{network}: {name}')
    return state


def read_pair(network: Path, names: Iterable[str] | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors by full key, training state) of a snapshot, all checksums verified. Raises UserError.

    names: of the networks, None takes all
    """
    meta = read_header(network)
    tensors = read_tensors(network, meta, list(meta['networks'] if names is None else names))
    path = state_path(network)
    if not path.is_file():
        raise UserError(f'{network} has no {path.name} beside it, so it cannot be resumed: start anew with --init-from={network}')
    state = read_state(path)
    if state.get('images') != meta.get('images'):
        raise UserError(f'{path} is of another step than {network.name}: remove both and resume from the snapshot before')
    return tensors, state
