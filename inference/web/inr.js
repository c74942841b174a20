// Draws an image out of a file of `generate.py --format=function` (inr/function.py), at any size and in any window: refinement.plan and
// the layers, the latter by layers.wasm. The same file runs in a page's worker and in node. Positions are float64 as in Python.

'use strict';

const LD = 96;  // points of a panel, as in layers.c
const SNAP = 1e-9;

// ---- The file

function floatOfHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

// {form, tensors: {name: {shape, data: Float32Array}}} of the bytes (Uint8Array) of a file.
function readFunction(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = view.getUint32(0, true), header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + size)));
  const tensors = {};
  for (const [name, {dtype, shape, data_offsets: place}] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const [start, end] = place, width = dtype === 'F16' ? 2 : 4, data = new Float32Array((end - start) / width);
    for (let i = 0; i < data.length; i++) {
      const at = 8 + size + start + i * width;
      data[i] = dtype === 'F16' ? floatOfHalf(view.getUint16(at, true)) : view.getFloat32(at, true);
    }
    tensors[name] = {shape, data};
  }
  return {form: JSON.parse(header.__metadata__.inr_function), tensors};
}

// ---- The plan of one axis, as in inr/refinement.py

function snapped(t) {
  const nearest = Math.round(t);
  return Math.abs(t - nearest) <= SNAP * Math.max(1, Math.abs(t)) ? nearest : t;
}

const clip = (value, low, high) => Math.min(Math.max(value, low), high);
const around = (value, length) => value - Math.floor(value / length) * length;  // of a circle

// What the axes of a picture are, in columns and in rows: see grid.Convention and refinement._plan_axis.
function axesOf(form) {
  const [wide, high] = form.extent ?? [1, 1], [wrapsX, wrapsY] = form.periodic ?? [false, false];
  return [{farCorner: false, wraps: wrapsX, extent: wide}, {farCorner: form.lower_corner, wraps: wrapsY, extent: high}];
}

// The cell of the trained grid that an index means.
const heldCell = (index, count, wraps) => wraps ? around(index, count) : clip(index, 0, count - 1);

// {lo, hi: Int32Array, share: Float32Array} of index and share, counts of samples
function readsOf(index, share, needed) {
  const place = new Map(needed.map((value, i) => [value, i]));
  return {
    lo: Int32Array.from(index, i => place.get(i)), hi: Int32Array.from(index, (i, n) => place.get(share[n] > 0 ? i + 1 : i)),
    share: Float32Array.from(share),
  };
}

// coarser: cells of the coarser grid along the axis
function within(t, behind, coarser) {
  const first = -behind, end = coarser - behind, last = Math.ceil(coarser) - 1;
  if (t > -1 && t < 0) t = Math.min((t + 1) / (first + 1) - 1, 0);
  if (end > last && end < last + 1 && t > last && t < last + 1) t = last + Math.max(t - end, 0) / (last + 1 - end);
  return t;
}

// How long a cell of a grid is as it is drawn, in units.
function cellLength(resolution, density, form, grids) {
  const finest = grids[grids.length - 1], factor = resolution === finest || form.refine === 'all' ? Math.max(density / finest, 1) : 1;
  return 1 / Math.min(density, resolution * factor);
}

