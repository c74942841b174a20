"""Chromium without a window, driven over a pipe by its DevTools protocol: opens a page, presses, scrolls, evaluates, takes pictures."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time

FLAGS = ('--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking', '--no-first-run',
         '--hide-scrollbars', '--remote-debugging-pipe')
AS_3_AND_4 = 'import os, sys; r, w, *command = sys.argv[1:]; os.dup2(int(r), 3); os.dup2(int(w), 4); os.execv(command[0], command)'
KEYS = {' ': 'Space', '+': 'Equal', '-': 'Minus'}


def program():
    """The path of Chromium or of Chrome, or None."""
    return next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


class Browser:
    """One page in a window of its own. A context manager.

    folder: for its profile and downloads; size: width and height of the page; patience: seconds that anything may take
    """

    def __init__(self, folder, size=(1100, 760), patience=180):
        self.folder, self.patience, self.number, self.held, self.events, self.session = folder, patience, 0, b'', [], None
        (theirs_in, self.ours_out), (self.ours_in, theirs_out) = os.pipe(), os.pipe()
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs_in, theirs_out)]
        self.process = subprocess.Popen(
            [sys.executable, '-c', AS_3_AND_4, *map(str, theirs), program(), *FLAGS, f'--user-data-dir={folder}/profile', 'about:blank'],
            pass_fds=theirs, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for fd in (theirs_in, theirs_out, *theirs):
            os.close(fd)
        target = self('Target.createTarget', url='about:blank')['targetId']
        self.session = self('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log'):
            self(f'{domain}.enable')
        self('Browser.setDownloadBehavior', behavior='allow', downloadPath=str(folder))
        self.resize(*size)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        os.close(self.ours_in)
        os.close(self.ours_out)

    def __call__(self, method, **params):
        """The result of a command of the protocol."""
        self.number += 1
        message = {'id': self.number, 'method': method, 'params': params} | ({'sessionId': self.session} if self.session else {})
        os.write(self.ours_out, json.dumps(message).encode() + b'\0')
        end = time.monotonic() + self.patience
        while True:
            answer = self._next(end)
            if answer.get('id') == self.number:
                if 'error' in answer:
                    raise RuntimeError(f'{method}: {answer["error"]}')
                return answer['result']
            self.events.append(answer)

    def _next(self, end):
        while b'\0' not in self.held:
            if not select.select([self.ours_in], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError('the browser does not answer')
            part = os.read(self.ours_in, 2**20)
            if not part:
                raise RuntimeError('the browser has ended')
            self.held += part
        text, _, self.held = self.held.partition(b'\0')
        return json.loads(text)

    def resize(self, width, height, mobile=False):
        self('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def open(self, url):
        self('Page.navigate', url=url)

    def reload(self):
        """Loads the page anew; returns when the new one is there."""
        self.value('window.before = true')
        self('Page.reload')
        self.wait('!window.before && document.readyState === "complete"')

    def value(self, expression):
        """What an expression of JavaScript comes to; promises are waited for."""
        found = self('Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True)
        if 'exceptionDetails' in found:
            raise RuntimeError(f'{expression}: {found["exceptionDetails"]}')
        return found['result'].get('value')

    def wait(self, expression):
        """Waits until an expression is true, and returns it. A page that is left meanwhile has no answer, which is not true."""
        def asked():
            try:
                return self.value(expression)
            except RuntimeError as error:
                if 'context' in str(error) or 'navigated' in str(error):
                    return None
                raise

        end = time.monotonic() + self.patience
        while not (found := asked()):
            if time.monotonic() > end:
                raise TimeoutError(f'never true: {expression}')
            time.sleep(0.03)
        return found

    def press(self, key):
        code = KEYS.get(key, key if len(key) > 1 else f'Key{key.upper()}')
        text = {'text': key} if len(key) == 1 else {}
        self('Input.dispatchKeyEvent', type='keyDown', key=key, code=code, **text)
        self('Input.dispatchKeyEvent', type='keyUp', key=key, code=code)

    def mouse(self, kind, x, y, **more):
        self('Input.dispatchMouseEvent', type=kind, x=x, y=y, **more)

    def drag(self, a, b, steps=5):
        """With the left button from a to b, both (x, y) in pixels of the page."""
        held = {'button': 'left', 'buttons': 1, 'clickCount': 1}
        self.mouse('mousePressed', *a, **held)
        for step in range(1, steps + 1):
            self.mouse('mouseMoved', *(p + (q - p) * step / steps for p, q in zip(a, b, strict=True)), **held)
        self.mouse('mouseReleased', *b, **held | {'buttons': 0})

    def click(self, selector):
        """On the middle of an element, as a pointer does."""
        self.value(f'document.querySelector({selector!r}).scrollIntoView({{block: "nearest"}})')
        x, y = self.value(f'(({{left, top, width, height}}) => [left + width / 2, top + height / 2])'
                          f'(document.querySelector({selector!r}).getBoundingClientRect())')
        self.mouse('mousePressed', x, y, button='left', buttons=1, clickCount=1)
        self.mouse('mouseReleased', x, y, button='left', clickCount=1)

    def enter(self, selector, value):
        """Sets a control as if it had been moved or typed into."""
        self.value(f'(e => {{ e.value = {json.dumps(str(value))}; e.dispatchEvent(new Event("input", {{bubbles: true}})); }})'
                   f'(document.querySelector({selector!r}))')

    def picture(self, path=None):
        """A PNG of the page as bytes; also written to `path`."""
        packed = base64.b64decode(self('Page.captureScreenshot', format='png')['data'])
        if path is not None:
            path.write_bytes(packed)
        return packed

    def complaints(self):
        """What the page has thrown or logged as an error."""
        found = []
        for event in self.events:
            params = event.get('params', {})
            if event.get('method') == 'Runtime.exceptionThrown':
                details = params['exceptionDetails']
                found.append(details.get('exception', {}).get('description', details['text']))
            elif event.get('method') == 'Runtime.consoleAPICalled' and params['type'] == 'error':
                found.append(' '.join(str(part.get('value', part.get('description', ''))) for part in params['args']))
            elif event.get('method') == 'Log.entryAdded' and params['entry']['level'] == 'error':
                found.append(f'{params["entry"]["text"]} {params["entry"].get("url", "")}')
        return found
