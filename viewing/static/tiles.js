// Tiles for OpenSeadragon: the plane of viewing/__init__.py, drawn by the server when they come into sight, given up when they leave it.

export const PLANE = { left: -8, top: -8, side: 16 };
export const TILE = 256, MARGIN = 1, MIN_LEVEL = 2, MAX_LEVEL = 19;
const BUSY_AGAIN_AFTER = 400; // ms
const MOVED_ON = 'moved on';

// OpenSeadragon reports a tile that is given up as an error.
const { error } = OpenSeadragon.console;
OpenSeadragon.console = { ...OpenSeadragon.console, error: (...words) => { if (words.at(-1) !== MOVED_ON) error(...words); } };

export function tileSource(query, onProblem) {
  const jobs = new Map(); // context of a tile on its way: its AbortController
  const source = new OpenSeadragon.TileSource({
    width: TILE * 2 ** MAX_LEVEL, height: TILE * 2 ** MAX_LEVEL, tileSize: TILE, tileOverlap: MARGIN, minLevel: MIN_LEVEL, maxLevel: MAX_LEVEL,
  });
  source.getTileBounds = (level, x, y, ofPicture) => {
    const side = TILE + 2 * MARGIN, all = TILE * 2 ** level;
    return ofPicture ? new OpenSeadragon.Rect(0, 0, side, side)
      : new OpenSeadragon.Rect((TILE * x - MARGIN) / all, (TILE * y - MARGIN) / all, side / all, side / all);
  };
  source.getTileUrl = (level, x, y) => `tile/${level}/${x}/${y}?${query}`;
  source.downloadTileStart = async (context) => {
    const controller = new AbortController();
    jobs.set(context, controller);
    try {
      let answer;
      do {
        if (answer) await new Promise((resolve) => setTimeout(resolve, BUSY_AGAIN_AFTER));
        answer = await fetch(context.src, { signal: controller.signal });
      } while (answer.status === 503);
      if (!answer.ok) throw new Error((await answer.text()).trim());
      const packed = await answer.blob();
      jobs.delete(context);
      context.finish(packed, null, 'rasterBlob');
    } catch (error) {
      if (!jobs.delete(context)) return; // given up
      if (!controller.signal.aborted) onProblem(error instanceof TypeError ? 'The viewer does not answer: was it stopped?' : error.message);
      context.fail(error.message, null);
    }
  };
  source.downloadTileAbort = (context) => jobs.get(context)?.abort();
  // Gives up the tiles that `wanted` does not want any more; they may be asked for again.
  source.giveUp = (wanted = () => false) => {
    for (const [context, controller] of jobs) {
      if (wanted(context.tile)) continue;
      controller.abort();
      jobs.delete(context);
      context.fail(MOVED_ON, null);
      context.tile.exists = true;
    }
  };
  source.waiting = () => jobs.size;
  return source;
}
