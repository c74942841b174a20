// A worker of the page: draws the parts it is asked for. First message {model, wasm: bytes}, then {width, height, window, part}.

'use strict';

let inr = null;

onmessage = ({data}) => {
  if (data.model) {
    inr = new Inr(readFunction(data.model), new WebAssembly.Instance(new WebAssembly.Module(data.wasm)).exports);
    return postMessage({ready: true});
  }
  const {width, height, window, part} = data, rgba = toRgba(inr.draw(width, height, window, part));
  postMessage({rgba}, [rgba.buffer]);
};
