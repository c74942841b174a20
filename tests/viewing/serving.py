"""A viewer of a tiny network, listening in this process."""

import threading
import time
from contextlib import contextmanager

import pytest

pytest.importorskip('inr')

from tests import tiny_snapshots  # noqa: E402
from viewing import run, server  # noqa: E402
from viewing.drawing import Drawing  # noqa: E402


def tiny(**more):
    """A generator of inr with four classes and weights that differ from layer to layer."""
    return tiny_snapshots.inr(**{'c_dim': 4} | more)


@contextmanager
def served(network, host='127.0.0.1', token=None, make=None):
    """Yields (address, server.Interface, drawing.Drawing) of a snapshot's file."""
    drawing = make() if make else Drawing(str(network), 'cpu')
    interface = server.Interface(lambda: drawing)
    listener = run.listening(host, 0)
    port = listener.getsockname()[1]
    http = run.http_server(server.application(interface, host, port, token))
    thread = threading.Thread(target=http.run, args=[[listener]])
    thread.start()
    try:
        yield f'http://127.0.0.1:{port}', interface, drawing
    finally:
        http.should_exit = True
        thread.join()
        interface.close()
        listener.close()


def until(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'it never came'
        time.sleep(0.005)