// Of each grid, coarse to fine, {at: positions, parent: reads of the coarser grid or null, cells: reads of its own trained cells,
// pixel: length of what a point stands for}.
function planAxis(position, density, form, grids, {farCorner, wraps, extent}) {
  const finest = grids[grids.length - 1], factor = Math.max(snapped(density / finest), 1), axis = [];
  const shift = farCorner ? 1 : 0, sign = farCorner ? -1 : 1;
  let middles = form.middles;
  if (middles && (factor === 1 || form.refine === 'smooth')) {
    position = position.map(p => p + (0.5 / density - 0.5 / finest) * sign);
    middles = false;
  }
  for (let level = grids.length - 1; level >= 0; level--) {
    const resolution = grids[level], count = Math.round(resolution * extent), lead = (0.5 / resolution - (middles ? 0 : 0.5 / finest)) * sign;
    const moves = form.refine === 'all' || (middles && resolution === finest);
    const at = moves ? position.map(p => p - lead * (1 - 1 / factor)) : position, pixel = cellLength(resolution, density, form, grids);
    const cells = {lo: new Int32Array(at.length), hi: new Int32Array(at.length), share: new Float32Array(at.length)};
    at.forEach((p, n) => {
      const t = snapped(snapped(p * resolution) - shift), index = Math.floor(t);
      cells.lo[n] = heldCell(index, count, wraps);
      cells.hi[n] = heldCell(index + 1, count, wraps);
      cells.share[n] = t - index;
    });
    if (level === 0) {
      axis.push({at, parent: null, cells, pixel});
      break;
    }
    const coarser = grids[level - 1] * (form.refine === 'all' ? factor : 1);
    const middle = (0.5 / grids[level - 1] - 0.5 / resolution) * sign, behind = middle * grids[level - 1] + shift;
    const smooth = form.refine === 'smooth' && level === grids.length - 1 && factor > 1;
    const index = [], share = [];
    for (const p of position) {
      let t;
      if (form.upsampling === 'linear') {
        t = snapped(p * coarser) - behind;
        t = snapped(wraps ? t : within(t, behind, coarser * extent));
      } else if (smooth) {
        t = snapped(snapped((p - middle) * coarser) - shift);
        const low = Math.floor(t);
        t = low + clip((Math.fround(t - low) - 0.5) / Math.min(factor - 1, 1) + 0.5, 0, 1);
      } else {
        t = snapped(p * coarser);
        t = farCorner ? Math.ceil(t) - 1 : Math.floor(t);
      }
      index.push(Math.floor(t));
      share.push(Math.fround(t - Math.floor(t)));
    }
    const needed = [...new Set([...index, ...index.filter((_, n) => share[n] > 0).map(i => i + 1)])].sort((a, b) => a - b);
    axis.push({at, parent: readsOf(index, share, needed), cells, pixel});
    position = needed.map(i => (i + shift) / coarser);
  }
  return axis.reverse();
}

// What a pixel leaves of each wave of a block, as in inr/footprint.py; pixel: [width, height] in units.
function keptOf(block, rowsX, rowsY, pixel, unit) {
  if (!block.footprint) return rowsX.map(() => 1);
  const least = block.footprint === 'larger' ? (2 / block.grid) ** 2 : 0, [a, b] = pixel.map(side => Math.max((side * unit) ** 2 - least, 0));
  return rowsX.map((x, i) => Math.exp((x * x * a + rowsY[i] * rowsY[i] * b) / -24));
}

// ---- Drawing

class Inr {
  // file: what readFunction gives; wasm: exports of layers.wasm
  constructor({form, tensors}, wasm) {
    this.form = form;
    this.wasm = wasm;
    this.axes = axesOf(form);
    this.grids = [...new Set(form.blocks.map(block => block.grid))].sort((a, b) => a - b);
    this.top = (wasm.__heap_base.value + 15) & ~15;
    const widest = Math.max(...form.blocks.map(block => Math.max(block.channels, block.in_channels, form.img_channels) + 4));
    const features = Math.max(...form.blocks.map(block => 2 * block.raw + block.rows * (1 + block.cosine) + block.constants)) + 4;
    this.panels = [0, 1, 2].map(() => this.take(widest * LD));
    this.featurePanel = this.take(features * LD);
    this.blocks = form.blocks.map(block => this.loaded(block, name => tensors[`b${block.name}.${name}`].data));
    this.floor = this.top;
  }

  // Room for so many floats: an index into `floats`.
  take(count) {
    const start = this.top;
    this.top = (start + 4 * count + 15 + 64) & ~15;
    const missing = this.top - this.wasm.memory.buffer.byteLength;
    if (missing > 0) this.wasm.memory.grow(Math.ceil(missing / 65536));
    return start;
  }

  get floats() { return new Float32Array(this.wasm.memory.buffer); }
  get integers() { return new Int32Array(this.wasm.memory.buffer); }

  put(values, room = values.length) {
    const start = this.take(room);
    (values instanceof Int32Array ? this.integers : this.floats).set(values, start / 4);
    return start;
  }

  // Columns from..to of weights [rows][width] as layers.c reads them: [rows / 4][columns][4].
  packed(weights, rows, width, from, to) {
    const inner = to - from, out = new Float32Array(Math.ceil(rows / 4) * 4 * inner);
    for (let row = 0; row < rows; row++)
      for (let k = 0; k < inner; k++) out[((row >> 2) * inner + k) * 4 + (row & 3)] = weights[row * width + from + k];
    return this.put(out);
  }

