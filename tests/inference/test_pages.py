"""Pages: the function that a browser draws is the one that render.py draws, in node and in Chromium."""

import base64
import hashlib
import io
import shutil
import subprocess
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import generate
from inference import export, latents, pages, pyramid
from tests import browser as driver
from tests import tiny_snapshots
from tests.tiny_snapshots import call, mistake
from torch_utils.pixels import to_uint8

fixed = pytest.importorskip('inr.fixed')
render = pytest.importorskip('inr.render')
WHOLE, OUTSIDE, CLOSE = (0, 0, 1, 1), (-0.3, -0.2, 1.4, 1.1), (0.4, 0.4, 0.43, 0.45)
CORNER, FAR = (0.99, 0.3, 1, 0.31), (900, -700, 901, -699)
SIZES = [(64, 64, WHOLE), (50, 99, WHOLE), (20, 33, WHOLE), (20, 21, CORNER), (40, 30, (-1, -1, 2, 2)), (20, 21, (0.45, 0.4, 0.52, 0.47))]


def test_the_compiled_code_is_of_its_source():
    """script/build_wasm writes the checksums of both."""
    noted = dict(reversed(line.split()) for line in (pages.WEB / 'layers.sha256').read_text().splitlines())
    assert noted == {name: hashlib.sha256((pages.WEB / name).read_bytes()).hexdigest() for name in ('layers.c', 'layers.wasm')}


def drawn_by_node(tmp_path, function, half, height, width, window, part=None):
    """What draw.js draws, float32 [1, C, height, width]."""
    if shutil.which('node') is None:
        pytest.skip('there is no node')
    file, out = tmp_path / 'a.safetensors', tmp_path / 'a.raw'
    file.write_bytes(function.to_bytes(half))
    args = [file, out, width, height, ','.join(map(str, window)), *([] if part is None else [','.join(map(str, part))])]
    done = subprocess.run(['node', pages.WEB / 'draw.js', *map(str, args)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows, columns = (height, width) if part is None else part[2:]
    return torch.from_numpy(np.fromfile(out, np.float32)).reshape(1, -1, rows, columns)


@pytest.mark.parametrize('kind, refine, cases', [
    ('linear', 'all', [(64, 64, WHOLE), (150, 140, WHOLE), (90, 70, OUTSIDE), (33, 47, CLOSE), (20, 20, (-8, -8, 9, 9))]),
    ('linear', 'last', [(150, 100, OUTSIDE)]),
    ('constants', 'smooth', [(150, 140, OUTSIDE), (64, 64, WHOLE)]),
    ('generated', 'all', [(90, 140, OUTSIDE)]),
    ('hypernetwork', 'all', [(90, 140, OUTSIDE)]),
    ('any size', 'all', SIZES),
    ('any size', 'smooth', [(99, 70, OUTSIDE)]),
    ('torus', 'all', [(20, 33, FAR), (99, 70, OUTSIDE)]),
    ('torus', 'last', [(99, 70, OUTSIDE)]),
    ('periodic', 'all', [(40, 30, (-1, -1, 2, 2))]),
    ('oblong', 'all', [(99, 70, OUTSIDE)]),
    ('tall', 'all', [(99, 70, OUTSIDE)]),
])
def test_node_draws_what_render_draws(tmp_path, kind, refine, cases):
    from tests.inr.test_function import generator

    G = generator(kind)
    ws = torch.randn(1, G.num_ws, 8)
    function = fixed.function_of(G, ws, refine=refine)
    for case in cases:
        expected = render.render(G, ws, *case, refine)
        assert (drawn_by_node(tmp_path, function, False, *case) - expected).abs().max() < 2e-4
    height, width, window = cases[-1]
    part = drawn_by_node(tmp_path, function, False, height, width, window, (3, 5, 7, 11))
    assert (part - expected[:, :, 3:10, 5:16]).abs().max() < 2e-4
    halves = [each.render(*case, refine) for each in (function, fixed.Function(function.form, {
        name: value if name.endswith(('rows', 'shift')) else value.half() for name, value in function.tensors.items()}))]
    assert 0 < (halves[0] - halves[1]).abs().max()
    assert (drawn_by_node(tmp_path, function, True, *case) - halves[1]).abs().max() < 2e-4


def test_generate_writes_a_page(tmp_path):
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny_snapshots.inr())
    args = [f'--network={network}', '--seeds=3', '--format=html', f'--outdir={tmp_path}']
    code, out, _err = call(generate.main, *args)
    page = (tmp_path / 'seed0003.html').read_text()
    assert code == 0 and f'{tmp_path}/seed0003.html' in out and '<title>seed0003</title>' in page
    assert len(page) < 300_000 and 'http:' not in page and 'https:' not in page and page.count('</script>') == 4
    other = tiny_snapshots.save(tmp_path / 'b.safetensors', tiny_snapshots.inr(upsampling='bilinear'))
    assert 'the page has no bilinear reads of coarser grids; --format=function has' in mistake(generate.main, *args, f'--network={other}')


def test_small_functions_are_in_a_page_with_all_their_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(export, 'WHOLE_FLOATS', 10)
    monkeypatch.setattr(pages, 'function', lambda name, content: content)
    for numbers, content in ((10, 'float32'), (11, 'half')):
        function = SimpleNamespace(form=SimpleNamespace(special=None), tensors={'a': torch.zeros(numbers - 1), 'b': torch.zeros(1)},
                                   to_bytes=lambda half: 'half' if half else 'float32')
        export._write_page(tmp_path / 'a.html', function, 'a', None)
        assert (tmp_path / 'a.html').read_text() == content


def test_a_name_cannot_end_a_script():
    page = pages.function('</script><b>', b'')
    assert page.count('</script>') == 4 and '<b>' not in page


@pytest.fixture
def browser(tmp_path):
    """A page in Chromium, of 340 x 300 pixels."""
    if driver.program() is None:
        pytest.skip('there is no Chromium')
    with driver.Browser(tmp_path, (340, 300)) as found:
        yield found
        assert found.complaints() == []


def shown_by(browser, G, ws, where='true'):
    """The window in units of the canvas once it rests and a condition is met, after comparing its pixels with those of render.py."""
    browser.wait(f'document.body && document.body.dataset.rest && ({where})')
    data = browser.value("document.querySelector('canvas').toDataURL()")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(',')[1]))).convert('RGB'))
    window = browser.value('view.window')
    sides = [side / G.img_resolution for side in G.img_size] * 2
    expected = to_uint8(render.render(G, ws, *pixels.shape[:2], tuple(end / side for end, side in zip(window, sides, strict=True))))[0]
    assert expected.std() > 2 and np.abs(expected.astype(int) - pixels).max() <= 2
    return window


