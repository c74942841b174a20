// The page: controls that change the view, and the image that shows it.

import { hash, query, read } from './state.js';
import { MAX_LEVEL, MIN_LEVEL, PLANE, TILE, tileSource } from './tiles.js';

const $ = (id) => document.getElementById(id);
const PIXELS = TILE * 2 ** MAX_LEVEL / PLANE.side; // of an image at the last level
const HOME = [-0.06, -0.06, 1.06, 1.06];
const SECONDS_OF_A_WALK = 4;
let { view, box } = read(location.hash);
let info;

// ---- The image

const viewer = OpenSeadragon({
  element: $('stage'), drawer: 'canvas', showNavigationControl: false, keyboardNavEnabled: false, visibilityRatio: 0, minZoomLevel: 1 / PLANE.side,
  imageLoaderLimit: 4, maxTilesPerFrame: 4, timeout: 300000, maxImageCacheCount: 300, animationTime: 0.6, minPixelRatio: 0.7,
  silenceMultiImageWarnings: true, preserveViewport: true, gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
});
$('stage').viewer = viewer; // for whoever looks from the console, and for the tests
let settled = null, coming = null, again = false;

// Shows the view as it is now: over the last one, which stays until the new one is there.
function show() {
  keepInAddress();
  if (coming && !coming.drawn) { again = true; return; }
  drop(coming);
  again = false;
  const mine = { source: tileSource(query(view), say), item: null, drawn: 0 };
  coming = mine;
  viewer.addTiledImage({
    tileSource: mine.source, x: PLANE.left, y: PLANE.top, width: PLANE.side,
    success: ({ item }) => {
      mine.item = item;
      item.addHandler('fully-loaded-change', ({ fullyLoaded }) => {
        if (fullyLoaded && coming === mine) settle();
        else if (settled === mine && !coming) document.body.classList.toggle('drawing', !fullyLoaded);
      });
    },
  });
  document.body.classList.add('drawing');
}

function settle() {
  drop(settled);
  [settled, coming] = [coming, null];
  document.body.classList.remove('drawing');
  if (again) show();
}

function drop(layer) {
  if (!layer) return;
  layer.source.giveUp();
  if (layer.item) viewer.world.removeItem(layer.item);
}

viewer.addHandler('tile-loaded', ({ tiledImage }) => {
  if (coming?.item !== tiledImage) return;
  say('');
  coming.drawn += 1;
  if (again) show();
});
viewer.addHandler('tile-load-failed', () => { if (coming) coming.drawn += 1; });

function bounds() {
  const { x, y, width, height } = viewer.viewport.getBounds();
  return [x, y, x + width, y + height];
}

function fit([x0, y0, x1, y1], immediately) {
  viewer.viewport.fitBounds(new OpenSeadragon.Rect(x0, y0, x1 - x0, y1 - y0), immediately);
}

const pixelsAnImage = () => viewer.viewport.getContainerSize().x * viewer.viewport.getZoom();

// Whether a tile is still of use: in sight and no finer than what is shown.
function inSight({ level, x, y }) {
  const side = PLANE.side / 2 ** level, [x0, y0, x1, y1] = bounds(), left = PLANE.left + x * side, top = PLANE.top + y * side;
  const finest = Math.ceil(Math.log2(pixelsAnImage() * devicePixelRatio * PLANE.side / TILE)) + 1;
  return left < x1 && left + side > x0 && top < y1 && top + side > y0 && level <= Math.max(finest, MIN_LEVEL);
}

let moved = 0;
viewer.addHandler('viewport-change', () => {
  clearTimeout(moved);
  moved = setTimeout(() => {
    for (const layer of [settled, coming]) layer?.source.giveUp(inSight);
    keepInAddress();
    sayPlace();
  }, 80);
});
viewer.addHandler('resize', sized);

function sized() {
  viewer.viewport.maxZoomLevel = 2 * PIXELS / Math.max(viewer.viewport.getContainerSize().x, 1);
  sizesToSave();
  sayPlace();
}

const frame = Object.assign(document.createElement('div'), { className: 'frame' });