  loaded(block, tensor) {
    const features = 2 * block.raw + block.rows * (1 + block.cosine) + block.constants, channels = this.form.img_channels;
    let below = block.in_channels;
    const bias = (name, rows) => this.put(tensor(name), Math.ceil(rows / 4) * 4);
    const layers = block.uses_coords.map((usesCoords, i) => {
      const width = below + (usesCoords ? features : 0), weights = tensor(`layer${i}.weight`), rows = block.channels;
      const layer = {
        below, usesCoords, ofX: this.packed(weights, rows, width, 0, below), ofE: this.packed(weights, rows, width, below, width),
        bias: bias(`layer${i}.bias`, rows),
      };
      below = block.channels;
      return layer;
    });
    return {
      ...block, layers, features, rgb: this.packed(tensor('torgb.weight'), channels, below, 0, below), rgbBias: bias('torgb.bias', channels),
      rowsX: block.rows ? Array.from({length: block.rows}, (_, i) => tensor('rows')[2 * i]) : [],
      rowsY: block.rows ? Array.from({length: block.rows}, (_, i) => tensor('rows')[2 * i + 1]) : [],
      shift: block.rows ? tensor('shift') : [], held: block.constants ? this.put(tensor('constants')) : 0,
    };
  }

  // A picture of width x height of window [x0, y0, x1, y1], or the part {top, left, height, width} of it: {width, height, image}, the last
  // being planar [channels][height][width] in about [-1, 1].
  draw(width, height, window, part = {top: 0, left: 0, width, height}) {
    const {form, grids, axes} = this, shift = form.lower_corner ? 1 : 0;
    const [x0, y0, x1, y1] = window.map((end, i) => end * axes[i % 2].extent);
    const u = Array.from({length: part.width}, (_, i) => x0 + (x1 - x0) * (part.left + i) / width);
    const v = Array.from({length: part.height}, (_, i) => y0 + (y1 - y0) * (part.top + i + shift) / height);
    const columns = planAxis(u, width / (x1 - x0), form, grids, axes[0]), rows = planAxis(v, height / (y1 - y0), form, grids, axes[1]);
    this.top = this.floor;
    let below = null;
    grids.forEach((grid, level) => {
      below = this.drawLevel(grid, columns[level], rows[level], below, grids[level + 1]);
    });
    const points = below.width * below.height, floats = this.floats, image = new Float32Array(form.img_channels * points);
    for (let c = 0; c < form.img_channels; c++)
      image.set(floats.subarray(below.image / 4 + c * below.plane, below.image / 4 + c * below.plane + points), c * points);
    return {width: below.width, height: below.height, image: form.activation === 'tanh' ? image.map(Math.tanh) : image};
  }

  // All blocks of one grid. below: what this gave for the coarser grid; next: the finer one, whose first layer's W_x x is taken here.
  drawLevel(grid, columns, rows, below, next) {
    const {wasm, form} = this, width = columns.at.length, height = rows.at.length, plane = width * height + 16;
    const blocks = this.blocks.filter(block => block.grid === grid), last = blocks[blocks.length - 1];
    const finer = next && this.blocks.find(block => block.grid === next), image = this.take(form.img_channels * plane);
    const products = finer ? this.take(finer.channels * plane) : 0, coarse = below && {
      lo: this.put(columns.parent.lo, width + 16), hi: this.put(columns.parent.hi, width + 16), share: this.put(columns.parent.share, width + 16),
    };
    const made = blocks.filter(block => block.features).map(block => this.tables(block, columns, rows));
    for (let row = 0; row < height; row++)
      for (let left = 0; left < width; left += LD) {
        const points = Math.min(LD, width - left), padded = Math.ceil(points / 12) * 12, at = row * width + left;
        const across = coarse && [coarse.lo + 4 * left, coarse.hi + 4 * left, coarse.share + 4 * left];
        const down = below && [rows.parent.lo[row] * below.width, rows.parent.hi[row] * below.width, rows.parent.share[row]];
        let [x, free, rgb] = this.panels;
        for (const block of blocks) {
          const tables = made.find(each => each.block === block);
          if (tables) this.features(tables, row, left, points, padded);
          const upsamples = block.upsamples && block === blocks[0];
          block.layers.forEach((layer, i) => {
            if (upsamples && i === 0) wasm.read(free, below.products, block.channels, below.plane, ...down, ...across, points, 0);
            else if (layer.below) wasm.product(layer.ofX, x, free, block.channels, layer.below, padded, 0);
            if (layer.usesCoords) wasm.product(layer.ofE, this.featurePanel, free, block.channels, block.features, padded, layer.below ? 1 : 0);
            wasm.activate(free, layer.bias, block.channels, padded, block.slope, block.gain, block.clamp ?? Infinity);
            [x, free] = [free, x];
          });
          wasm.product(block.rgb, x, rgb, form.img_channels, block.channels, padded, 0);
          wasm.activate(rgb, block.rgbBias, form.img_channels, padded, 1, 1, block.rgb_clamp ?? Infinity);
          if (upsamples) wasm.read(rgb, below.image, form.img_channels, below.plane, ...down, ...across, points, 1);
          wasm.store(image + 4 * at, rgb, form.img_channels, plane, points, block === blocks[0] ? 0 : 1);
        }
        if (finer) {
          wasm.product(finer.layers[0].ofX, x, free, finer.channels, last.channels, padded, 0);
          wasm.store(products + 4 * at, free, finer.channels, plane, points, 0);
        }
      }
    return {width, height, plane, image, products};
  }

