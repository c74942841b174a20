"""Starting a run from another's weights, --init-from: what is taken, what is not and why.

A tensor is taken where its name and shape are those of the network to train. Of another number of image channels or label inputs the common
part is taken; the rest, blocks of higher resolutions for example, stays as it was initialized. G and its average stand in for each other.
A network's method place(key, shapes), if it has one, says where a tensor of another shape stands in its own, as an object that can
fill(own, tensor) (inr/widening.py).

Classes are known by their names: one begins as the file's class of its name, or as that of the group it is in ('animals/bird': 'animals').
A cluster that the file has not, or of a set that was divided otherwise than the file's, begins as the mean of its group's clusters and
half as it looks.

Of a smaller network nothing learned is lost: to-RGB of the blocks that G has beyond it begin at zero, as where a run grows, and its D's
from-RGB becomes the `entry` of the block of its size, where a run that grows fades the next block in (and the other way round).
"""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dnnlib.util import UserError, fetch
from training import checkpoint, growing, plugins
from training.config import Config
from training.data.labels import group_of, groups_in
from training.options import DataConfig
from training.presets import at_resolution

SOURCES = {'G': ('G', 'G_ema'), 'G_ema': ('G_ema', 'G'), 'D': ('D',)}
RAMPUP = 0.25  # half-life of the average, at most this share of the new run's images
LEAST = 0.1  # of the numbers in G's parameters, below which starting from them is starting anew
CUT = {r'(.*\.)?torgb\.(weight|bias)': 0, r'(.*\.)?(fromrgb|entry)\.weight': 1, r'mapping\.fc0\.weight': 1}  # what may differ
MAPPING = re.compile(r'mapping\.fc\d+\.(weight|bias)')  # what is stored the larger the slower it learns
EMBEDS = {'mapping.embed.weight': 1, 'mapping.embedding': 0}  # the dimension that label inputs are


@dataclass(frozen=True)
class Classes:
    """The classes of a run's data.

    names: None where they have none;  sizes: how many images each has, None where it is not known
    looks: whether they are clusters that are known by their looks;  part: whether the run has a part of its set alone
    """

    names: list[str] | None = None
    sizes: list[int] | None = None
    looks: bool = False
    part: bool = False

    @staticmethod
    def of(data: DataConfig, looks: bool) -> 'Classes':
        return Classes(data.classes, data.class_sizes, looks, data.subset is not None)


@dataclass(frozen=True)
class Taken:
    """What a network gets from a file. source: the name it has there, None for none; the lists hold keys; numbers, of: in parameters.

    classes: {key: `columns`} of tensors with a column for each label input, taken by the names of classes
    means: how many of these begin as the mean of a group
    wider: keys of tensors that the network's own method `place` finds a place for
    zero: keys of to-RGB that the file's blocks have no counterpart of
    """

    network: str
    source: str | None
    whole: list[str]
    cut: list[str]
    classes: dict[str, list[int | None]]
    means: int
    wider: list[str]
    other_shape: list[str]
    absent: list[str]
    zero: list[str]
    numbers: int
    of: int

    def line(self, path: Path) -> str:
        """A line of the log."""
        if self.source is None:
            return f'{self.network}: as initialized, {path} has none'
        count = len(self.whole) + len(self.cut) + len(self.classes) + len(self.wider)
        total = count + len(self.other_shape) + len(self.absent) + len(self.zero)
        parts = [f'{self.network}: {count} of {total} tensors, {self.numbers / self.of:.0%} of its numbers, from {self.source} of {path}']
        for keys, what in ((self.cut, 'in part'), (list(self.classes), 'by the names of classes'
                            + (f', {self.means} of them as the mean of a group of clusters' if self.means else '')),
                           (self.wider, 'with room for more, of which images show nothing yet'),
                           (self.other_shape, 'as initialized, since the file has another shape'),
                           (self.absent, 'as initialized, since the file has none'),
                           (self.zero, 'zero, so that the image begins as the smaller one enlarged')):
            if keys:
                parts.append(f'{what}: {", ".join(keys[:4])}{f" and {len(keys) - 4} more" if len(keys) > 4 else ""}')
        return '; '.join(parts)


def same_division(file: dict, classes: Classes) -> bool:
    """Whether a run's clusters are those of a file, as far as sizes say: k-means numbers the clusters of any set.

    Nine in ten of those in groups of the file must be there and have as many images, or at most as many where the run has a part of its
    set. True where the run has no clusters, or sizes are not known.

    file: what its header says of its data
    """
    names, sizes = file['classes'], file.get('class_sizes')
    if not (classes.looks and classes.names and classes.sizes and names and sizes and len(names) == len(sizes)):
        return True
    there = dict(zip(names, sizes, strict=True))
    groups = {group_of(name) for name in there if group_of(name) != name}
    own = [(name, size) for name, size in zip(classes.names, classes.sizes, strict=True) if name != group_of(name) in groups]
    same = [there.get(name, -1) >= size if classes.part else there.get(name) == size for name, size in own]
    return sum(same) >= 0.9 * len(same)


