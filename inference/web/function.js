// The page of one image: looks around in it without end, coarse first, in full when the view rests; saves what it shows as PNG.
// MODEL and WASM are base64, CODE the source of a worker, NAME that of the picture.

'use strict';

(() => {
  const TILE = 192, COARSE = 8, REST = 120;  // pixels; pixels for one of the first pass; milliseconds before the full pass
  const FINEST = 2 ** 22;  // pixels a unit: float32 coordinates tell them apart up to about here
  const canvas = document.querySelector('canvas'), context = canvas.getContext('2d'), status = document.querySelector('output');
  const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const model = bytes(MODEL), wasm = bytes(WASM);
  const form = readFunction(model).form, [wide, high] = axesOf(form).map(axis => axis.extent);
  const windowOf = box => box.map((end, i) => end / (i % 2 ? high : wide));  // of what the view has in units, in which pixels are squares
  let version = 0, queue = [], shown = null, timer = 0, left = 0, saving = null, began = 0;

  // ---- Workers

  const code = URL.createObjectURL(new Blob([CODE], {type: 'text/javascript'}));
  const workers = Array.from({length: Math.min(Math.max((navigator.hardwareConcurrency || 2) - 1, 1), 6)}, () => {
    const worker = {task: true, thread: new Worker(code)};
    worker.thread.onmessage = ({data}) => {
      const {task} = worker;
      worker.task = null;
      if (!data.ready && (task.done || task.version === version)) (task.done || put)(task, data.rgba);
      pump();
    };
    worker.thread.onerror = event => { status.value = `This browser cannot draw it: ${event.message}`; };
    worker.thread.postMessage({model, wasm});
    return worker;
  });

  function pump() {
    for (const worker of workers) {
      if (worker.task) continue;
      const task = queue.shift() || (saving && saving.queue.shift());
      if (!task) return;
      worker.task = task;
      const {width, height, window, part} = task;
      worker.thread.postMessage({width, height, window, part});
    }
  }

  function tilesOf(width, height, window, more) {
    const tasks = [];
    for (let top = 0; top < height; top += TILE)
      for (let left = 0; left < width; left += TILE)
        tasks.push({width, height, window, part: {top, left, width: Math.min(TILE, width - left), height: Math.min(TILE, height - top)}, ...more});
    const far = ({part}) => Math.hypot(part.left + part.width / 2 - width / 2, part.top + part.height / 2 - height / 2);
    return tasks.sort((a, b) => far(a) - far(b));
  }

  // ---- The view

  function pass(factor) {
    const width = Math.ceil(canvas.width / factor), height = Math.ceil(canvas.height / factor), {scale} = view;
    const [x0, y0] = view.window, window = windowOf([x0, y0, x0 + width * factor / scale, y0 + height * factor / scale]);
    queue = tilesOf(width, height, window, {version, factor});
    left = queue.length;
    pump();
  }

  function put(task, rgba) {
    const {part, factor} = task, small = new OffscreenCanvas(part.width, part.height);
    small.getContext('2d').putImageData(new ImageData(rgba, part.width), 0, 0);
    context.imageSmoothingEnabled = true;
    const box = [part.left * factor, part.top * factor, part.width * factor, part.height * factor];
    context.clearRect(...box);
    context.drawImage(small, ...box);
    if (--left) return;
    if (factor > 1) {
      const wait = Math.max(REST - (performance.now() - began), 0), mine = version;
      timer = setTimeout(() => mine === version && pass(1), wait);
    } else {
      document.body.dataset.rest = version;
      say();
      history.replaceState(null, '', `#${[view.x, view.y, view.scale / view.ratio].map(Number).join(',')}`);
    }
  }

  // What was shown, moved to where it is now; then drawn anew.
  function changed(view) {
    version++;
    clearTimeout(timer);
    began = performance.now();
    delete document.body.dataset.rest;
    const [x0, y0] = view.window, {width, height} = canvas;
    if (shown && shown.width === width && shown.height === height) {
      const copy = new OffscreenCanvas(width, height), factor = view.scale / shown.scale;
      copy.getContext('2d').drawImage(canvas, 0, 0);
      context.clearRect(0, 0, width, height);
      context.drawImage(copy, (shown.x0 - x0) * view.scale, (shown.y0 - y0) * view.scale, width * factor, height * factor);
    }
    shown = {x0, y0, scale: view.scale, width, height};
    say();
    pass(COARSE);
  }

  function say(text) {
    const zoom = view.scale / view.ratio / form.img_resolution, end = view.scale >= FINEST ? ', as close as float32 goes' : '';
    status.value = text || `${zoom < 10 ? zoom.toPrecision(2) : Math.round(zoom).toLocaleString('en')} x${end}`;
  }

  // ---- Saving

  function save() {
    const times = Number(document.querySelector('[name=times]').value), width = canvas.width * times, height = canvas.height * times;
    if (saving) return;
    if (Math.max(width, height) > 16384 || width * height > 2 ** 27) return say(`${width} x ${height} is more than a browser saves: take a smaller one`);
    const whole = document.createElement('canvas'), drawn = whole.getContext('2d');
    [whole.width, whole.height] = [width, height];
    let open = 0;
    const done = ({part}, rgba) => {
      drawn.putImageData(new ImageData(rgba, part.width), part.left, part.top);
      say(`saving ${width} x ${height}: ${Math.round(100 * (1 - --open / total))}%`);
      if (open) return;
      whole.toBlob(blob => {
        const link = document.createElement('a');
        [link.href, link.download] = [URL.createObjectURL(blob), `${NAME}-${width}x${height}.png`];
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 60000);
        document.body.dataset.saved = `${width}x${height}`;
        saving = null;
        say();
      }, 'image/png');
    };
    saving = {queue: tilesOf(width, height, windowOf(view.window), {done})};
    const total = open = saving.queue.length;
    pump();
  }

  const [x0, y0, x1, y1] = form.window.map((end, i) => end * (i % 2 ? high : wide)), home = {x: x0, y: y0, width: x1 - x0, height: y1 - y0};
  let view = {x: 0, y: 0, scale: 1, ratio: 1, window: [0, 0, 1, 1]};
  const limits = {least: 4, most: FINEST, left: -1000, top: -1000, right: 1000, bottom: 1000};
  new View(canvas, home, limits, each => { view = each; changed(each); });
  const act = (name, action) => document.querySelector(`[name=${name}]`).addEventListener('click', action);
  act('closer', () => view.zoom(2));
  act('farther', () => view.zoom(0.5));
  act('home', () => view.reset());
  act('save', save);
  window.addEventListener('keydown', event => { if (event.key === 's' && !event.ctrlKey && !event.metaKey) save(); });
  const place = location.hash.slice(1).split(',').map(Number);
  if (place.length === 3 && place.every(Number.isFinite) && place[2] > 0) view.set(place[0], place[1], place[2] * view.ratio);
  window.view = view;
})();
