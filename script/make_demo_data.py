#!/usr/bin/env python3
"""Makes assets/demo.zip: Fluent 3D emoji at 64x64 on white, with their Unicode group as class.

Reads two npm packages, fetched with `npm pack` or given as files: @lobehub/fluent-emoji-3d (the images, MIT) and unicode-emoji-json (which
emoji belongs to which group, MIT). The same packages and the same Pillow give the same zip, byte for byte.
"""

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

import click
from PIL import Image

IMAGES = ('@lobehub/fluent-emoji-3d@1.1.0', 'c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58')
GROUPS = ('unicode-emoji-json@0.9.0', 'ae7efacb55533385bf8767d613dbd36c71226669759d95919a6e9059f5e4c401')
CLASSES = {'smileys': 'Smileys & Emotion', 'animals': 'Animals & Nature', 'food': 'Food & Drink', 'activities': 'Activities'}
DEST = Path(__file__).resolve().parents[1] / 'assets' / 'demo.zip'


def fetch(package: tuple[str, str], given: str | None) -> dict[str, bytes]:
    """The files of an npm package by their path in it; `given` is its tarball where it has been fetched already."""
    name, sha256 = package
    with tempfile.TemporaryDirectory() as folder:
        if given is None:
            subprocess.run(['npm', 'pack', '--silent', name], cwd=folder, check=True, stdout=subprocess.DEVNULL)
            given = next(Path(folder).glob('*.tgz'))
        data = Path(given).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise click.ClickException(f'{given} is not {name}: its SHA-256 is not {sha256}')
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name.removeprefix('package/'): tar.extractfile(member).read() for member in tar if member.isfile()}


def file_of(emoji: str, files: dict[str, bytes]) -> str | None:
    """The image of an emoji: files are named by code points, some without the variation selector fe0f."""
    points = [f'{ord(point):04x}' for point in emoji]
    for candidate in (points, [point for point in points if point != 'fe0f'], [*points, 'fe0f']):
        name = f'assets/{"-".join(candidate)}.webp'
        if name in files:
            return name
    return None


def small(data: bytes, size: int, quality: int) -> bytes:
    """An emoji composited on white, at size x size, as WebP."""
    picture = Image.open(io.BytesIO(data)).convert('RGBA')
    white = Image.new('RGBA', picture.size, 'white')
    picture = Image.alpha_composite(white, picture).convert('RGB').resize((size, size), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, 'webp', quality=quality, method=6)
    return out.getvalue()


@click.command()
@click.option('--images', type=click.Path(exists=True), help='Tarball of the image package; else fetched by npm.')
@click.option('--groups', type=click.Path(exists=True), help='Tarball of the package that knows the groups; else fetched by npm.')
@click.option('--dest', type=click.Path(), default=str(DEST), show_default=True)
@click.option('--size', type=int, default=64, show_default=True)
@click.option('--quality', type=click.IntRange(1, 100), default=90, show_default=True, help='Of the WebP files.')
def main(images, groups, dest, size, quality):
    """Make the demo data set from the two npm packages."""
    files = fetch(IMAGES, images)
    emojis = json.loads(fetch(GROUPS, groups)['data-by-emoji.json'])
    entries, labels = {}, []
    for index, (folder, group) in enumerate(CLASSES.items()):
        for emoji, about in emojis.items():
            source = file_of(emoji, files) if about['group'] == group else None
            if source is not None:
                name = f'{folder}/{about["slug"]}.webp'
                entries[name] = small(files[source], size, quality)
                labels.append([name, index])
    entries['dataset.json'] = json.dumps({'labels': sorted(labels), 'classes': list(CLASSES)}, indent=0).encode()
    with zipfile.ZipFile(dest, 'w') as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED if name.endswith('.json') else zipfile.ZIP_STORED
            archive.writestr(info, entries[name])
    print(f'{dest}: {len(labels)} images, {len(CLASSES)} classes, {Path(dest).stat().st_size:,} bytes')


if __name__ == '__main__':
    main()