def columns(there: int, here: int, their_classes: list[str] | None, classes: list[str] | None, same: bool = True) -> list[int | None]:
    """Of each of `here` label inputs that of the file's `there` which it begins as, None for none.

    From `there` on they count the groups of the file's classes, whose mean a cluster begins as that the file has not.

    their_classes, classes: names of the first of these inputs, or None; D of a run on windows has more behind them
    same: whether clusters of one name are the same
    """
    their_classes, names = their_classes or [], classes or []
    known = {group: there + number for number, group in enumerate(groups_in(their_classes))}
    known |= {name: place for place, name in enumerate(their_classes) if same or group_of(name) == name}
    found = []
    for name in names:
        while name and name not in known:
            name = name.rpartition('/')[0]
        found.append(known.get(name))
    if all(place is None for place in found) or there - len(their_classes) != here - len(found):
        return [None] * here
    return found + list(range(len(their_classes), there))


def compare(network: str, module: torch.nn.Module, shapes: dict[str, list[int]], their_classes: list[str] | None = None,
            classes: list[str] | None = None, same: bool = True) -> Taken:
    """What a network, which may be on the meta device, gets from a file with tensors of these shapes, by full key.

    their_classes, classes: names of the file's classes and of those of the network, None where they have none
    same: whether clusters of one name are the same
    """
    source = next((name for name in SOURCES[network] if any(key.startswith(f'{name}.') for key in shapes)), None)
    own, parameters = module.state_dict(), dict(module.named_parameters())
    found = Taken(network, source, [], [], {}, 0, [], [], [], [], 0, sum(p.numel() for p in parameters.values()))
    names, numbers, means = _own_names(source, shapes), 0, 0
    for key, value in own.items():
        shape = shapes.get(_there(source, key, shapes))
        inputs = EMBEDS.get(key)
        by_name = (inputs is not None and shape is not None and shape[1 - inputs] == value.shape[1 - inputs]
                   and (their_classes != classes or not same))
        places = columns(shape[inputs], value.shape[inputs], their_classes, classes, same) if by_name else []
        known = sum(place is not None for place in places)
        if shape is None:
            found.absent.append(key)
        elif known:
            found.classes[key] = places
            means = sum(place is not None and place >= shape[inputs] for place in places)
            numbers += value.shape[1 - inputs] * known
        elif shape == list(value.shape):
            found.whole.append(key)
            numbers += value.numel() if key in parameters else 0
        elif _may_be_cut(key, shape, list(value.shape)):
            found.cut.append(key)
            numbers += value[_common(shape, value)].numel()
        elif hasattr(module, 'place') and module.place(key, names) is not None:
            found.wider.append(key)
            numbers += math.prod(shape) if key in parameters else 0
        else:
            found.other_shape.append(key)
    drawn = max((_torgb_size(key) for key in found.whole + found.cut), default=0)
    zero = [key for key in found.absent if _torgb_size(key) > drawn > 0]
    return replace(found, numbers=numbers, means=means, zero=zero, absent=[key for key in found.absent if key not in zero])


def _there(source: str | None, key: str, shapes) -> str:
    """The file's key for one of a network's. What D reads images of a size with is `fromrgb` at its full size and `entry` below."""
    here, there = ('.entry.', '.fromrgb.') if '.entry.' in key else ('.fromrgb.', '.entry.')
    return f'{source}.{key}' if f'{source}.{key}' in shapes else f'{source}.{key.replace(here, there)}'


def _mapping_gain(module: torch.nn.Module, there: float | None) -> float:
    """What a file's weights of the mapping network are to be multiplied by, so that w stays what it is. there: Weights.mapping_lr"""
    return 1 if there is None else there / checkpoint.mapping_lr(module.init_kwargs)


def _own_names(source: str | None, shapes: dict) -> dict:
    """Those of a file's shapes that are of a network, by its own keys."""
    return {key.removeprefix(f'{source}.'): shape for key, shape in shapes.items() if key.startswith(f'{source}.')}


def _torgb_size(key: str) -> int:
    """Resolution of the block whose to-RGB a key is of, 0 for any other key."""
    match = re.fullmatch(r'synthesis\.b(\d+)\.torgb\.(?:weight|bias)', key)
    return int(match[1]) if match else 0


def _may_be_cut(key: str, shape: list[int], own: list[int]) -> bool:
    if len(shape) != len(own):
        return False
    different = [i for i in range(len(own)) if shape[i] != own[i]]
    return any(re.fullmatch(pattern, key) and different == [dimension] for pattern, dimension in CUT.items())


def _common(shape, value: torch.Tensor) -> tuple[slice, ...]:
    return tuple(slice(min(a, b)) for a, b in zip(shape, value.shape, strict=True))


