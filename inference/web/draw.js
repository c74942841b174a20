// node draw.js FILE OUT WIDTH HEIGHT x0,y0,x1,y1 [top,left,height,width]: draws a function file as the page does, and writes float32
// [channels][height][width] to OUT. Prints the seconds of one core that drawing took. For tests and benchmarks.

'use strict';

const fs = require('fs'), path = require('path');
const {Inr, readFunction} = require('./inr.js');

const [file, out, width, height, window, part] = process.argv.slice(2);
const wasm = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync(path.join(__dirname, 'layers.wasm'))));
const inr = new Inr(readFunction(fs.readFileSync(file)), wasm.exports);
const [top, left, rows, columns] = part ? part.split(',').map(Number) : [0, 0, Number(height), Number(width)];
const seconds = [];
for (let i = 0; i < (process.env.REPEATS || 1); i++) {
  const before = process.cpuUsage(), began = performance.now();
  const {image} = inr.draw(Number(width), Number(height), window.split(',').map(Number), {top, left, height: rows, width: columns});
  const used = process.cpuUsage(before);
  seconds.push({cpu: (used.user + used.system) / 1e6, wall: (performance.now() - began) / 1e3});
  fs.writeFileSync(out, Buffer.from(image.buffer));
}
console.log(JSON.stringify(seconds));