  // Sines and cosines along both axes, coordinates, and reads of the constants, of one block.
  tables(block, columns, rows) {
    const {centred} = this.form, width = columns.at.length, stride = width + 16, [across, down] = this.axes;
    const [u, v] = [[columns, across], [rows, down]].map(([{at}, {wraps, extent}]) => wraps ? at.map(p => around(p, extent)) : at);
    const x = Float32Array.from(u, p => centred ? 2 * p - across.extent : p), y = Float32Array.from(v, p => centred ? down.extent - 2 * p : p);
    const kept = keptOf(block, block.rowsX, block.rowsY, [columns.pixel, rows.pixel], centred ? 2 : 1);
    const along = f => {  // [n][stride]; what pixels keep is in these, of which every product has one
      const out = new Float32Array(block.rows * stride + 16);
      block.rowsX.forEach((factor, i) => x.forEach((place, n) => { out[i * stride + n] = kept[i] * f(factor * place); }));
      return this.put(out);
    };
    const sideways = f => {  // [height][n]
      const out = new Float32Array(block.rows * y.length);
      y.forEach((place, n) => block.rowsY.forEach((factor, i) => { out[n * block.rows + i] = f(factor * place + block.shift[i]); }));
      return this.put(out);
    };
    const [sinX, cosX, sinY, cosY] = [along(Math.sin), along(Math.cos), sideways(Math.sin), sideways(Math.cos)];
    const cells = block.constants ? Object.fromEntries(['lo', 'hi', 'share'].map(key => [key, this.put(columns.cells[key], stride)])) : null;
    return {
      block, stride, x: this.put(across.wraps ? x.fill(0) : x, stride), y: down.wraps ? y.map(() => 0) : y, sinX, cosX, sinY, cosY, cells,
      rows: rows.cells,
    };
  }

  // Coordinate features of one panel.
  features({block, stride, x, y, sinX, cosX, sinY, cosY, cells, rows}, row, left, points, padded) {
    const {wasm} = this, floats = this.floats;
    let out = this.featurePanel;
    if (block.raw) {
      floats.copyWithin(out / 4, x / 4 + left, x / 4 + left + padded);
      floats.fill(y[row], out / 4 + LD, out / 4 + LD + padded);
      out += 8 * LD;
    }
    const at = 4 * row * block.rows;
    wasm.waves(out, sinX + 4 * left, cosX + 4 * left, sinY + at, cosY + at, block.rows, stride, padded, block.cosine ? 1 : 0);
    out += 4 * LD * block.rows * (block.cosine ? 2 : 1);
    if (block.constants) {
      const [held, count] = this.axes.map(axis => Math.round(block.grid * axis.extent));
      wasm.read(out, block.held, block.constants, held * count, rows.lo[row] * held, rows.hi[row] * held, rows.share[row],
                cells.lo + 4 * left, cells.hi + 4 * left, cells.share + 4 * left, points, 0);
    }
  }
}

// Bytes [height][width][4] for a canvas of what `draw` gives; 1 channel is grey, 4 have transparency.
function toRgba({width, height, image}) {
  const points = width * height, channels = image.length / points, out = new Uint8ClampedArray(4 * points).fill(255);
  for (let c = 0; c < Math.min(channels, 4); c++)
    for (let i = 0; i < points; i++) {
      const byte = Math.floor(image[c * points + i] * 127.5 + 128);
      out[4 * i + c] = byte;
      if (channels === 1) out[4 * i + 1] = out[4 * i + 2] = byte;
    }
  return out;
}

if (typeof module !== 'undefined') module.exports = {readFunction, Inr, toRgba};
