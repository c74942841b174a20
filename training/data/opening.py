"""From what --data says to the images: a zip or folder, several of them as one set, shards of a folder, a list or an address. No torch."""

import glob
import hashlib
import os
from collections.abc import Sequence

from dnnlib.util import UserError
from training.data.files import ImageFiles, resolve
from training.data.labels import Labels
from training.data.ranges import is_url
from training.data.shards import INDEX, ShardFiles


class SeveralFiles:
    """Several zips or folders as one set, one after the other; has what `files.ImageFiles` has.

    path: what the user gave;  paths: of each. A picture is called PATH/NAME. Classes are those that all of them name alike.
    """

    is_zip = whole_blocks = False
    most_checked = 2000
    block = 256  # images of a zip that are read one after another

    def __init__(self, path: str, paths: Sequence[str]):
        self.path = path
        self.parts = [ImageFiles(each) for each in paths]
        self._place = {f'{part.path}/{name}': (part, name) for part in self.parts for name in part.names}
        self.names = list(self._place)
        self.others = [f'{part.path}/{name}' for part in self.parts for name in part.others]

    @property
    def title(self) -> str:
        """What runs on this set are called."""
        return f'{self.parts[0].title}-and-{len(self.parts) - 1}-more' if len(self.parts) > 1 else self.parts[0].title

    def conversion_command(self, resolution: int = 256) -> str:
        """The command that makes data that training can take out of one of these."""
        return self.parts[0].conversion_command(resolution)

    def labels(self) -> Labels | None:
        """Those of all parts; None where none has any. Raises UserError where they do not fit together."""
        found = [(part, part.labels()) for part in self.parts]
        labelled = [(part, labels) for part, labels in found if labels is not None]
        if not labelled:
            return None
        if len(labelled) < len(found):
            bare = next(part for part, labels in found if labels is None)
            raise UserError(f'{bare.path} has no labels and {labelled[0][0].path} has: give labels to both or to none')
        first, whole = found[0]
        for part, labels in found:
            vectors = [each.vectors for each in (whole, labels)]
            if labels.classes != whole.classes or vectors[0] != vectors[1] or vectors[0] and labels.dim != whole.dim:
                raise UserError(f'the labels of {part.path} are not of the kind of those of {first.path}: other classes, or other numbers')
        by_name = {f'{part.path}/{name}': label for part, labels in found for name, label in labels.by_name.items()}
        looks = whole.looks if all(labels.looks == whole.looks for _, labels in found) else None
        return Labels(by_name, max(labels.dim for _, labels in found), whole.classes, looks=looks)

    def least_side(self) -> int | None:
        """See `files.ImageFiles.least_side`; the least of all parts. Raises UserError where only some keep their size."""
        sides = [part.least_side() for part in self.parts]
        if len({side is None for side in sides}) > 1:
            raise UserError(f'{self.path}: some of these keep the size of their pictures (convert --native), others do not: give one kind')
        return None if sides[0] is None else min(sides)

    def left_out(self) -> list[tuple[str, str]]:
        """(name, reason) of other files that may be pictures."""
        return [(f'{part.path}/{name}', reason) for part in self.parts for name, reason in part.left_out()]

    def read(self, name: str) -> bytes:
        """A picture's file, whole. Raises BadImage."""
        part, inner = self._place[name]
        return part.read(inner)

    def header(self, name: str) -> tuple[int, int, int]:
        """(width, height, channels) of a picture. Raises BadImage."""
        part, inner = self._place[name]
        return part.header(inner)

    def digest(self, labels: Labels | None) -> str:
        """SHA-256 (hex) over the digests of the parts."""
        return hashlib.sha256(' '.join(part.digest(labels and part.labels()) for part in self.parts).encode()).hexdigest()

    def close(self) -> None:
        """Closes the zips."""
        for part in self.parts:
            part.close()


Files = ImageFiles | ShardFiles | SeveralFiles


def open_files(place: str | os.PathLike, sparse: bool = False) -> Files:
    """The images of a place: zip, folder, index.json of shards or a folder with one, several zips or tars ('a.zip,b.zip', 'x/*.tar').

    sparse: few of the images will be read, so their neighbours are not fetched with them
    Raises UserError for a place that is none of these.
    """
    text = str(place)
    if is_url(text):
        if not text.partition('?')[0].endswith('.json'):
            raise UserError(f'{text}: of a network only shards are read: give the address of their {INDEX}')
        return ShardFiles(text, sparse=sparse)
    paths = several(text)
    if paths is None:
        path = resolve(place)
        if path.suffix == '.json':
            return ShardFiles(text, sparse=sparse)
        if path.is_dir() and (path / INDEX).is_file() and next(path.glob('*.tar'), None):
            return ShardFiles(str(path / INDEX), sparse=sparse)
        if path.suffix != '.tar':
            return ImageFiles(path)
        paths = [text]
    if not paths:
        raise UserError(f'{text}: no file has such a name; put it in quotes, and give zips or the tars of shards')
    if not all(path.endswith('.tar') for path in paths):
        if any(path.endswith('.tar') for path in paths):
            raise UserError(f'{text} names zips and tars: give one kind')
        return SeveralFiles(text, paths)
    return _of_tars(text, paths, sparse)


def _of_tars(text: str, paths: Sequence[str], sparse: bool) -> ShardFiles:
    folders = {os.path.dirname(path) for path in paths}
    if len(folders) > 1:
        raise UserError(f'{text} names tars of {len(folders)} folders: put them into one, with one {INDEX}')
    index = os.path.join(folders.pop(), INDEX)
    if not os.path.isfile(paths[0]):
        raise UserError(f'{paths[0]} does not exist')
    if not os.path.isfile(index):
        raise UserError(f"{text} needs an {INDEX} beside it: python dataset_tool.py index '{text}' makes it")
    return ShardFiles(index, [os.path.basename(path) for path in paths], sparse)


def several(text: str) -> list[str] | None:
    """The paths in a list with commas or a pattern with * ? [, sorted within each pattern; None for one plain path."""
    if is_url(text) or os.path.exists(text) or not any(sign in text for sign in ',*?['):
        return None
    found = []
    for part in filter(None, (part.strip() for part in text.split(','))):
        found += sorted(glob.glob(part)) if any(sign in part for sign in '*?[') else [part]
    return list(dict.fromkeys(found))


def absolute(place: str | os.PathLike) -> str:
    """The same place from wherever a program runs."""
    text = str(place)
    if is_url(text):
        return text
    if several(text) is None:
        return str(resolve(place).absolute())
    return ','.join(os.path.abspath(part.strip()) for part in text.split(',') if part.strip())


def is_missing(place: str | os.PathLike) -> bool:
    """Whether there is nothing at a place; an address is only known when it is read."""
    text = str(place)
    if is_url(text):
        return False
    paths = several(text)
    return not resolve(place).exists() if paths is None else not paths or not all(map(os.path.exists, paths))
