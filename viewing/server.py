"""The HTTP interface of the viewer: the page, /info, /tile/LEVEL/X/Y and /save.

Answers are drawn one after the other in one thread; whoever hangs up is taken out of the queue. The client names no file, no folder and no
class: what is read from the disk is fixed when the server starts, and a snapshot is named by a number out of a list.
"""

import asyncio
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from dnnlib import image_io
from dnnlib.util import UserError
from viewing.guard import Guard
from viewing.kept import Kept
from viewing.state import BadQuery, read_picture, read_view, tile_window

STATIC = Path(__file__).with_name('static')
TYPES = {'.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml'}
TILE_CACHE_BYTES = 64 * 2**20
MOST_WAITING = 64  # tiles
GONE = 499  # as nginx calls a request whose client hung up; nobody reads it


class Stopped(Exception):
    """Nobody waits for this picture any more."""


class Interface:
    """The answers to a page's requests.

    open_drawing: function that returns a drawing.Drawing; it is called in the drawing thread, and answers wait until it is done
    """

    def __init__(self, open_drawing):
        self.files = {path.name: (path.read_bytes(), TYPES[path.suffix]) for path in STATIC.iterdir() if path.suffix in TYPES}
        self.tiles, self.waiting, self.saving = Kept(TILE_CACHE_BYTES, len), 0, asyncio.Lock()
        self.pen = ThreadPoolExecutor(1, 'drawing')
        self.asked = False  # whether anybody waits for the drawing
        self.opened = self.pen.submit(self.open, open_drawing)

    def open(self, open_drawing):
        """The drawing; where nobody waits for it yet, its first tile is drawn beforehand."""
        drawing = open_drawing()
        if not self.asked:
            drawing.warm_up()
        return drawing

    @property
    def routes(self):
        return [Route('/', self.page), Route('/static/{name}', self.static), Route('/info', self.info),
                Route('/tile/{level}/{x}/{y}', self.tile), Route('/save', self.save)]

    async def drawing(self):
        self.asked = True
        return await asyncio.wrap_future(self.opened)

    def page(self, request):
        return self.file('index.html')

    def static(self, request):
        return self.file(request.path_params['name'])

    def file(self, name):
        if name not in self.files:
            raise HTTPException(404)
        content, kind = self.files[name]
        return Response(content, media_type=kind)

    async def info(self, request):
        drawing = await self.drawing()
        return JSONResponse(drawing.info())

    async def tile(self, request):
        drawing = await self.drawing()
        place = [int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
                 for text in (request.path_params[name] for name in ('level', 'x', 'y'))]
        tile_window(*place)
        view = read_view(words(request), drawing.limits())
        packed = self.tiles.get((view, *place))
        if packed is None:
            if self.waiting >= MOST_WAITING:
                raise HTTPException(503, 'too many tiles are waiting to be drawn', {'Retry-After': '1'})
            self.waiting += 1
            try:
                work = self.pen.submit(drawing.tile, view, *place)
                packed = self.tiles.put((view, *place), await unless_gone(request, asyncio.wrap_future(work), work.cancel))
            finally:
                self.waiting -= 1
        return Response(packed, media_type='image/png')

    async def save(self, request):
        drawing, given = await self.drawing(), words(request)
        picture = read_picture(given)
        view = read_view(given, drawing.limits())
        if self.saving.locked():
            raise HTTPException(503, 'another view is being saved; one at a time', {'Retry-After': '5'})
        stopped = threading.Event()
        async with self.saving:
            folder = tempfile.TemporaryDirectory(prefix='inr-viewer-', ignore_cleanup_errors=True)
            try:
                path = Path(folder.name) / f'view.{picture.format}'
                work = asyncio.ensure_future(asyncio.to_thread(self.write, drawing, view, picture, path, stopped))
                await unless_gone(request, work, stopped.set)
            except BaseException:
                folder.cleanup()
                raise
        return FileResponse(path, filename=f'seed{view.seed:04d}.{picture.format}', background=BackgroundTask(folder.cleanup))

    def write(self, drawing, view, picture, path, stopped):
        """Writes a picture band by band; tiles are drawn between the bands."""
        channels, bands = self.pen.submit(drawing.bands, view, picture).result()

        def drawn():
            while not stopped.is_set():
                band = self.pen.submit(next, bands, None).result()
                if band is None:
                    return
                yield band
            raise Stopped

        image_io.write(path, drawn(), picture.width, picture.height, channels, picture.format)

    def close(self):
        self.pen.shutdown(wait=False, cancel_futures=True)


def words(request):
    """The query as {name: text}. Raises BadQuery for a name that is there twice."""
    found = request.query_params.multi_items()
    if len(dict(found)) < len(found):
        raise BadQuery('a name is there twice')
    return dict(found)


async def unless_gone(request, work, stop):
    """The result of a future; where the client hangs up before it is there, `stop` is called and, once it has an end, GONE raised."""
    async def hung_up():
        while (await request.receive())['type'] != 'http.disconnect':
            pass

    work.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to ask for it
    gone = asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            stop()
            await asyncio.wait({work})
            raise HTTPException(GONE)
        return work.result()
    finally:
        gone.cancel()
        if not work.done():
            stop()


def in_one_line(status):
    return lambda request, error: PlainTextResponse(f'{" ".join(str(error).split())}\n', status)


def http_error(request, error):
    return PlainTextResponse(f'{error.detail}\n', error.status_code, error.headers)


def application(interface, host, port, token=None):
    """The ASGI application behind its Guard."""
    handlers = {BadQuery: in_one_line(400), UserError: in_one_line(409), HTTPException: http_error}
    return Guard(Starlette(routes=interface.routes, exception_handlers=handlers), host, port, token)