function sayPlace() {
  const pixels = pixelsAnImage(), [x0, y0, x1, y1] = bounds(), digits = Math.max(2, Math.ceil(Math.log10(pixels)));
  const ends = pixels > PIXELS ? ' · float32 coordinates end here' : '';
  $('place').textContent = `x ${((x0 + x1) / 2).toFixed(digits)}  y ${((y0 + y1) / 2).toFixed(digits)}  ·  `
    + `${Math.round(pixels).toLocaleString('en')} pixels an image${ends}`;
  frame.style.display = pixels > 4 * viewer.viewport.getContainerSize().x ? 'none' : '';
}

function say(text) { $('status').textContent = text; }

function keepInAddress() {
  if (info) history.replaceState(null, '', hash(view, bounds()));
}

// ---- Controls

const outputs = Object.fromEntries([...document.querySelectorAll('output')].map((output) => [output.htmlFor.value, output]));
const optional = (text) => text === '' ? null : clampSeed(Number(text));
const clampSeed = (seed) => Math.min(Math.max(Math.round(seed) || 0, 0), 2 ** 32 - 1);

// A control: the field of the view it is, how its text becomes a value and back, and what stands beside it.
const CONTROLS = {
  seed: { parse: (text) => clampSeed(Number(text)) },
  psi: { parse: Number, beside: (psi) => psi.toFixed(2) },
  cutoff: { parse: (text) => Number(text) >= info.num_ws ? null : Number(text), text: (cutoff) => cutoff ?? info.num_ws, beside: (cutoff) => cutoff ?? 'all' },
  refine: {},
  to: { parse: optional },
  share: { parse: Number, beside: (share) => share.toFixed(2) },
  space: {},
  style: { parse: optional },
  snapshot: {
    parse: (text) => info.snapshots[Number(text)] === info.opened ? null : info.snapshots[Number(text)],
    text: (images) => Math.max(info.snapshots.indexOf(images ?? info.opened), 0), beside: (images) => `${(images ?? info.opened) / 1000}k`,
  },
};

for (const [id, control] of Object.entries(CONTROLS)) {
  $(id).addEventListener('input', () => {
    view[id] = (control.parse ?? String)($(id).value);
    changed();
  });
}

function changed() {
  fill();
  show();
}

// Makes the controls say what the view is.
function fill() {
  for (const [id, { text = (value) => value ?? '', beside }] of Object.entries(CONTROLS)) {
    const value = String(text(view[id]));
    if ($(id).value !== value && !(document.activeElement === $(id) && $(id).type === 'number')) $(id).value = value;
    if (beside) outputs[id].textContent = beside(view[id]);
  }
  for (const button of $('layers').children) button.setAttribute('aria-pressed', view.layers.includes(Number(button.textContent)));
  $('share').disabled = $('space').disabled = view.to === null;
  fillClasses();
  fillDirections();
}

// An option for each class; those of a group, 'animals/3', stand under its name.
function classOptions(names) {
  const groups = new Map(), found = [];
  names.forEach((name, index) => {
    const group = name.match(/^(.+)\/\d+$/)?.[1];
    if (group === undefined) {
      found.push(new Option(name, index));
      return;
    }
    if (!groups.has(group)) {
      groups.set(group, Object.assign(document.createElement('optgroup'), { label: group }));
      found.push(groups.get(group));
    }
    groups.get(group).append(new Option(name, index));
  });
  return found;
}

// Classes are (class, weight) pairs, two at most from the controls: '3' alone, or '3:0.7,5:0.3'.
function fillClasses() {
  const [[first, weight], [second] = []] = view.label ? view.label.split(',').map((pair) => pair.split(':')) : [['', 1]];
  $('class').value = first;
  $('other').value = second ?? '';
  $('part').value = second === undefined ? 0 : 1 - weight;
  outputs.part.textContent = Number($('part').value).toFixed(2);
  $('other').disabled = first === '';
  $('part').disabled = first === '' || second === undefined;
}

function readClasses(event) {
  const first = $('class').value, second = $('other').value;
  if (event.target === $('other') && second !== '') $('part').value = 0.5;
  const part = Number($('part').value);
  if (first === '') view.label = '';
  else if (second === '' || second === first) view.label = `${first}:1`;
  else view.label = `${first}:${(1 - part).toFixed(2)},${second}:${part.toFixed(2)}`;
  changed();
}
for (const id of ['class', 'other', 'part']) $(id).addEventListener('input', readClasses);

