"""Running the server: the socket, the link with its token, the browser, and the end."""

import contextlib
import gc
import secrets
import socket
import threading
import webbrowser
from pathlib import Path

import uvicorn

from dnnlib.util import UserError
from viewing.guard import is_loopback
from viewing.server import Interface, application

PORT = 8400


def listening(host, port):
    """A socket that listens; port None is PORT, or any where that is taken. Raises UserError."""
    for attempt in [PORT, 0] if port is None else [port]:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, attempt, type=socket.SOCK_STREAM)[0]
            found = socket.socket(family, kind, protocol)
        except (OSError, UnicodeError) as error:
            raise UserError(f'--host={host}: no such address ({error})') from None
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen(128)
            return found
        except OSError as error:
            found.close()
            problem = error
    raise UserError(f'--host={host} --port={port}: cannot listen there ({problem.strerror}); leave --port out for any that is free')


def link(host, port, token):
    """The address to open: of this machine where the server listens on all addresses."""
    name = {'0.0.0.0': socket.gethostname(), '::': socket.gethostname()}.get(host, host)
    name = f'[{name}]' if ':' in name else name
    return f'http://{name}:{port}' + (f'/?token={token}' if token else '')


def http_server(app):
    """A uvicorn server of an ASGI application, with bounds on what a client may send and hold."""
    return uvicorn.Server(uvicorn.Config(
        app, interface='asgi3', lifespan='off', ws='none', http='h11', loop='asyncio', log_level='error', access_log=False,
        server_header=False, limit_concurrency=128, h11_max_incomplete_event_size=16384, timeout_graceful_shutdown=1,
    ))


@contextlib.contextmanager
def nothing_collected():
    """While entered, Python looks for no garbage: imports make hundreds of thousands of objects that stay, and going over them is a fifth
    of the time to the first picture. What is there at the end is not gone over later either."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def serve(network, device, directions=None, host='127.0.0.1', port=None, browser=True):
    """Serves the viewer until Ctrl-C. network, device, directions: as for drawing.Drawing. Raises UserError where it cannot begin."""
    for path in (network, directions):
        if path is not None and '://' not in path and not Path(path).exists():  # before there is a page
            raise UserError(f'no such file: {path}')
    errors = []

    def ended(opening):
        if opening.exception():
            errors.append(opening.exception())
            server.should_exit = True

    @nothing_collected()
    def open_drawing():
        from torch_utils.misc import pick_device
        from viewing.drawing import Drawing

        return Drawing(network, pick_device(device), directions)

    listener = listening(host, port)
    port = listener.getsockname()[1]
    token = None if is_loopback(host) else secrets.token_urlsafe(16)
    interface = Interface(open_drawing)
    server = http_server(application(interface, host, port, token))
    interface.opened.add_done_callback(ended)
    url = link(host, port, token)
    print(url, flush=True)
    if browser:
        threading.Thread(target=webbrowser.open, args=[url], daemon=True).start()
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        interface.close()
        listener.close()
    if errors:
        raise errors[0]
