"""The HTTP interface: pixels are those of inr.render, who hangs up is not drawn for, strangers are refused."""

import gc
import hashlib
import io
import socket
import threading

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from dnnlib.util import UserError
from inference import latents
from tests import tiny_snapshots
from tests.viewing.serving import served, tiny, until
from torch_utils.pixels import to_uint8
from training.checkpoint import network_path
from viewing import guard, run, server, whole
from viewing.drawing import SIDE, Drawing
from viewing.state import View, tile_window

render = pytest.importorskip('inr.render')


@pytest.fixture(scope='module')
def viewer(tmp_path_factory):
    """(address, interface, drawing) of the second of three snapshots of a run."""
    folder = tmp_path_factory.mktemp('run')
    for images in (0, 2000, 4000):
        torch.manual_seed(images)
        tiny_snapshots.save(network_path(folder, images), tiny(), classes=['a', 'b', 'c', 'd'])
    with served(network_path(folder, 2000)) as found:
        yield found


def pixels(answer):
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(answer.content)) as image:
        return np.asarray(image)


def drawn(G, ws, size, window, refine=None):
    return to_uint8(render.render(G, ws, size[1], size[0], window, refine, force_fp32=True))[0]


def of_seed(G, seed, label=None, psi=1.0, cutoff=None):
    return latents.latents_of(G, seed, latents.label_of_seed(G, seed) if label is None else torch.tensor([label]), psi, cutoff)


def test_a_tile_is_what_render_draws(viewer):
    address, _, drawing = viewer
    ws = of_seed(drawing.G, 5)
    whole = render.render(drawing.G, ws, 4096, 4096, (-8, -8, 8, 8), tile=(7 * 256 - 1, 8 * 256 - 1, 258, 258), force_fp32=True)
    tile = pixels(requests.get(f'{address}/tile/4/8/7?seed=5'))
    assert np.array_equal(tile, to_uint8(whole)[0]) and tile.std() > 5
    deep = pixels(requests.get(f'{address}/tile/19/262147/262150?seed=5&refine=last'))
    assert np.array_equal(deep, drawn(drawing.G, ws, (SIDE, SIDE), tile_window(19, 262147, 262150), 'last'))


@pytest.mark.parametrize('query, view', [
    ('seed=9&psi=0.5&cutoff=2', lambda G: of_seed(G, 9, psi=0.5, cutoff=2)),
    ('seed=9&label=1:0.25,3:0.75', lambda G: of_seed(G, 9, [0, 0.25, 0, 0.75])),
    ('seed=9&to=4&share=0.25&psi=0.7&cutoff=3', lambda G: of_seed(G, 9, psi=0.7, cutoff=3).lerp(of_seed(G, 4, psi=0.7, cutoff=3), 0.25)),
    ('seed=1&to=2&share=0.5&space=z&cutoff=1&psi=0.3', lambda G: G.mapping(
        torch.from_numpy(latents.slerp(latents.z_of(G, 1), latents.z_of(G, 2), 0.5)), torch.tensor([[0, 0.5, 0.5, 0]]), truncation_psi=0.3,
        truncation_cutoff=1)),
    ('seed=9&style=8&layers=1,3&psi=0.5&cutoff=2', lambda G: torch.where(
        torch.tensor([i in (1, 3) for i in range(G.num_ws)])[:, None], of_seed(G, 8, psi=0.5, cutoff=2), of_seed(G, 9, psi=0.5, cutoff=2))),
])
def test_every_word_of_a_view_counts(viewer, query, view):
    address, _, drawing = viewer
    tile = pixels(requests.get(f'{address}/tile/4/8/8?{query}'))
    assert np.array_equal(tile, drawn(drawing.G, view(drawing.G), (SIDE, SIDE), tile_window(4, 8, 8)))
    assert not np.array_equal(tile, pixels(requests.get(f'{address}/tile/4/8/8?seed=9')))


def test_snapshots_of_the_run(viewer):
    address, _, drawing = viewer
    info = requests.get(f'{address}/info').json()
    assert info['snapshots'] == [0, 2000, 4000] and info['opened'] == 2000 and info['classes'] == ['a', 'b', 'c', 'd']
    tiles = [pixels(requests.get(f'{address}/tile/4/8/8?seed=3{more}')) for more in ('', '&snapshot=0', '&snapshot=2000', '&snapshot=4000')]
    torch.manual_seed(4000)
    assert np.array_equal(tiles[0], tiles[2]) and not np.array_equal(tiles[0], tiles[1])
    assert np.array_equal(tiles[3], drawn(drawing.network(4000), of_seed(drawing.network(4000), 3), (SIDE, SIDE), tile_window(4, 8, 8)))
    assert not np.array_equal(tiles[1], tiles[3]) and drawing.network(2000) is drawing.G


