"""Pages of one file that a browser shows without a network: put together from web/.

The page of a function draws by WebAssembly with 128-bit SIMD, in workers: web/layers.c, which script/build_wasm compiles, and web/inr.js.
"""

import base64
import html
import json
from pathlib import Path

WEB = Path(__file__).parent / 'web'


def _page(title, controls, *scripts):
    """A page with a canvas, a row of controls and scripts, the texts of all of them in it."""
    code = '\n'.join(f'<script>\n{text}\n</script>' for text in scripts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{_text('page.css')}</style>
</head>
<body>
<main><canvas aria-label="{html.escape(title)}: drag to move, scroll or + and - to zoom, 0 for the whole"></canvas></main>
<footer>
<button name="closer" title="Closer (+)">+</button>
<button name="farther" title="Farther (-)">&minus;</button>
<button name="home" title="Whole picture (0)">Whole</button>
{controls}<output></output>
</footer>
{code}
</body>
</html>
"""


def _text(name):
    return (WEB / name).read_text(encoding='utf-8')


def _constant(name, value):
    """A script that defines a constant; what could end the script is written otherwise."""
    return f'const {name} = {json.dumps(value)};'.replace('<', r'\u003c')


def deep_zoom(name, width, height, tile, finest):
    """The page beside NAME.dzi and NAME_files. tile: pixels of one; finest: number of the level of width x height."""
    from urllib.parse import quote

    picture = {'files': f'{quote(name)}_files', 'width': width, 'height': height, 'tile': tile, 'finest': finest}
    return _page(f'{name}, {width} x {height}', '', _constant('PICTURE', picture), _text('view.js'), _text('deepzoom.js'))


def function(name, content):
    """The page of one image, drawn by WebAssembly from the bytes of a function file (fixed.Function.to_bytes)."""
    controls = """<button name="save" title="Save what is shown as PNG (s)">Save PNG</button>
<select name="times" aria-label="Size of the PNG"><option value="1">as shown</option><option value="2">2 x</option>
<option value="4">4 x</option><option value="8">8 x</option></select>
"""
    texts = {'NAME': name, 'MODEL': _base64(content), 'WASM': _base64((WEB / 'layers.wasm').read_bytes()),
             'CODE': f'{_text("inr.js")}\n{_text("worker.js")}'}
    constants = '\n'.join(_constant(key, value) for key, value in texts.items())
    return _page(name, controls, constants, _text('inr.js'), _text('view.js'), _text('function.js'))


def _base64(content):
    return base64.b64encode(content).decode()
