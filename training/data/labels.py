"""The labels of a data set: its dataset.json, {"labels": [[name, class index or vector], ...], "classes": [name, ...]}. No torch.

The layout of stylegan2-ada-pytorch; "classes" is optional. Names are relative to the folder that holds the dataset.json. Beside classes
that are clusters (training.clusters) is "looks": [[number, ...], ...], what the pictures of each look like.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dnnlib.util import UserError

SEPARATOR = '/'  # 'animals/3' is a class in the group 'animals', 'animals/bird' is not


@dataclass(frozen=True)
class Labels:
    """What dataset.json says: the class index (or vector) of each name, and the classes' names where it has them.

    up_to:    how many images have a class up to this one, for each class; None where that takes a look at every image
    complete: whether every image is known to have a label
    """

    by_name: Mapping[str, int | tuple[float, ...]]
    dim: int  # number of classes, or length of the vectors
    classes: list[str] | None
    up_to: Sequence[int] | None = None
    complete: bool = False
    looks: list[list[float]] | None = None  # of each class, as many numbers for all; None where dataset.json has none

    @property
    def vectors(self) -> bool:
        """Whether labels are lists of numbers, and no classes."""
        return isinstance(next(iter(self.by_name.values())), tuple)

    @property
    def groups(self) -> list[int]:
        """The group of each class by number: that of 'animals/3' is 'animals', a class that is no cluster is a group of its own."""
        names = [str(index) for index in range(self.dim)] if self.classes is None else self.classes
        places = {}
        return [places.setdefault(group_of(name), len(places)) for name in names]


def group_of(name: str) -> str:
    """'animals' for the class 'animals/3', which is a cluster of it; the name itself for any other class."""
    group, _, number = name.rpartition(SEPARATOR)
    return group if group and number.isdecimal() else name


def groups_in(classes: Iterable[str] | None) -> dict[str, list[int]]:
    """{group: the places of its classes}, in order; a class that is no cluster is a group of its own."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(classes or []):
        found.setdefault(group_of(name), []).append(place)
    return found


def parse_labels(data: bytes, folder: str, where: str) -> Labels | None:
    """The labels in a dataset.json, or None when it has none. Raises UserError if it is malformed.

    data: its content;  folder: the one it is in, 'some/folder/' or '';  where: what messages call it
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as err:
        raise UserError(f'{where} is not valid JSON ({err}): make it again, or remove it to train without labels') from err
    if not isinstance(content, dict):
        raise UserError(f'{where} must hold an object {{"labels": [[name, class], ...]}}')
    labels = _from_pairs(content.get('labels'), content.get('classes'), folder, where)
    return labels and replace(labels, looks=parse_looks(content.get('looks'), labels.classes, where))


def _from_pairs(pairs: object, classes: object, prefix: str, where: str) -> Labels | None:
    """Labels out of the "labels" and "classes" of a dataset.json; `prefix` is the folder that its names are relative to."""
    if pairs is None:
        return None
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise UserError(f'{where}: "labels" must be a list of [name, class index or vector]')
    if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise UserError(f'{where}: "classes" must be a list of names')
    by_name = {prefix + name.replace('\\', '/'): tuple(label) if isinstance(label, list) else label for name, label in pairs}
    if not by_name:
        return None
    if len(by_name) < len(pairs):
        named = {}
        for name, label in pairs:
            if named.setdefault(name, label) != label:
                raise UserError(f'{where}: {name} has two labels, {json.dumps(named[name])} and {json.dumps(label)}: remove one')
    first = next(iter(by_name.values()))
    for name, label in by_name.items():
        if isinstance(first, tuple):
            right = isinstance(label, tuple) and len(label) == len(first) > 0 and all(map(_is_number, label))
            wanted = f'a vector of {len(first)} numbers like the first'
        else:
            right = type(label) is int and 0 <= label < (len(classes) if classes else 1 << 20)
            wanted = f'a class index from 0 to {len(classes) - 1}' if classes else 'a class index from 0 or a vector of numbers'
        if not right:
            raise UserError(f'{where}: the label of {name} is {json.dumps(label)}: it must be {wanted}')
    if isinstance(first, tuple):
        if classes and len(classes) != len(first):
            raise UserError(f'{where}: "classes" names {len(classes)}, but labels are vectors of {len(first)}: name each number or none')
        return Labels(by_name, len(first), classes)
    return Labels(by_name, len(classes) if classes else 1 + max(by_name.values()), classes)


def parse_looks(looks: object, classes: list[str] | None, where: str) -> list[list[float]] | None:
    """The "looks" of a file that `where` names, beside these "classes". Raises UserError if they are malformed."""
    if looks is None:
        return None
    if not (isinstance(looks, list) and all(isinstance(row, list) and row and all(map(_is_number, row)) for row in looks)
            and len(looks) == len(classes or ()) and len({len(row) for row in looks}) == 1):
        raise UserError(f'{where}: "looks" must be a list of numbers for each of the "classes", as many for all: make it again with '
                        'dataset_tool.py cluster, or remove it')
    return looks


def _is_number(value: object) -> bool:
    """Whether a value is a number that float32 holds: JSON has Infinity, NaN and numbers of any length."""
    return type(value) in (int, float) and abs(value) < 1e30
