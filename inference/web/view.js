// Looking around on a canvas: drag, wheel, two fingers, double click, arrow keys, + - 0. Used by the pages that inference/pages.py writes.

'use strict';

class View {
  // canvas: fills its parent; home: {x, y, width, height} in units of what is shown; limits: {least, most} pixels a unit, and
  // {left, top, right, bottom} that the centre keeps to; changed: called when there is something new to draw
  constructor(canvas, home, limits, changed) {
    Object.assign(this, {canvas, home, limits, changed, pointers: new Map()});
    canvas.tabIndex = 0;
    canvas.style.touchAction = 'none';
    canvas.addEventListener('pointerdown', event => this.down(event));
    canvas.addEventListener('pointermove', event => this.move(event));
    for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, event => this.pointers.delete(event.pointerId));
    canvas.addEventListener('wheel', event => this.wheel(event), {passive: false});
    canvas.addEventListener('dblclick', event => this.zoom(event.shiftKey ? 0.5 : 2, ...this.place(event)));
    window.addEventListener('keydown', event => this.key(event));
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    this.ratio = window.devicePixelRatio || 1;
    this.fit();
    this.reset();
  }

  fit() {
    const {width, height} = this.canvas.parentElement.getBoundingClientRect();
    this.ratio = window.devicePixelRatio || 1;
    const size = [width, height].map(side => Math.max(Math.round(side * this.ratio), 1));
    if (size[0] === this.canvas.width && size[1] === this.canvas.height) return false;
    [this.canvas.width, this.canvas.height] = size;  // which clears it
    return true;
  }

  resize() {
    const {width, height} = this.canvas, {x, y, scale} = this;
    if (!this.fit()) return;
    this.set(x, y, scale * Math.min(this.canvas.width / width, this.canvas.height / height));
  }

  reset() {
    const {x, y, width, height} = this.home;
    this.set(x + width / 2, y + height / 2, Math.min(this.canvas.width / width, this.canvas.height / height));
  }

  // x, y: units at the centre of the canvas; scale: canvas pixels a unit
  set(x, y, scale) {
    const {least, most, left, top, right, bottom} = this.limits;
    this.scale = Math.min(Math.max(scale, least), most);
    this.atLimit = this.scale !== scale;
    const half = [this.canvas.width / this.scale / 2, this.canvas.height / this.scale / 2];
    const kept = (value, low, high, margin) => low + margin > high - margin ? (low + high) / 2 : Math.min(Math.max(value, low + margin), high - margin);
    this.x = kept(x, left, right, Math.min(half[0], this.limits.margin ?? half[0]));
    this.y = kept(y, top, bottom, Math.min(half[1], this.limits.margin ?? half[1]));
    this.changed(this);
  }

  // [x0, y0, x1, y1] in units that the canvas shows.
  get window() {
    const across = this.canvas.width / this.scale / 2, down = this.canvas.height / this.scale / 2;
    return [this.x - across, this.y - down, this.x + across, this.y + down];
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * this.ratio, (event.clientY - box.top) * this.ratio];
  }

  // Zooms by a factor about a pixel of the canvas, which keeps its place.
  zoom(factor, px = this.canvas.width / 2, py = this.canvas.height / 2) {
    const scale = Math.min(Math.max(this.scale * factor, this.limits.least), this.limits.most);
    const share = 1 / this.scale - 1 / scale;
    this.set(this.x + (px - this.canvas.width / 2) * share, this.y + (py - this.canvas.height / 2) * share, this.scale * factor);
  }

  pan(dx, dy) {
    this.set(this.x - dx / this.scale, this.y - dy / this.scale, this.scale);
  }

  down(event) {
    if (event.pointerType === 'mouse' && event.button) return;
    this.canvas.focus({preventScroll: true});
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.place(event));
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = this.place(event);
    const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    this.pointers.set(event.pointerId, now);
    if (!other) return this.pan(now[0] - before[0], now[1] - before[1]);
    const length = place => Math.max(Math.hypot(place[0] - other[0], place[1] - other[1]), 1);
    this.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    this.zoom(length(now) / length(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  }

  wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    this.zoom(Math.exp(-Math.min(Math.max(event.deltaY * lines, -400), 400) * 0.0022), ...this.place(event));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const step = 0.15 * Math.min(this.canvas.width, this.canvas.height);
    const does = {
      ArrowLeft: () => this.pan(step, 0), ArrowRight: () => this.pan(-step, 0), ArrowUp: () => this.pan(0, step),
      ArrowDown: () => this.pan(0, -step), '+': () => this.zoom(1.5), '=': () => this.zoom(1.5), '-': () => this.zoom(1 / 1.5),
      0: () => this.reset(), Home: () => this.reset(),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }
}