// Directions are (number, strength) pairs: '0:1.5,3:-2', a slider each.
const strengths = () => new Map(view.directions ? view.directions.split(',').map((pair) => pair.split(':').map(Number)) : []);

function fillDirections() {
  const found = strengths();
  for (const row of $('sliders').children) {
    const strength = found.get(Number(row.dataset.number)) ?? 0;
    row.querySelector('input').value = strength;
    row.querySelector('output').textContent = strength.toFixed(1);
  }
}

function addSliders(count) {
  const first = $('sliders').children.length;
  for (let number = first; number < Math.min(first + count, info.directions); number += 1) {
    const row = document.createElement('div');
    row.className = 'row';
    row.dataset.number = number;
    row.innerHTML = `<label for="direction-${number}">${number}</label>`
      + `<input id="direction-${number}" type="range" min="-4" max="4" step="0.1"><output for="direction-${number}"></output>`;
    row.querySelector('input').addEventListener('input', ({ target }) => {
      const found = strengths();
      found.set(number, Number(target.value));
      view.directions = [...found].filter(([, strength]) => strength).sort(([a], [b]) => a - b).map((pair) => pair.join(':')).join(',');
      changed();
    });
    $('sliders').append(row);
  }
  $('more').hidden = $('sliders').children.length >= info.directions;
  fillDirections();
}

function step(by) {
  view.seed = clampSeed(view.seed + by);
  changed();
}
const draw = () => { view.seed = Math.floor(Math.random() * 100000); changed(); };

let playing = 0;
function play() {
  if (playing) { cancelAnimationFrame(playing); playing = 0; $('play').textContent = 'Play'; return; }
  view.to ??= clampSeed(view.seed + 1);
  $('walk').open = true;
  $('play').textContent = 'Pause';
  let last = null;  // the first frame's time, which may lie before the click
  const turn = (now) => {
    view.share += (now - (last ?? now)) / 1000 / SECONDS_OF_A_WALK;
    last = now;
    if (view.share >= 1) Object.assign(view, { seed: view.to, to: clampSeed(view.to + 1), share: 0 });
    view.share = Math.round(view.share * 1000) / 1000;
    changed();
    playing = requestAnimationFrame(turn);
  };
  playing = requestAnimationFrame(turn);
}

// ---- Keeping a view

function sizesToSave() {
  const { x, y } = viewer.viewport.getContainerSize(), chosen = $('times').value || '2';
  $('times').replaceChildren(...[1, 2, 4, 8, 16].map((n) => {
    const option = new Option(`${n}x: ${Math.round(x * n)} x ${Math.round(y * n)}`, n);
    option.disabled = info && Math.round(x * n) * Math.round(y * n) > info.most_pixels;
    return option;
  }));
  $('times').value = chosen;
}

async function save() {
  const [x0, y0, x1, y1] = bounds(), { x, y } = viewer.viewport.getContainerSize(), n = Number($('times').value);
  const picture = new URLSearchParams({ x0, y0, x1, y1, width: Math.round(x * n), height: Math.round(y * n), format: $('format').value });
  $('save-view').disabled = true;
  say(`Drawing ${picture.get('width')} x ${picture.get('height')} ...`);
  try {
    const answer = await fetch(`save?${picture}&${query(view)}`);
    if (!answer.ok) throw new Error((await answer.text()).trim());
    const file = await answer.blob();
    const anchor = Object.assign(document.createElement('a'), { href: URL.createObjectURL(file), download: `seed${view.seed}.${picture.get('format')}` });
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 60000);
    say(`Saved ${anchor.download}, ${(file.size / 1e6).toFixed(1)} MB`);
  } catch (error) {
    say(`Not saved: ${error.message}`);
  } finally {
    $('save-view').disabled = false;
  }
}

async function copyLink() {
  keepInAddress();
  try {
    await navigator.clipboard.writeText(location.href);
    say('Link copied');
  } catch {
    say('Copy the address of this page: it brings back this view');
  }
}

