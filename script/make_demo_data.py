#!/usr/bin/env python3
"""Makes assets/demo.zip: all Fluent 3D emoji at 64x64 on white, with their Unicode group as class.

Reads the npm package @lobehub/fluent-emoji-3d (the images, MIT), fetched with `npm pack` or given as a file, and Unicode's emoji-test.txt
(which emoji belongs to which group), Debian's package unicode-data. The same two and the same Pillow give the same zip, byte for byte.

The images are AVIF with colour at full resolution: at 64x64, WebP's halved colour shows as grey seams between saturated colours.
"""

import hashlib
import io
import json
import re
import subprocess
import tarfile
import tempfile
import unicodedata
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
from PIL import Image

IMAGES = ('@lobehub/fluent-emoji-3d@1.1.0', 'c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58')
GROUPS = '/usr/share/unicode/emoji/emoji-test.txt'
CLASSES = {'smileys': 'Smileys & Emotion', 'people': 'People & Body', 'animals': 'Animals & Nature', 'food': 'Food & Drink',
           'travel': 'Travel & Places', 'activities': 'Activities', 'objects': 'Objects', 'symbols': 'Symbols', 'flags': 'Flags'}
DEST = Path(__file__).resolve().parents[1] / 'assets' / 'demo.zip'


def fetch(given: str | None) -> dict[str, bytes]:
    """The images of the npm package by code points; `given` is its tarball where it has been fetched already."""
    name, sha256 = IMAGES
    with tempfile.TemporaryDirectory() as folder:
        if given is None:
            subprocess.run(['npm', 'pack', '--silent', name], cwd=folder, check=True, stdout=subprocess.DEVNULL)
            given = next(Path(folder).glob('*.tgz'))
        data = Path(given).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise click.ClickException(f'{given} is not {name}: its SHA-256 is not {sha256}')
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {Path(member.name).stem: tar.extractfile(member).read() for member in tar if member.name.endswith('.webp')}


def code_points(text: str) -> tuple[int, ...]:
    """The code points of '1f3f4-e0067_e0062' or '1F468 200D 1F4BB', without variation selectors and the tag that ends a flag's name."""
    points = (int(point, 16) for point in re.split('[-_ ]', text))
    return tuple(point for point in points if point not in (0xFE0F, 0xE007F))


def read_groups(text: str) -> dict[tuple[int, ...], tuple[str, str]]:
    """(group, name) of every emoji in an emoji-test.txt, by code points."""
    found, group = {}, ''
    for line in text.splitlines():
        if line.startswith('# group:'):
            group = line.partition(':')[2].strip()
        elif match := re.match(r'([0-9A-F ]+?) *; .* E\d+\.\d+ (.*)', line):
            found.setdefault(code_points(match[1]), (group, match[2]))
    return found


def slug(name: str) -> str:
    """'flag: Côte d’Ivoire' -> 'flag_cote_divoire'."""
    spoken = name.replace('#', ' hash ').replace('*', ' asterisk ')
    plain = unicodedata.normalize('NFKD', spoken).encode('ascii', 'ignore').decode().lower()
    return '_'.join(re.findall('[a-z0-9]+', plain))


def on_white(data: bytes, size: int) -> Image.Image:
    """An emoji composited on white, made square, at size x size."""
    picture = Image.open(io.BytesIO(data)).convert('RGBA')
    side = max(picture.size)
    white = Image.new('RGBA', (side, side), 'white')
    white.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return white.convert('RGB').resize((size, size), Image.Resampling.LANCZOS)


def packed(picture: Image.Image, quality: int) -> bytes:
    """A picture as AVIF."""
    out = io.BytesIO()
    picture.save(out, 'avif', quality=quality, subsampling='4:4:4', speed=4, max_threads=1, advanced={'tune': 'ssim'})
    return out.getvalue()


def names_of(points: list[str], groups: dict[tuple[int, ...], tuple[str, str]]) -> dict[str, tuple[str, int]]:
    """{code points: (name in the zip without its ending, class)}; the package has some emoji twice, the second gets a number."""
    folders = {group: (folder, index) for index, (folder, group) in enumerate(CLASSES.items())}
    found, taken = {}, {}
    for each in sorted(points):
        group, name = groups[code_points(each)]
        folder, index = folders[group]
        path = f'{folder}/{slug(name)}'
        taken[path] = taken.get(path, 0) + 1
        found[each] = (path if taken[path] == 1 else f'{path}-{taken[path]}', index)
    return found


@click.command()
@click.option('--images', type=click.Path(exists=True), help='Tarball of the image package; else fetched by npm.')
@click.option('--groups', type=click.Path(exists=True), default=GROUPS, show_default=True, help="Unicode's emoji-test.txt.")
@click.option('--dest', type=click.Path(), default=str(DEST), show_default=True)
@click.option('--size', type=int, default=64, show_default=True)
@click.option('--quality', type=click.IntRange(1, 100), default=58, show_default=True, help='Of the AVIF files.')
@click.option('--workers', type=click.IntRange(1), default=1, show_default=True)
def main(images, groups, dest, size, quality, workers):
    """Make the demo data set out of the npm package and Unicode's list."""
    files = fetch(images)
    names = names_of(list(files), read_groups(Path(groups).read_text(encoding='utf-8')))
    with ThreadPoolExecutor(workers) as pool:
        contents = pool.map(lambda each: packed(on_white(files[each], size), quality), names)
        entries = {f'{name}.avif': content for (name, _), content in zip(names.values(), contents, strict=True)}
    labels = sorted([f'{name}.avif', index] for name, index in names.values())
    entries['dataset.json'] = json.dumps({'labels': labels, 'classes': list(CLASSES)}, indent=0).encode()
    with zipfile.ZipFile(dest, 'w') as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, entries[name], compresslevel=9)
    print(f'{dest}: {len(labels)} images, {len(CLASSES)} classes, {Path(dest).stat().st_size:,} bytes')


if __name__ == '__main__':
    main()
