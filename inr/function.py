"""One image as a file of its own, drawn at any size and in any window without the generator it came from.

    python -m inr.function seed0000.safetensors --res=1920x1080 --window=-0.389,0,1.389,1

`load` reads what fixed.Function.to_bytes makes: a safetensors file with the weights of the INR and, under 'inr_function' of its metadata, a
JSON header, the fields of fixed.Form. No code is in it.
"""

import json
import os
from dataclasses import fields
from pathlib import Path

import torch

from inr import REFINEMENTS, render
from inr.fixed import ACTIVATIONS, EXTENT_VERSION, METADATA, VERSION, BlockForm, Form, Function, NoFunction
from inr.refinement import UPSAMPLINGS

# ---- Files


def load(path):
    """The Function in a file. Raises FileNotFoundError and the like, NoFunction for a file that holds none or is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, 'pt') as file:
            header = (file.metadata() or {}).get(METADATA)
            if header is None:
                raise NoFunction(f'{path}: holds no function; generate.py --format=function writes such files')
            form = _form(json.loads(header))
            wanted = {f'b{block.name}.{name}': shape for block in form.blocks
                      for name, shape in block.shapes(form.img_channels, form.extent).items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  a file is no dict
        found = {name: tuple(value.shape) for name, value in tensors.items()}
        if wrong := [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]:
            raise NoFunction(f'{wrong[0]} is missing, left over or of another shape than its header says')
        return Function(form, tensors).eval()
    except NoFunction as error:
        raise NoFunction(str(error) if str(path) in str(error) else f'{path}: {error}') from None
    except (SafetensorError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as error:  # of other kinds
        raise NoFunction(f'{path}: not a file of generate.py --format=function, or damaged ({error})') from None


def _form(header):
    """Form out of JSON. Raises NoFunction for a version, an option or numbers that cannot be, else what Python does."""
    if header.get('version') not in (VERSION, EXTENT_VERSION):
        raise NoFunction(f'version {header.get("version")} of the format; this program reads {VERSION} and {EXTENT_VERSION}')
    known = {field.name for field in fields(Form)}
    form = Form(**{key: value for key, value in header.items() if key in known})
    for given, choices in ((form.upsampling, UPSAMPLINGS), (form.activation, ACTIVATIONS), (form.refine, REFINEMENTS)):
        if given not in choices:
            raise NoFunction(f'{given!r} is not known; known are {", ".join(choices)}')
    for name, count in (('window', 4), ('extent', 2)):
        given = getattr(form, name)
        if len(given) != count or not all(type(each) in (int, float) and (each > 0 or name == 'window') for each in given):
            raise NoFunction(f'{name} is {str(given)[:40]}')
    lists = {'blocks': [BlockForm(**block) for block in form.blocks], 'window': tuple(form.window)}
    lists |= {'periodic': tuple(form.periodic), 'extent': tuple(form.extent)}
    return Form(**{**vars(form), **lists})


# ---- The command


def main(args=None):
    """python -m inr.function: draws a file, a mistake is one line and exit code 2."""
    import argparse
    import sys

    class Parser(argparse.ArgumentParser):
        def error(self, message):
            print(f'Error: {message}', file=sys.stderr)
            sys.exit(2)

    def size(text):
        width, _, height = text.lower().partition('x')
        return int(width), int(height or width)

    def window(text):
        return tuple(float(part) for part in text.split(','))

    parser = Parser(prog='python -m inr.function', description='Draw an image that generate.py --format=function wrote, at any size.')
    parser.add_argument('file')
    parser.add_argument('--res', type=size, metavar='N|WxH', help='pixels; as trained if left out')
    parser.add_argument('--window', type=window, metavar='x0,y0,x1,y1', help='part of the plane; 0,0,1,1 is the trained image')
    parser.add_argument('--refine', choices=REFINEMENTS, help='see generate.py')
    parser.add_argument('--out', metavar='FILE', help='picture to write; FILE.png next to the file if left out')
    given = parser.parse_args(args)
    try:
        function = load(given.file)
        width, height = given.res or function.img_size
        window = given.window or function.form.window
        if len(window) != 4:
            raise ValueError('--window: write x0,y0,x1,y1 such as -0.5,-0.5,1.5,1.5')
        out = Path(given.out or Path(given.file).with_suffix('.png'))
        _write(out, function, height, width, window, given.refine)
    except (OSError, ValueError) as error:
        parser.error(' '.join(str(error).split()))
    print(out)


def _write(path, function, height, width, window, refine):
    import numpy as np
    from PIL import Image

    pixels = np.empty([height, width, function.img_channels], np.uint8)
    for row, band in render.bands(function, function.ws, height, width, window, refine or function.form.refine):
        drawn = (band * 127.5 + 128).clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0)  # as torch_utils.pixels, which stays behind
        pixels[row : row + len(drawn)] = drawn.numpy()
    temporary = path.with_name(f'.tmp-{os.getpid()}-{path.name}')
    try:
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == '__main__':
    main()