def test_a_snapshot_that_is_gone_or_of_another_run_is_one_line(tmp_path):
    network = tiny_snapshots.save(network_path(tmp_path, 1000), tiny())
    tiny_snapshots.save(network_path(tmp_path, 2000), tiny(channel_max=8))
    gone = tiny_snapshots.save(network_path(tmp_path, 3000), tiny())
    with served(network) as (address, _, _):
        gone.unlink()
        other, missing = (requests.get(f'{address}/tile/4/8/8?snapshot={images}') for images in (2000, 3000))
        assert other.status_code == missing.status_code == 409 and other.text.count('\n') == missing.text.count('\n') == 1
        assert 'network-snapshot-000002.safetensors is not of the same run' in other.text and 'no such file' in missing.text
        assert requests.get(f'{address}/info').json()['snapshots'] == [1000, 2000]


@pytest.mark.parametrize('kind', ['png', 'tiff'])
def test_a_view_is_saved(viewer, kind, monkeypatch):
    address, _, drawing = viewer
    monkeypatch.setattr('viewing.drawing.BAND_BYTES', 2**20)  # several bands
    answer = requests.get(f'{address}/save?x0=-0.25&y0=0&x1=1.5&y1=0.5&width=70&height=40&format={kind}&seed=6&refine=smooth')
    assert np.array_equal(pixels(answer), drawn(drawing.G, of_seed(drawing.G, 6), (70, 40), (-0.25, 0, 1.5, 0.5), 'smooth'))
    assert f'filename="seed0006.{kind}"' in answer.headers['content-disposition']


def test_a_tile_comes_from_the_cache_the_second_time(viewer, monkeypatch):
    address, _, drawing = viewer
    first = requests.get(f'{address}/tile/5/16/16?seed=77&psi=0.50')
    monkeypatch.setattr(drawing, 'tile', None)
    assert requests.get(f'{address}/tile/5/16/16?psi=0.5&seed=77').content == first.content


@pytest.mark.parametrize('path, said', [
    ('/tile/4/8/8?seed=x', 'seed: a whole number'), ('/tile/4/8/16', 'tiles a side'), ('/tile/20/0/0', 'levels go from'),
    ('/tile/4/8/8?seed=1&seed=2', 'twice'), ('/tile/4/a/8', 'tiles a side'), ('/tile/4/²/8', 'tiles a side'),
    ('/save?x0=0', 'y0 is missing'),
    ('/tile/4/8/8?network=/etc/passwd', 'not known'),
])
def test_mistakes_are_one_line(viewer, path, said):
    answer = requests.get(viewer[0] + path)
    assert answer.status_code == 400 and said in answer.text and answer.text.count('\n') == 1


def test_only_the_files_of_the_page_are_served(viewer):
    address = viewer[0]
    page = requests.get(address)
    assert page.status_code == 200 and 'text/html' in page.headers['content-type'] and 'static/viewer.js' in page.text
    for name in ('viewer.js', 'tiles.js', 'state.js', 'viewer.css', 'openseadragon.min.js', 'icon.svg'):
        assert requests.get(f'{address}/static/{name}').status_code == 200
    for name in ('../viewer.py', '..%2Fserver.py', '%2e%2e/server.py', 'openseadragon.LICENSE.txt', '', 'a/../viewer.js'):
        request = requests.Request('GET', address).prepare()
        request.url = f'{address}/static/{name}'
        assert requests.Session().send(request).status_code == 404, name