def plan(source: str | Path, weights: checkpoint.Weights, networks: dict[str, torch.nn.Module], classes: Classes) -> list[Taken]:
    """What networks get from a file. source: what messages call it; classes: those of the networks.

    Raises UserError where it is so little of G that it cannot help.
    """
    shapes, data = weights.shapes, weights.meta['dataset']
    same = same_division(data, classes)
    taken = [compare(name, module, shapes, data['classes'], classes.names, same) for name, module in networks.items()]
    for each in taken:
        if each.network == 'G' and each.numbers < LEAST * each.of:
            own = networks['G'].state_dict()
            example = next((f', such as {key}, {shapes[f"{each.source}.{key}"]} there and {list(own[key].shape)} here'
                            for key in each.other_shape), '')
            raise UserError(f'--init-from={source}: only {each.numbers / each.of:.1%} of G would be taken: {len(each.other_shape)} tensors '
                            f'have another shape{example}, {len(each.absent)} are not in the file: take the '
                            f'--cfg={weights.meta["cfg"]} that it was trained with, and its --width')
    return taken


def starting_row(source: str | Path, row: dict, resolution: int) -> dict:
    """A preset's row for a run at `resolution` from a snapshot: its average begins anew with G, so that a short run shows what it learned,
    and it does not learn again the sizes that the snapshot's networks draw. Raises UserError."""
    known = checkpoint.open_weights(fetch(source)).meta['dataset'].get('resolution', 0)
    sizes = growing.from_size(at_resolution(row.get('grow', ''), resolution), known, resolution)
    return {**row, 'ema_rampup': RAMPUP, 'grow': sizes}


def check(source: str | Path, settings: Config, looks: bool = False) -> list[str]:
    """The lines about what a new run would take, found out from shapes alone. looks: as in Classes

    Raises UserError as `plan` does, and for layers of D that are not in the file and are not to train.
    """
    with torch.device('meta'):
        G, D = plugins.build_generator(settings), plugins.build_discriminator(settings)
    taken = plan(source, checkpoint.open_weights(fetch(source)), {'G': G, 'D': D, 'G_ema': G}, Classes.of(settings.data, looks))
    whole = next(each.whole for each in taken if each.network == 'D')
    for key, _ in D.named_buffers():
        if key.endswith(('.weight', '.bias')) and key not in whole:  # a layer that does not train has them as buffers
            raise UserError(f'--freeze-d={settings.discriminator.freeze}: {source} has no D.{key} of the shape needed, so a layer as '
                            'initialized would stay as it is: give a snapshot of the same resolution and widths')
    return [each.line(Path(source)) for each in taken]


@torch.no_grad()
def load(source: str | Path, networks: dict[str, torch.nn.Module], classes: Classes = Classes()) -> list[str]:
    """Copies what fits into 'G', 'D' and 'G_ema'; returns a line for each. Raises UserError as `plan` does, and for a damaged file.

    classes: those of the networks; where they look, half of that stays in the columns that begin as their group's
    """
    weights = checkpoint.open_weights(fetch(source))
    theirs = weights.meta['dataset']['classes'] or []
    taken = plan(source, weights, networks, classes)
    tensors = weights.tensors({each.source for each in taken})
    for each in taken:
        own, names = networks[each.network].state_dict(), _own_names(each.source, weights.shapes)
        gain = _mapping_gain(networks[each.network], weights.mapping_lr.get(each.source))
        for key in each.whole + each.cut:
            value = tensors[_there(each.source, key, tensors)]
            value = value * gain if gain != 1 and MAPPING.fullmatch(key) else value
            part = _common(value.shape, own[key])
            own[key][part].copy_(value[part])
        for key, places in each.classes.items():
            ours, value = own[key].movedim(EMBEDS[key], 0), tensors[f'{each.source}.{key}'].movedim(EMBEDS[key], 0)  # [label inputs, any]
            known = [i for i, place in enumerate(places) if place is not None]
            fewer = math.sqrt(len(ours) / len(value)) if EMBEDS[key] else 1  # a layer divides by the root of its inputs
            begun, inputs = ours.clone(), len(value)
            value = torch.cat([value, *(value[members].mean(0, keepdim=True) for members in groups_in(theirs).values())])
            ours[known] = value[[places[i] for i in known]].to(ours) * fewer
            for i in known:
                if classes.looks and i < len(classes.names) and (places[i] >= inputs or theirs[places[i]] != classes.names[i]):
                    looks = begun[i] * (ours[i].norm() / begun[i].norm())  # a column grows as it learns, a look is as it began
                    ours[i] = (ours[i] + looks) / math.sqrt(2)
        for key in each.wider:
            networks[each.network].place(key, names).fill(own[key], tensors[_there(each.source, key, tensors)])
        for key in each.zero:
            own[key].zero_()
    return [each.line(Path(source)) for each in taken]