def page_of(tmp_path, seed, **synthesis):
    """(address of a page, a generator's, its w)."""
    torch.manual_seed(4)
    G = tiny_snapshots.inr(upsampling='linear', **synthesis).eval()
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', G)
    assert call(generate.main, f'--network={network}', f'--seeds={seed}', '--format=html', f'--outdir={tmp_path}')[0] == 0
    return (tmp_path / f'seed000{seed}.html').as_uri(), G, latents.latents_of(G, seed, None)


def test_chromium_shows_what_render_draws(tmp_path, browser):
    page, *drawn = page_of(tmp_path, 3, resolution=64)
    shown = partial(shown_by, browser, *drawn)
    browser.open(page)
    home = shown()
    assert home[1] == 0 and home[3] == 1 and home[0] + home[2] == pytest.approx(1) and home[0] < 0
    scale = browser.value('view.scale')
    browser.mouse('mouseWheel', 40, 40, deltaX=0, deltaY=-300)
    closer, scale = shown(f'view.scale > {scale / 0.6}'), browser.value('view.scale')
    browser.drag((200, 150), (120, 110))
    left, top = closer[0] + 80 / scale, closer[1] + 40 / scale
    moved = shown(f'Math.abs(view.window[0] - {left}) + Math.abs(view.window[1] - {top}) < 1e-9')
    assert moved[2] - moved[0] == pytest.approx(closer[2] - closer[0])
    touches = [[(100, 100), (200, 100)], [(50, 100), (250, 100)]]
    for kind, places in (('touchStart', touches[0]), ('touchMove', touches[1]), ('touchEnd', [])):
        browser('Input.dispatchTouchEvent', type=kind, touchPoints=[{'x': x, 'y': y, 'id': i} for i, (x, y) in enumerate(places)])
    shown(f'Math.abs(view.scale / {scale} - 2) < 0.02')
    for key in ('0', '-', '-', 'ArrowLeft'):
        browser.press(key)
    shown(f'view.window[0] < {home[0] - 0.5}')
    browser.value('view.set(0.4, 0.4, 1e9)')
    assert 'as close as float32 goes' in browser.value("document.querySelector('output').value") and shown()[0] < 0.4
    browser.press('0')
    assert shown(f'Math.abs(view.window[2] - {home[2]}) < 1e-9') == pytest.approx(home)
    browser.click('[name=save]')
    size = browser.wait('document.body.dataset.saved')
    assert size == 'x'.join(map(str, browser.value("[document.querySelector('canvas').width, document.querySelector('canvas').height]")))
    again = browser.value('location.hash')
    assert again.startswith('#0.5,0.5,')
    fading = dict(random=4, raw=True, fine=8, footprint='pixel')
    page, *drawn = page_of(
        tmp_path, 5, resolution=32, img_size=[48, 32], middles=True, periodic='x', features=fading, input_features=fading)
    shown = partial(shown_by, browser, *drawn)
    browser.open(page)
    home = shown('document.title === "seed0005"')
    assert home[1] == 0 and home[3] == 1 and home[0] + home[2] == pytest.approx(1.5)
    browser.value('view.set(1.5, 0.6, 60)')
    assert shown('view.scale === 60')[2] > 3


def test_chromium_shows_a_deep_zoom(tmp_path, browser, monkeypatch):
    monkeypatch.setattr(pyramid, 'TILE', 16)
    pixels = np.random.RandomState(0).randint(0, 256, (170, 300, 3), np.uint8)

    def draw(top, left, height, width):
        return pixels[top:top + height, left:left + width]

    pyramid.write(tmp_path / 'a b.dzi', 'dzi', draw, 300, 170, 3, {}, say=lambda line: None)
    browser.open((tmp_path / 'a b.html').as_uri())
    browser.wait('window.view && document.body.dataset.drawn === String(view.window)')
    browser.value('view.set(150, 85, 1)')
    browser.wait('document.body.dataset.drawn === String(view.window)')
    left, top = browser.value('[-view.window[0], -view.window[1]].map(Math.round)')
    shown = np.asarray(Image.open(io.BytesIO(browser.picture())).convert('RGB'))
    assert np.array_equal(shown[top:top + 170, left:left + 300], pixels)
    assert '300 x 170, 100%' == browser.value("document.querySelector('output').value")
    browser.press('0')
    browser.wait('view.scale > 1.1')
