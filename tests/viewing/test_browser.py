"""The page in a browser without a window: what it shows is what is drawn, and every control changes what it should."""

import io
import time

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from inference import latents
from tests import browser, tiny_snapshots
from tests.viewing.serving import served, tiny
from torch_utils.pixels import to_uint8
from training.checkpoint import network_path

render = pytest.importorskip('inr.render')
pytestmark = pytest.mark.skipif(browser.program() is None, reason='there is no Chromium')
WIDTH, HEIGHT, PANEL = 780, 320, 320
STATE = """(viewer => location.hash + Boolean(
    !location.hash || document.body.classList.contains('drawing') || viewer?.world.getItemCount() !== 1
    || !viewer.world.getItemAt(0).getFullyLoaded() || !viewer.viewport.getBounds(true).equals(viewer.viewport.getBounds())
))(document.getElementById('stage')?.viewer)"""
OPENED = "document.readyState === 'complete' && document.getElementById('name').textContent"
GONE_TO = """new Promise((done) => {
    addEventListener('hashchange', done, { once: true });
    if (location.hash === (location.hash = %r)) done();
})"""


@pytest.fixture(scope='module')
def viewer(tmp_path_factory):
    """(address, interface, drawing) of a run with two snapshots."""
    folder = tmp_path_factory.mktemp('run')
    for images in (1000, 2000):
        torch.manual_seed(images)
        tiny_snapshots.save(network_path(folder, images), tiny(), classes=['cat', 'dog/1', 'hen', 'dog/2'])
    with served(network_path(folder, 2000)) as found:
        yield found


@pytest.fixture(scope='module')
def page(viewer, tmp_path_factory):
    with browser.Browser(tmp_path_factory.mktemp('browser'), (WIDTH, HEIGHT)) as found:
        found.open(viewer[0])
        found.wait(OPENED)
        yield found
        assert found.complaints() == []


def rest(page):
    """Waits until nothing moves and nothing is being drawn, and the address says so; returns the words of the page's address."""
    before, end = None, time.monotonic() + page.patience
    while before != (before := page.value(STATE)) or before.endswith('true'):
        assert time.monotonic() < end, before
        time.sleep(0.1)
    return dict(word.split('=') for word in before.removesuffix('false').lstrip('#').split('&'))


def rest_where(page, condition):
    """As `rest`, again until the words meet a condition: what a pointer does shows when the page has come to it."""
    end = time.monotonic() + page.patience
    while not condition(words := rest(page)):
        assert time.monotonic() < end, words
    return words


def go(page, words):
    page.value(f'{GONE_TO % f"#{words}"}.then(() => null)')
    return rest(page)


def home(page):
    """Shows the trained frame; returns the words."""
    page.press('h')
    width = 1.12 * (WIDTH - PANEL) / HEIGHT

    def there(words):
        x0, _, x1, _ = map(float, words['box'].split(','))
        return abs(x0 + x1 - 1) < 1e-3 and abs(x1 - x0 - width) < 1e-3

    return rest_where(page, there)


def shown(page):
    """uint8 [H, W, 3] of the image's middle, away from the buttons, without the frame."""
    rest(page)
    page.value("document.querySelector('.frame').style.visibility = 'hidden'")
    with Image.open(io.BytesIO(page.picture())) as image:
        return np.asarray(image.convert('RGB'))[60:260, 60:WIDTH - PANEL - 10].astype(int)


def drawn(G, ws, box):
    """What `shown` should be for a window that has a pixel for each of the tiles'."""
    whole = to_uint8(render.render(G, ws, HEIGHT, WIDTH - PANEL, box, force_fp32=True))[0]
    return whole[60:260, 60:WIDTH - PANEL - 10].astype(int)


def test_the_page_shows_what_is_drawn(viewer, page):
    G = viewer[2].G
    for left, top, size in ((64, 96, 512), (-200, 32, 256)):  # pixels; inside the frame, and beyond it
        box = left / size, top / size, (left + WIDTH - PANEL) / size, (top + HEIGHT) / size
        found = go(page, f'seed=5&box={",".join(map(str, box))}')
        assert [float(edge) for edge in found['box'].split(',')] == pytest.approx(box, abs=1e-9) and found['seed'] == '5'
        ws = latents.latents_of(G, 5, latents.label_of_seed(G, 5, names=viewer[2].meta['dataset']['classes']))
        assert np.abs(shown(page) - drawn(G, ws, box)).max() <= 1
    assert page.value("document.getElementById('seed').value") == '5'


def test_zooms_in_six_levels_and_pans_out_of_the_frame(page):
    def width(words):
        x0, _, x1, _ = map(float, words['box'].split(','))
        return x1 - x0

    go(page, 'seed=5')
    wide = width(home(page))
    for _ in range(6):
        page.click('#zoom-in')
    rest_where(page, lambda words: width(words) == pytest.approx(wide / 64, rel=1e-3))
    assert 'pixels an image' in page.value("document.getElementById('place').textContent")
    page.mouse('mouseWheel', 150, 150, deltaX=0, deltaY=-120)
    rest_where(page, lambda words: width(words) < wide / 64.5)
    home(page)
    page.drag((300, 200), (10, 200))
    page.drag((300, 200), (10, 200))
    rest_where(page, lambda words: float(words['box'].split(',')[0]) > 0.9)
    assert shown(page).std() > 3


def test_no_last_level_but_where_float32_ends(page):
    go(page, 'seed=5&box=0.5,0.5,0.50000001,0.50000001')
    assert 'float32 coordinates end here' in page.value("document.getElementById('place').textContent")
    page.press('+')
    x0, _, x1, _ = map(float, rest(page)['box'].split(','))
    assert (WIDTH - PANEL) / (x1 - x0) <= 2**24 * 1.01


