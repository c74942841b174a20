"""Images as functions of their own, a file each, that need no generator any more: see inr/function.py."""

from pathlib import Path

from dnnlib.util import UserError, atomic_path

WHOLE_FLOATS = 2**17  # numbers of a function that a page holds in float32; more are in half precision


def _write_onnx(path, function, name, of_w=None):
    try:
        path.write_bytes(function.to_onnx(of_w))
    except ImportError as error:
        raise UserError(f"it needs a package that is not here ({error}): pip install onnx") from None
    except ValueError as error:
        raise UserError(str(error)) from None


def _write_page(path, function, name, of_w):
    from inference import pages

    if function.form.special:
        raise UserError(f'the page has no {function.form.special}; --format=function has')
    small = sum(value.numel() for value in function.tensors.values()) <= WHOLE_FLOATS
    path.write_text(pages.function(name, function.to_bytes(half=not small)), encoding='utf-8')


WRITERS = {  # format: (suffix, function of path, inr.fixed.Function, the picture's name and what it was taken of, (G, ws, noise mode))
    'function': ('safetensors', lambda path, function, name, of_w: path.write_bytes(function.to_bytes())),
    'html': ('html', _write_page),
    'onnx': ('onnx', lambda path, function, name, of_w: _write_onnx(path, function, name)),
    'onnx-w': ('w.onnx', _write_onnx),
}


def check(given):
    """Raises UserError for an option of generate.py that a function has no use for. given: {option: whether it was given}"""
    if useless := [option for option, is_given in given.items() if is_given]:
        raise UserError(f'{useless[0]}: a function has no pixels before it is drawn; leave it out, or choose a format of pictures')


def write_each(outdir, painter, codes, function_format, network):
    """A file for each of codes {name: w [1, num_ws, w_dim]} that a Painter would paint; network: its name, for the file. Prints paths."""
    suffix, write = WRITERS[function_format]
    for name, ws in codes.items():
        path = Path(outdir) / f'{name}.{suffix}'
        try:
            with atomic_path(path) as temporary:
                function = painter.function(ws, f'{name} of {network}')
                write(temporary, function, name, (painter.G, ws, painter.synthesis_options['noise_mode']))
        except UserError as error:
            raise UserError(f'--format={function_format}: {error}') from None
        print(path, flush=True)
