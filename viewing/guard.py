"""Who may ask: Host, Origin and token of every request, checked before anything else, and the headers of every answer.

A page of another site that the same browser shows can send requests to this machine. It is refused by its Origin, by what the browser
says of where a request comes from (Sec-Fetch-Site), or, where a name of its own leads here (DNS rebinding), by the Host.
"""

import ipaddress
import re
import secrets
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl

from starlette.responses import PlainTextResponse

from viewing import MAX_QUERY

LOOPBACK = ('127.0.0.1', 'localhost', '::1')
HEADERS = {
    'Content-Security-Policy': "default-src 'self'; img-src 'self' data: blob:; worker-src blob:; style-src 'self' 'unsafe-inline'; "
                               "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    'Cache-Control': 'no-store', 'Cross-Origin-Resource-Policy': 'same-origin', 'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
}


def is_loopback(host):
    return host in LOOPBACK


def split_host(header):
    """'[::1]:80' -> ('::1', 80), 'a' -> ('a', 80); None for what is no host."""
    match = re.fullmatch(r'(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::([0-9]{1,5}))?', header.lower())
    return match and (match[1] or match[2], int(match[3] or 80))


def host_allowed(header, bound, port):
    """Whether a Host header names this server: the address it is bound to, or for a wildcard any address in numbers, or this machine."""
    found = split_host(header)
    if found is None or found[1] != port:
        return False
    if found[0] in LOOPBACK or found[0] == bound.lower():
        return True
    return bound in ('0.0.0.0', '::') and (_is_address(found[0]) or found[0] == socket.gethostname().lower())


def _is_address(host):
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Guard:
    """The application `app` behind the checks.

    host, port: what the server is bound to
    token: needed once as ?token= (the link) and then as a cookie, which the page does not see; None where the server is local
    """

    def __init__(self, app, host, port, token=None):
        self.app, self.host, self.port, self.token = app, host, port, token
        self.cookie = f'inr-viewer-{port}'

    async def __call__(self, scope, receive, send):
        assert scope['type'] == 'http', 'neither websockets nor a lifespan are served'
        headers = {}
        for name, value in scope['headers']:
            headers.setdefault(name.decode('latin-1'), []).append(value.decode('latin-1'))
        more = dict(HEADERS)
        refused = self.refuses(scope, headers)
        if refused is None and self.token and not self.has_cookie(headers):
            if self.has_token(scope):
                more['Set-Cookie'] = f'{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/'
            else:
                refused = 403, 'open the link that viewer.py printed: it has the token'

        async def send_with_headers(message):
            if message['type'] == 'http.response.start':
                message['headers'] = [*message['headers'], *((name.lower().encode(), value.encode()) for name, value in more.items())]
            await send(message)

        app = self.app if refused is None else PlainTextResponse(f'{refused[1]}\n', refused[0])
        await app(scope, receive, send_with_headers)

    def refuses(self, scope, headers):
        """(status, reason) for a request that is not answered whoever sent it, or None."""
        def only(name):
            return headers[name][0] if len(headers.get(name, ())) == 1 else ''

        if scope['method'] not in ('GET', 'HEAD'):
            return 405, 'only GET is answered'
        if len(scope['query_string']) > MAX_QUERY:
            return 414, f'the query is longer than {MAX_QUERY} characters'
        if not host_allowed(only('host'), self.host, self.port):
            return 403, 'the Host of this request is not this server'
        if 'origin' in headers and only('origin').lower() != f'http://{only("host").lower()}':
            return 403, 'the Origin of this request is another site'
        followed = scope['path'] == '/' and headers.get('sec-fetch-mode') == ['navigate']  # a link in another page
        if 'sec-fetch-site' in headers and only('sec-fetch-site') not in ('same-origin', 'none') and not followed:
            return 403, 'this request was sent by a page of another site'
        return None

    def has_cookie(self, headers):
        try:
            cookies = SimpleCookie('; '.join(headers.get('cookie', ())))
        except CookieError:
            return False
        return self.cookie in cookies and secrets.compare_digest(cookies[self.cookie].value.encode(), self.token.encode())

    def has_token(self, scope):
        given = dict(parse_qsl(scope['query_string'].decode('latin-1'))).get('token', '')
        return scope['path'] == '/' and secrets.compare_digest(given.encode(), self.token.encode())