@pytest.mark.parametrize('make', [tiny_snapshots.stylegan2, lambda: tiny_snapshots.inr(instance_norm=True, upsampling='bilinear')])
def test_a_network_that_draws_no_parts_is_shown_at_its_own_size(tmp_path, make):
    with served(tiny_snapshots.save(tmp_path / 'a.safetensors', make())) as (address, _, drawing):
        G = drawing.G
        with torch.no_grad():
            image = to_uint8(G.synthesis(of_seed(G, 5), noise_mode='const', force_fp32=True))[0]
        assert requests.get(f'{address}/info').json()['whole'] and image.std() > 1
        tile = pixels(requests.get(f'{address}/tile/4/8/8?seed=5&refine=last'))  # the image, 258 pixels with the margin
        assert np.array_equal(tile[1:-1, 1:-1], image.repeat(256 // len(image), 0).repeat(256 // len(image), 1))
        assert np.all(tile[0] == whole.BEYOND) and np.all(tile[:, -1] == whole.BEYOND)
        saved = pixels(requests.get(f'{address}/save?x0=0.5&y0=-0.5&x1=1&y1=1&width=8&height=600&format=png&seed=5'))
        rows = np.arange(400) * len(image) // 400
        assert np.array_equal(saved[200:], image[rows][:, len(image) // 2:].repeat(8 // (len(image) // 2) or 1, 1))
        assert np.all(saved[:200] == whole.BEYOND)
        moved = requests.get(f'{address}/tile/4/8/8?seed=5&directions=0:3')
        assert moved.status_code == 200 and not np.array_equal(pixels(moved), tile)


# ---- Views that moved on


def test_who_hangs_up_is_not_drawn_for(viewer, monkeypatch):
    address, interface, drawing = viewer
    host, port = address.removeprefix('http://').split(':')
    go_on, asked, tile = threading.Event(), [], Drawing.tile

    def slow(self, view, *place):
        asked.append(view.seed)
        go_on.wait(300)  # all six are asked for before the first is drawn
        return tile(self, view, *place)

    monkeypatch.setattr(Drawing, 'tile', slow)
    held = []
    for seed in range(500, 506):
        held.append(socket.create_connection((host, int(port))))
        held[-1].sendall(f'GET /tile/4/8/8?seed={seed} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n'.encode())
        until(lambda: interface.waiting == seed - 499)  # noqa: B023
    for connection in held[:5]:
        connection.close()
    until(lambda: interface.waiting == 2)  # the one that is being drawn, and the last
    go_on.set()
    with held[5].makefile('rb') as answer:
        assert answer.readline() == b'HTTP/1.1 200 OK\r\n'
    held[5].close()
    assert asked == [500, 505] and interface.waiting == 0


def test_a_queue_that_is_full_says_so(viewer, monkeypatch):
    monkeypatch.setattr(server, 'MOST_WAITING', 0)
    answer = requests.get(f'{viewer[0]}/tile/4/8/8?seed=12345')
    assert answer.status_code == 503 and answer.headers['retry-after'] == '1'


def test_saving_ends_when_nobody_waits_and_leaves_nothing(viewer, monkeypatch, tmp_path, caplog):
    address, interface, _ = viewer
    host, port = address.removeprefix('http://').split(':')
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    monkeypatch.setattr('viewing.drawing.BAND_BYTES', 2**18)
    query = 'x0=0&y0=0&x1=1&y1=1&width=8192&height=8192&format=png'
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f'GET /save?{query} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n'.encode())
        until(lambda: any(tmp_path.glob('*/*')))
        assert requests.get(f'{address}/save?{query}').status_code == 503
        assert requests.get(f'{address}/tile/4/8/8?seed=4321').status_code == 200  # between two bands
    until(lambda: not interface.saving.locked() and not any(tmp_path.iterdir()))
    gc.collect()
    assert caplog.text == ''  # asyncio complains of errors that nobody asked for


# ---- Who may ask


@pytest.mark.parametrize('headers, status', [
    ({}, 200), ({'Host': 'localhost:{port}'}, 200), ({'Host': '[::1]:{port}'}, 200), ({'Host': 'localhost'}, 403),
    ({'Host': 'evil.example:{port}'}, 403),
    ({'Host': '192.168.0.7:{port}'}, 403), ({'Host': ''}, 403), ({'Origin': 'http://127.0.0.1:{port}'}, 200),
    ({'Origin': 'http://evil.example'}, 403),
    ({'Origin': 'null'}, 403), ({'Origin': 'http://127.0.0.1:1'}, 403), ({'Sec-Fetch-Site': 'same-origin'}, 200),
    ({'Sec-Fetch-Site': 'none'}, 200),
    ({'Sec-Fetch-Site': 'cross-site'}, 403), ({'Sec-Fetch-Site': 'same-site'}, 403),
    ({'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'navigate'}, 403),
])
def test_host_and_origin(viewer, headers, status):
    address, port = viewer[0], viewer[0].rpartition(':')[2]
    headers = {name: text.format(port=port) for name, text in headers.items()}
    assert requests.get(f'{address}/info', headers=headers).status_code == status


@pytest.mark.parametrize('headers, refused', [
    ({}, None), ({'host': ['127.0.0.1:80', 'evil.example']}, 'Host'), ({'host': []}, 'Host'),
    ({'origin': ['http://127.0.0.1:80', 'http://evil.example']}, 'Origin'), ({'sec-fetch-site': ['none', 'cross-site']}, 'another site'),
])
def test_headers_that_are_there_twice(headers, refused):
    asked = {'method': 'GET', 'query_string': b'', 'path': '/info'}
    found = guard.Guard(None, '127.0.0.1', 80).refuses(asked, {'host': ['127.0.0.1:80'], **headers})
    assert found is None if refused is None else found[0] == 403 and refused in found[1]


def test_a_link_in_another_page_leads_here(viewer):
    assert requests.get(viewer[0], headers={'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'navigate'}).status_code == 200


def test_other_methods_and_long_queries(viewer):
    for method in ('POST', 'PUT', 'DELETE', 'OPTIONS'):
        assert requests.request(method, f'{viewer[0]}/info').status_code == 405
    assert requests.head(f'{viewer[0]}/info').status_code == 200
    assert requests.get(f'{viewer[0]}/tile/4/8/8?label=' + '1' * 5000).status_code == 414


def test_answers_carry_the_headers_that_keep_others_out(viewer):
    for path in ('/', '/info', '/nothing', '/tile/4/8/8?seed=x'):
        headers = requests.get(viewer[0] + path).headers
        assert "frame-ancestors 'none'" in headers['content-security-policy'] and headers['x-content-type-options'] == 'nosniff'
        assert headers['referrer-policy'] == 'no-referrer' and headers['cache-control'] == 'no-store' and 'set-cookie' not in headers


def test_the_token_of_the_link(tmp_path):
    network = tiny_snapshots.save(tmp_path / 'a.safetensors', tiny())
    with served(network, '0.0.0.0', 'secret') as (address, _, _):
        for path in ('/', '/?token=', '/?token=secre', '/?token=s%C3%A9cret', '/info', '/info?token=secret', '/static/viewer.js'):
            assert requests.get(address + path).status_code == 403, path
        with requests.Session() as session:
            first = session.get(f'{address}/?token=secret')
            assert first.status_code == 200 and 'HttpOnly; SameSite=Strict' in first.headers['set-cookie']
            assert session.get(f'{address}/info').status_code == session.get(f'{address}/static/viewer.js').status_code == 200
        name = f'inr-viewer-{address.rpartition(":")[2]}'
        assert requests.get(f'{address}/info', headers={'Cookie': f'{name}=other'}).status_code == 403
        assert requests.get(f'{address}/info', headers={'Cookie': f'{name}=secret', 'Host': 'evil.example'}).status_code == 403


@pytest.mark.parametrize('header, bound, allowed', [
    ('pc.local:80', 'pc.local', True), ('PC.local:80', 'pc.local', True), ('192.168.0.7:80', '0.0.0.0', True), ('[fe80::1]:80', '::', True),
    ('evil.example:80', '0.0.0.0', False), ('192.168.0.7:80', 'pc.local', False), ('a b:80', 'a b', False), ('127.0.0.1', '0.0.0.0', True),
])
def test_hosts_of_a_server_that_others_may_use(header, bound, allowed):
    assert bool(guard.host_allowed(header, bound, 80)) is allowed


def test_links():
    link = run.link('0.0.0.0', 80, 'abc').removeprefix('http://').partition('/')[0]
    assert guard.host_allowed(link, '0.0.0.0', 80) and not guard.host_allowed(link, '192.168.0.7', 80)
    assert run.link('127.0.0.1', 8400, None) == 'http://127.0.0.1:8400'
    assert run.link('::1', 80, None) == 'http://[::1]:80' and run.link('pc', 80, 'abc') == 'http://pc:80/?token=abc'
    assert run.link('0.0.0.0', 80, 'abc') == f'http://{socket.gethostname()}:80/?token=abc'


def test_openseadragon_is_the_published_file():
    text = (server.STATIC / 'VENDORED.md').read_text()
    assert hashlib.sha256((server.STATIC / 'openseadragon.min.js').read_bytes()).hexdigest() in text


# ---- The beginning


@pytest.mark.parametrize('given', [{'network': 'nowhere.safetensors'}, {'network': None, 'directions': 'nowhere.npz'}])
def test_a_file_that_is_missing_is_said_before_there_is_a_page(monkeypatch, given):
    monkeypatch.setattr(run, 'listening', None)
    with pytest.raises(UserError, match='no such file: nowhere'):
        run.serve(device='cpu', **given)


def test_the_class_of_a_seed_is_that_of_generate(tmp_path):
    names = ['cat/1', 'dog/1', 'dog/2', 'dog/3']  # seed 2: cats again
    drawing = Drawing(str(tiny_snapshots.save(tmp_path / 'a.safetensors', tiny(), classes=names)), 'cpu')
    assert torch.equal(drawing.ws(View(seed=2)), of_seed(drawing.G, 2, label=[1.0, 0, 0, 0]))


def test_what_is_asked_for_first_waits_for_no_tile_that_nobody_asked_for(tmp_path):
    begun, go_on, warmed = threading.Event(), threading.Event(), []
    drawing = Drawing(str(tiny_snapshots.save(tmp_path / 'a.safetensors', tiny())), 'cpu')
    drawing.warm_up = lambda: warmed.append(1)

    @run.nothing_collected()
    def opening():
        begun.set()
        assert go_on.wait(180) and not gc.isenabled()
        return drawing

    for asked in (False, True):
        begun.clear(), go_on.clear()
        interface = server.Interface(opening)
        assert begun.wait(180)
        interface.asked = asked
        go_on.set()
        assert interface.opened.result(180) is drawing and gc.isenabled() and warmed == [1]
        interface.close()
    gc.unfreeze()