// ---- Keys and buttons

const toggle = () => {
  const closed = document.body.classList.toggle('closed');
  $('toggle').setAttribute('aria-expanded', String(!closed));
};
const zoom = (factor) => { viewer.viewport.zoomBy(factor); viewer.viewport.applyConstraints(); keepInAddress(); };
const pan = (x, y) => {
  const { width, height } = viewer.viewport.getBounds();
  viewer.viewport.panBy(new OpenSeadragon.Point(x * width / 8, y * height / 8));
  viewer.viewport.applyConstraints();
  keepInAddress();
};
const home = () => { fit(HOME); keepInAddress(); };
const KEYS = {
  ArrowLeft: () => pan(-1, 0), ArrowRight: () => pan(1, 0), ArrowUp: () => pan(0, -1), ArrowDown: () => pan(0, 1),
  '+': () => zoom(1.5), '=': () => zoom(1.5), '-': () => zoom(1 / 1.5), h: home, n: () => step(1), b: () => step(-1), r: draw,
  ' ': play, s: save, l: copyLink, p: toggle,
};
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key] || !info) return;
  if (event.target.matches('input, select') || event.key === ' ' && event.target.matches('button, summary')) return;
  event.preventDefault();
  KEYS[event.key]();
});
const BUTTONS = {
  'zoom-in': () => zoom(2), 'zoom-out': () => zoom(0.5), home, previous: () => step(-1), next: () => step(1), random: draw, play,
  more: () => addSliders(5), straight: () => { view.directions = ''; changed(); }, 'save-view': save, copy: copyLink, toggle,
};
for (const [id, press] of Object.entries(BUTTONS)) $(id).addEventListener('click', press);
$('panel').addEventListener('submit', (event) => event.preventDefault());
$('stage').tabIndex = 0;
window.addEventListener('hashchange', ({ newURL }) => { // not location.hash, which may say the view that is left by now
  ({ view, box } = read(new URL(newURL).hash));
  if (!info) return;
  if (playing) play();
  if (box) fit(box, true);
  changed();
});

// ---- The beginning

function build() {
  $('name').textContent = `${info.name} · trained at ${info.size.join(' x ')}${info.whole ? ', draws this size only' : ''}`;
  $('refine').parentElement.hidden = info.whole;
  $('cutoff').max = info.num_ws;
  $('layers').replaceChildren(...Array.from({ length: info.num_ws }, (_, layer) => {
    const button = Object.assign(document.createElement('button'), { type: 'button', textContent: layer });
    button.addEventListener('click', () => {
      view.layers = view.layers.includes(layer) ? view.layers.filter((other) => other !== layer) : [...view.layers, layer].sort((a, b) => a - b);
      changed();
    });
    return button;
  }));
  const names = info.classes ?? Array.from({ length: info.c_dim }, (_, index) => `class ${index}`);
  $('classes').hidden = !info.c_dim;
  $('class').replaceChildren(new Option('by seed', ''), ...classOptions(names));
  $('other').replaceChildren(new Option('none', ''), ...classOptions(names));
  $('snapshots').hidden = info.snapshots.length < 2 || info.opened === null;
  $('snapshot').max = info.snapshots.length - 1;
  addSliders(Math.max(5, ...[...strengths().keys()].map((number) => number + 1)));
  $('directions').open = view.directions !== '';
  $('walk').open = view.to !== null;
  $('mix').open = view.style !== null;
  $('panel').inert = false;
}

async function begin() {
  if (matchMedia('(max-width: 760px)').matches) toggle();
  fit(box ?? HOME, true);
  say('Opening the network ...');
  const answer = await fetch('info');
  if (!answer.ok) throw new Error((await answer.text()).trim());
  info = await answer.json();
  say('');
  build();
  const [width, height] = info.size.map((side) => side / Math.max(...info.size)); // in the middle of a square of side 1
  viewer.addOverlay({ element: frame, location: new OpenSeadragon.Rect((1 - width) / 2, (1 - height) / 2, width, height) });
  sized();
  fit(box ?? HOME, true);
  changed();
}
begin().catch((error) => say(error.message));
