// The view: one record, in the address after '#' (so that a link brings it back) and in the query of every request.

export const DEFAULTS = {
  seed: 0, psi: 1, cutoff: null, label: '', style: null, layers: [], to: null, share: 0, space: 'w', refine: '', snapshot: null, directions: '',
};
const NUMBERS = ['seed', 'psi', 'cutoff', 'style', 'to', 'share', 'snapshot'];

// The words of a view that say more than the defaults do, in the order of DEFAULTS.
export function words(view) {
  const found = new URLSearchParams();
  for (const [name, fallback] of Object.entries(DEFAULTS)) {
    const text = String(view[name] ?? '');
    if (text !== String(fallback ?? '')) found.set(name, text);
  }
  return found;
}

// What the server draws by: a style without layers, layers without a style and a way without an end change nothing.
export function query(view) {
  const plain = { ...view };
  if (plain.style === null || !plain.layers.length) Object.assign(plain, { style: null, layers: [] });
  if (plain.to === null) Object.assign(plain, { share: 0, space: 'w' });
  return words(plain).toString();
}

// {view, box} of an address' hash; box: [x0, y0, x1, y1] in units of the trained image, or null. Words that make no sense are left out.
export function read(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ''));
  const view = { ...DEFAULTS, layers: [] };
  for (const name of Object.keys(DEFAULTS)) {
    const text = given.get(name);
    if (!text) continue;
    if (name === 'layers') view.layers = text.split(',').map(Number).filter(Number.isInteger);
    else if (!NUMBERS.includes(name)) view[name] = text;
    else if (Number.isFinite(Number(text))) view[name] = Number(text);
  }
  const box = (given.get('box') ?? '').split(',').map(Number);
  return { view, box: box.length === 4 && box.every(Number.isFinite) && box[0] < box[2] && box[1] < box[3] ? box : null };
}

export function hash(view, box) {
  const found = words(view);
  if (box) found.set('box', box.join(','));
  return '#' + found.toString().replaceAll('%2C', ',').replaceAll('%3A', ':');
}
