// Shows the Deep Zoom folder next to the page. PICTURE is {files, width, height, tile, finest}.

'use strict';

(() => {
  const {files, width, height, tile, finest} = PICTURE, canvas = document.querySelector('canvas'), context = canvas.getContext('2d');
  const status = document.querySelector('output'), KEPT = 600, images = new Map();
  let waiting = 0, missing = 0, asked = false;

  // The image of a tile, or null until it is here.
  function image(level, column, row) {
    const key = `${level}/${column}_${row}`;
    let found = images.get(key);
    if (!found) {
      found = new Image();
      waiting++;
      found.onload = () => { waiting--; again(); };
      found.onerror = () => { waiting--; missing++; again(); };
      found.src = `${files}/${key}.png`;
      if (images.size >= KEPT) images.delete(images.keys().next().value);
    } else images.delete(key);
    images.set(key, found);  // last used, last dropped
    return found.complete && found.naturalWidth ? found : null;
  }

  function paintLevel(level, view) {
    const size = 2 ** (finest - level), side = tile * size, [x0, y0, x1, y1] = view.window, {scale} = view;
    const first = value => Math.max(Math.floor(value / side), 0), last = (value, end) => Math.min(Math.ceil(value / side), Math.ceil(end / side));
    for (let row = first(y0); row < last(y1, height); row++)
      for (let column = first(x0); column < last(x1, width); column++) {
        const found = image(level, column, row);
        if (!found) continue;
        const left = Math.round((column * side - x0) * scale), top = Math.round((row * side - y0) * scale);
        const right = Math.round((Math.min(column * side + found.naturalWidth * size, width) - x0) * scale);
        const bottom = Math.round((Math.min(row * side + found.naturalHeight * size, height) - y0) * scale);
        context.drawImage(found, left, top, right - left, bottom - top);
      }
  }

  function paint(view) {
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = view.scale < 2;
    const level = Math.min(Math.max(Math.ceil(finest + Math.log2(view.scale) - 0.1), 0), finest);
    for (const each of [Math.min(8, level), level - 2, level]) if (each >= 0 && each <= level) paintLevel(each, view);
    const percent = view.scale * 100 / view.ratio;
    status.value = `${width} x ${height}, ${percent < 1 ? percent.toPrecision(1) : Math.round(percent)}%` + (missing ? `, ${missing} tiles are missing` : '');
    document.body.dataset.drawn = waiting ? '' : view.window;  // the window that is there whole
  }

  function again() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; paint(view); });
  }

  const home = {x: 0, y: 0, width, height};
  const view = new View(canvas, home, {least: 0.25 * Math.min(200 / width, 200 / height), most: 64, left: 0, top: 0, right: width, bottom: height}, again);
  const act = (name, action) => document.querySelector(`[name=${name}]`).addEventListener('click', action);
  act('closer', () => view.zoom(2));
  act('farther', () => view.zoom(0.5));
  act('home', () => view.reset());
  window.view = view;
})();
