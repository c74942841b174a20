"""Pictures that move: walks through latents, zooms and changes of class, as mp4, WebP or GIF of any size."""

import click

from dnnlib import cli
from dnnlib.util import UserError
from inference import REFINEMENTS, VIDEO_FORMATS, WHOLE


@click.command(context_settings={'show_default': True})
@click.option('--network', metavar='FILE|URL|DIR',
              help='Snapshot to draw from.  [default: the newest under training-runs/, else a bundled one]')
@click.option('--seeds', type=cli.Seeds(), help='Images to visit, one after the other.  [default: 0-5; 0 with --window or --class]')
@click.option('--window', 'windows', type=cli.Window(), multiple=True, help='Window to zoom to; several times.  [default: 0,0,1,1]')
@click.option('--class', 'classes', metavar='INDEX|NAME', multiple=True, help='Class to change to, or group of classes: the one of the '
              'seed; several times.')
@click.option('--res', type=cli.Size(), help='N or WIDTHxHEIGHT in pixels, as in generate.py.  [default: 256, or as trained if more]')
@click.option('--psi', type=cli.PSI, metavar='NUMBER', default=1.0, help='Truncation, as in generate.py.')
@cli.with_psi_to
@cli.with_directions
@click.option('--space', type=click.Choice(['w', 'z']), default='w', help='Straight lines in w, or great circles in z.')
@click.option('--seconds', type=cli.FiniteRange(0.1, 3600), default=2.0, help='From one stop to the next.')
@click.option('--fps', type=click.IntRange(1, 100), default=30, help='Frames a second.')
@click.option('--easing', type=click.Choice(['smooth', 'linear']), default='smooth', help='smooth: slow at the stops.')
@click.option('--loop/--no-loop', default=True, help='Return to the first stop, without a seam.')
@click.option('--refine', type=click.Choice(REFINEMENTS), help='As in generate.py.')
@click.option('--format', 'video_format', type=click.Choice(VIDEO_FORMATS), help='[default: of the name of --out]')
@click.option('--quality', type=click.IntRange(0, 100), default=80, help='Of WebP.')
@click.option('--out', metavar='FILE', default='out/walk.webp', help='File to write; its folder is made if it is not there.')
@click.option('--device', metavar='NAME', default='auto', help='cpu, cuda, cuda:1; auto takes a GPU if there is one.')
def main(network, seeds, windows, classes, res, psi, psi_to, direction, strength, directions, space, seconds, fps, easing, loop, refine,
         video_format, quality, out, device):
    """Draw a walk through seeds, a zoom through windows, a change through classes, a swing along a direction, or all at once.

    What is given once stays; of what is given several times, the n-th stop has the n-th, in turn; so has it the ends of --strength. Frames
    are drawn and written one by one.

    \b
    python walk.py --seeds=0-5
    python walk.py --seeds=20 --window=0,0,1,1 --window=-1,-1,2,2 --res=512 --out=out/zoom.mp4
    python walk.py --class=cat --class=dog --seeds=3 --out=out/classes.gif
    python walk.py --seeds=3 --direction=1 --strength=-2..2
    """
    from pathlib import Path

    from tqdm import tqdm

    from inference import latents, opening, video
    from inference.painter import Painter, asked_size
    from torch_utils.misc import pick_device, size_of

    out = Path(out)
    video_format = video_format or out.suffix.lstrip('.').lower()
    if video_format not in VIDEO_FORMATS:
        raise UserError(f'--out={out}: give a name that ends in .{", .".join(VIDEO_FORMATS)}, or --format')
    if directions and direction is None:
        raise UserError('--directions: which of them? give --direction=N')
    swings = direction is not None and len(strength) > 1
    seeds = seeds or ([0] if len(windows) > 1 or len(classes) > 1 or direction is not None else list(range(6)))
    windows = windows or (WHOLE,)
    stops = max(len(seeds), len(windows), len(classes), 2 if swings else 1)
    if stops < 2:
        raise UserError('one stop is no walk: give several --seeds, --window or --class, or --direction')
    G, meta = opening.open_network(network, pick_device(device))
    width, height = asked_size(G, WHOLE, res or cli.Side((max(256, *size_of(G)),) * 2))
    video.check(video_format, width, height, fps)
    seeds, names = [seeds[i % len(seeds)] for i in range(stops)], meta['dataset']['classes']
    if classes:
        labels = [latents.class_label(G, classes[i % len(classes)], names, seed=seeds[i]) for i in range(stops)]
    else:
        labels = latents.labels_of_seeds(G, seeds, names=names)
    path = latents.Walk(G, seeds, labels, psi, space, to_class=latents.towards_class(G, psi, psi_to))
    if direction is not None:
        from inference.directions import load_or_find

        path = load_or_find(directions, G).swing(path, direction, (strength[0], strength[-1]))
    painters = {}

    def frame(stop, share):
        a, b = (windows[i % len(windows)] for i in (stop, (stop + 1) % stops))
        window = a if a == b else video.between_windows(a, b, share)
        if window not in painters:
            painters.clear()
            painters[window] = Painter(G, width, height, window, refine)
        return painters[window].whole(path.at(stop, share))[0]

    frames = video.moments(stops, max(round(seconds * fps), 1), loop, easing)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(frames, desc=out.name, unit='frame', disable=None, leave=False) as bar:
        video.write(out, (frame(*moment) for moment in bar), video_format, fps, quality)
    print(f'{out}  {len(frames)} frames of {width}x{height}, {len(frames) / fps:.1f} s, {out.stat().st_size:,} bytes')


if __name__ == '__main__':
    cli.run(main)
