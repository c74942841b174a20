"""Pages of one file that a browser shows without a network: put together from web/."""

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
    """A script that defines a constant; what would end the script is written otherwise."""
    return f'const {name} = {json.dumps(value)};'.replace('</', '<\\/')


def deep_zoom(name, width, height, tile, finest):
    """The page beside NAME.dzi and NAME_files. tile: pixels of one; finest: number of the level of width x height."""
    from urllib.parse import quote

    picture = {'files': f'{quote(name)}_files', 'width': width, 'height': height, 'tile': tile, 'finest': finest}
    return _page(f'{name}, {width} x {height}', '', _constant('PICTURE', picture), _text('view.js'), _text('deepzoom.js'))
