"""Sends a viewer requests that no page would send, and counts how it answers.

python script/fuzz_viewer.py [--requests=10000] [--network=FILE] [--seed=0]

Half of a request is what the page sends, with parts replaced, doubled, cut or made up: paths, words, numbers, Host, Origin, methods, raw
bytes; some hang up before the answer. Fails at a status of 500 or more that is not 503, at a traceback, where the server's memory passes
1 GiB above what it began with, and where it no longer answers as it did.
"""

import collections
import contextlib
import random
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
NAMES = ('seed', 'psi', 'cutoff', 'label', 'style', 'layers', 'to', 'share', 'space', 'refine', 'snapshot', 'directions', 'x0', 'y0', 'x1',
         'y1',
         'width', 'height', 'format', 'token', 'network', '__class__', '')
TEXTS = ('', '0', '1', '-1', '7', '0.5', '1e308', '-1e-308', 'nan', 'inf', '1_0', '0x10', '9' * 30, '4294967295', '4294967296', '3:0.5',
         '0:1,1:-2',
         '0:nan', '1,2,3', ',', ':', 'w', 'z', 'all', 'last', 'smooth', 'png', 'tiff', '../../etc/passwd', '%00', '%ff%fe', '\u0663',
         'a' * 3000,
         '<script>', "';--", '{}', '${7*7}', '0 0', '+1', ' 1', '1.', '.5', '64', '1000', '8192')
PATHS = ('/', '/info', '/tile/4/8/8', '/tile/3/4/4', '/tile/19/262144/262145', '/tile/2/1/1', '/save', '/static/viewer.js',
         '/static/../viewer.py',
         '/static/..%2f..%2fetc%2fpasswd', '//evil', '/tile', '/tile/-1/0/0', '/tile/4/8', '/tile/99999999999/0/0', '/tile/4/1e9/1',
         '/' + 'x' * 3000)
HEADERS = ('Origin: http://evil.example', 'Origin: null', 'Sec-Fetch-Site: cross-site', 'Range: bytes=0-1', 'Range: bytes=9-1,,',
           'Cookie: a=b; c',
           'Cookie: \xff', 'Content-Length: 5', 'Transfer-Encoding: chunked', 'Host: evil.example', 'X: ' + 'y' * 9000,
           'Upgrade: websocket',
           'Connection: Upgrade', 'Expect: 100-continue', 'If-None-Match: *', 'Accept-Encoding: gzip')


def request(dice, host):
    """The bytes of one request."""
    if dice.random() < 0.03:
        return bytes(dice.randrange(256) for _ in range(dice.randrange(1, 400))) + b'\r\n\r\n'
    path = dice.choice(PATHS)
    if dice.random() < 0.2:
        level = dice.randrange(0, 22)
        path = f'/tile/{level}/{dice.randrange(2**level + 1)}/{dice.randrange(2**level + 1)}'
    words = [f'{dice.choice(NAMES)}={dice.choice(TEXTS)}' for _ in range(dice.choice((0, 0, 1, 1, 2, 3, 12)))]
    if dice.random() < 0.2:
        words += [f'seed={dice.randrange(2**32)}', f'psi={dice.uniform(-5, 5)}']
    if path == '/save' and dice.random() < 0.5:
        x, y, side = dice.uniform(-9, 9), dice.uniform(-9, 9), 10 ** dice.uniform(-6, 1)
        size = f'width={dice.randrange(1, 80)}&height={dice.randrange(1, 80)}' if dice.random() < 0.97 else 'width=8192&height=8192'
        words = [f'x0={x}&y0={y}&x1={x + side}&y1={y + side}&{size}&format={dice.choice(("png", "tiff"))}', *words[-1:]]
    method = dice.choice(('GET',) * 12 + ('HEAD', 'POST', 'DELETE', 'get', 'A B', ''))
    headers = [f'Host: {host}'] * (dice.random() < 0.97) + [dice.choice(HEADERS)] * (dice.random() < 0.15)
    target = path + ('?' + dice.choice(('&', '&', ';')).join(words) if words else '')
    text = f'{method} {target} HTTP/1.{dice.choice((1, 1, 1, 0, 9))}\r\n' + ''.join(f'{line}\r\n' for line in headers) + '\r\n'
    packed = text.encode('utf-8' if dice.random() < 0.5 else 'latin-1', 'replace')
    if dice.random() < 0.03:
        packed = packed[:dice.randrange(len(packed))]
    return packed


def send(dice, host, port):
    """The status of one request; 'none' where the connection was closed without an answer, 'left' where this side hung up."""
    with socket.create_connection((host, port), timeout=120) as connection:
        packed = request(dice, f'{host}:{port}')
        connection.sendall(packed)
        large = b'8192&height=8192' in packed
        if large or dice.random() < 0.03:
            time.sleep(0.05 if large else 0)
            return 'left'
        connection.shutdown(socket.SHUT_WR) if packed[-4:] != b'\r\n\r\n' else None
        connection.settimeout(0.5 if b'Content-Length' in packed or b'chunked' in packed or packed[-4:] != b'\r\n\r\n' else 120)
        try:
            answer = connection.recv(4096)
        except (ConnectionResetError, TimeoutError):
            return 'none'
        match = re.match(rb'HTTP/1\.1 (\d{3})', answer)
        return match[1].decode() if match else 'none'


def fuzz(host, port, count, seed=0, every=lambda done: None):
    """A Counter of the statuses of `count` requests, or of those until Ctrl-C; `every` is called after each."""
    dice, found = random.Random(seed), collections.Counter()
    with contextlib.suppress(KeyboardInterrupt):
        for done in range(count):
            found[send(dice, host, port)] += 1
            every(done)
    return found


def bad(statuses):
    """The statuses among those of `fuzz` that should not be."""
    return {status: n for status, n in statuses.items() if status.isdecimal() and int(status) >= 500 and status != '503'}


@click.command()
@click.option('--requests', 'count', default=10000, show_default=True)
@click.option('--network', help='As of viewer.py.')
@click.option('--seed', default=0, show_default=True)
def main(count, network, seed):
    """Starts viewer.py, sends it requests, and says how it answered."""
    import psutil

    command = [sys.executable, str(ROOT / 'viewer.py'), '--port=0', '--no-browser', *([f'--network={network}'] if network else [])]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            host, port = process.stdout.readline().strip().removeprefix('http://').split(':')
            tile = b'GET /tile/4/8/8?seed=3 HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' % f'{host}:{port}'.encode()

            def answer():
                with socket.create_connection((host, int(port))) as connection:
                    connection.sendall(tile)
                    return b''.join(iter(lambda: connection.recv(65536), b'')).partition(b'\r\n\r\n')[2]

            before, memory, peak = answer(), psutil.Process(process.pid).memory_info, 0
            start, begin = memory().rss, time.time()

            def watch(done):
                nonlocal peak
                peak = max(peak, memory().rss) if done % 20 == 0 else peak

            statuses = fuzz(host, int(port), count, seed, watch)
            same = answer() == before
        finally:
            process.terminate()
        said = process.communicate()[1]
    print(f'{statuses.total()} requests in {time.time() - begin:.0f} s: '
          + ', '.join(f'{n} x {status}' for status, n in statuses.most_common()))
    print(f'memory {start / 2**20:.0f} MiB before, {peak / 2**20:.0f} MiB at most; the same tile as before: {same}')
    print(f'on stderr: {said.strip() or "nothing"}')
    if bad(statuses) or said or not same or peak - start > 2**30:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