def test_classes_of_a_group_stand_together(page):
    go(page, 'seed=5&box=0,0,1,1')
    listed = page.value("[...document.querySelectorAll('#class > *')]"
                        ".map((e) => e.label + ':' + [...e.children].map((o) => o.value)).join(';')")
    assert listed == 'by seed:;cat:;dog:1,3;hen:'


@pytest.mark.parametrize('act, words', [
    (lambda page: page.press('n'), {'seed': '6'}),
    (lambda page: (page.enter('#psi', 0.5), page.enter('#cutoff', 1)), {'psi': '0.5', 'cutoff': '1'}),
    (lambda page: (page.enter('#class', 2), page.enter('#other', 0), page.enter('#part', 0.25)), {'label': '2:0.75,0:0.25'}),
    (lambda page: page.enter('#snapshot', 0), {'snapshot': '1000'}),
    (lambda page: (page.click('#mix summary'), page.enter('#style', 8), page.click('#layers button:nth-child(2)')),
     {'style': '8', 'layers': '1'}),
    (lambda page: (page.enter('#to', 9), page.enter('#share', 0.5)), {'to': '9', 'share': '0.5'}),
    (lambda page: page.enter('#direction-1', 3), {'directions': '1:3'}),
])
def test_controls(viewer, page, act, words):
    go(page, 'seed=5&box=0,0,1,1')
    before = shown(page)
    act(page)
    found = {'seed': '5'} | words
    rest_where(page, lambda now: {name: text for name, text in now.items() if name != 'box'} == found)
    assert np.abs(shown(page) - before).mean() > 0.5
    answer = requests.get(f'{viewer[0]}/tile/4/8/8', params=found)
    assert answer.status_code == 200, answer.text
    assert page.value("document.getElementById('status').textContent") == ''


def test_a_link_brings_back_exactly_this_view(viewer, page):
    words = 'seed=12&psi=0.7&label=1:0.5,3:0.5&style=3&layers=0,2&to=4&share=0.25&directions=0:1.5&box=0.125,0.25,0.6,0.725'
    go(page, words)
    picture, address = shown(page), page.value('location.href')
    page.open('about:blank')
    page.open(address)
    page.wait(OPENED)
    assert np.array_equal(shown(page), picture) and page.value('location.href') == address
    page.enter('#psi', 0.5)
    assert not np.array_equal(shown(page), picture)


def test_a_link_counts_though_the_page_has_written_its_own_view_into_the_address_since(page):
    own = go(page, 'seed=5')
    page.value(f"location.hash = 'seed=12'; history.replaceState(null, '', '#seed=5&box={own['box']}')")
    rest_where(page, lambda words: words['seed'] == '12')


def test_plays_and_pauses(page):
    go(page, 'seed=5')
    page.press(' ')
    page.wait("location.hash.includes('share=0.')")
    pause(page)
    found = rest(page)
    assert 0 <= float(found.get('share', 0)) < 1 and int(found['to']) == int(found['seed']) + 1 >= 6
    page.press(' ')
    page.wait("document.getElementById('play').textContent === 'Pause'")
    assert 'to' not in go(page, 'seed=7') and page.value("document.getElementById('play').textContent") == 'Play'


def pause(page):
    page.press(' ')
    page.wait("document.getElementById('play').textContent === 'Play'")


def test_plays_from_a_frame_that_began_before_the_click(page):
    go(page, 'seed=5')
    page.value('''(frame => {
        window.requestAnimationFrame = (turn) => { window.requestAnimationFrame = frame; return frame((now) => turn(now - 5000)); };
        window.least = 0;
        const replace = history.replaceState.bind(history);
        history.replaceState = (...rest) => {
            window.least = Math.min(window.least, ...[...String(rest[2]).matchAll(/share=([-\\d.e]+)/g)].map((found) => Number(found[1])));
            return replace(...rest);
        };
    })(window.requestAnimationFrame)''')
    page.press(' ')
    page.wait("location.hash.includes('share=0.')")
    pause(page)
    assert page.value('least') == 0


def test_saves_the_view(viewer, page):
    x0, y0, x1, y1 = map(float, go(page, 'seed=5&box=0.1,0.2,0.58,0.68')['box'].split(','))
    page.enter('#times', 1)
    page.click('#save-view')
    page.wait("document.getElementById('status').textContent.startsWith('Saved')")
    path = page.folder / 'seed5.png'
    end = time.monotonic() + page.patience
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
    with Image.open(path) as image:
        found = np.asarray(image)
    G = viewer[2].G
    ws = latents.latents_of(G, 5, latents.label_of_seed(G, 5, names=viewer[2].meta['dataset']['classes']))
    assert np.array_equal(found, to_uint8(render.render(G, ws, HEIGHT, WIDTH - PANEL, (x0, y0, x1, y1), force_fp32=True))[0])


def test_a_narrow_screen(page):
    assert page.value("document.getElementById('panel').inert") is False
    page.resize(390, 700, mobile=True)
    try:
        page.reload()
        page.wait(OPENED)
        rest(page)
        assert page.value('document.documentElement.scrollWidth') <= 390
        assert page.value("getComputedStyle(document.getElementById('panel')).display") == 'none'
        page.click('#toggle')
        page.wait("getComputedStyle(document.getElementById('panel')).display !== 'none'")
        rest(page)
        left, right, top, bottom = page.value("(({left, right, top, bottom}) => [left, right, top, bottom])"
                                              "(document.getElementById('panel').getBoundingClientRect())")
        assert (left, right, bottom) == (0, 390, 700) and top > 250
    finally:
        page.resize(WIDTH, HEIGHT)
