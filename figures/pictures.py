"""Figures made of pictures: windows, sizes, latents between others, truncation, mixing, the strangest samples, moved coordinates."""

import math

import click

from dnnlib import cli, image_io
from dnnlib.util import UserError
from figures.context import figure
from inference import REFINEMENTS, WHOLE


@figure(seeds='0-3')
@click.option('--window', 'windows', type=cli.Window(), multiple=True, help='x0,y0,x1,y1, several times.  [default: Figs. 2 and 9]')
@click.option('--size', type=click.IntRange(16, 4096), help='Side of each picture.  [default: 256, or as trained if that is more]')
@click.option('--refine', type=click.Choice(REFINEMENTS), help='As in generate.py.')
@click.option('--video', is_flag=True, help='Also zoom.mp4: the first seed, out to the last window and back.')
def zoom(context, windows, size, refine, video):
    """The same seeds in ever larger windows, the trained one outlined (Figs. 2 and 9)."""
    context.need_inr('zoom')
    from inference.painter import fitting_size
    from inference.sheets import outlined, sheet
    from inference.video import write_if_possible
    from inr.analysis.zoom import WINDOWS, path, trained_box
    from torch_utils.misc import size_of

    windows, size = windows or WINDOWS, size or max(*size_of(context.G), 256)
    width, height = fitting_size(context.G, longer=size)
    boxes = [trained_box(window, width, height) for window in windows]
    rows = [[outlined(context.picture(context.ws(seed), size, window, refine), box) for window, box in zip(windows, boxes, strict=True)]
            for seed in context.seeds]
    names = [','.join(f'{edge:g}' for edge in window) for window in windows]
    context.write('zoom', sheet(rows, context.seeds, names), {'windows': windows, 'trained image at': boxes, 'size': size})
    if video:
        ws, side = context.ws(context.seeds[0]), size + size % 2
        frames = (context.picture(ws, side, window, refine) for window in path(WHOLE, windows[-1], 120))
        write_if_possible(context.path('zoom.mp4'), frames)


@figure(seeds='0-1')
@click.option('--refine', type=click.Choice(REFINEMENTS), help='As in generate.py; last is the paper\'s.')
def superres(context, refine):
    """2, 4 and 8 times the trained size, beside bicubic and Lanczos enlargements of the trained picture (Fig. 14)."""
    import numpy as np

    from inference.sheets import sheet
    from torch_utils.misc import size_of

    context.need_inr('superres')
    (width, height), factors = size_of(context.G), (1, 2, 4, 8)
    crops = [((side - min(side, 64)) // 2, (side + min(side, 64)) // 2) for side in (height, width)]  # the middle, for a screen or two
    rows, names, numbers = [], [], {}
    for seed in context.seeds:
        ws = context.ws(seed)
        own = context.picture(ws)
        for method in ('inr', 'BICUBIC', 'LANCZOS'):
            row = []
            for factor in factors:
                large = (context.picture(ws, max(width, height) * factor, refine=refine) if method == 'inr' else
                         image_io.resized(own, width * factor, height * factor, method))
                back = large.reshape(height, factor, width, factor, -1).mean(axis=(1, 3))
                cut = large[tuple(slice(begin * factor, end * factor) for begin, end in crops)]
                error, step = np.square(back - own).mean(), np.abs(np.diff(cut.astype(float), axis=1)).max(axis=2)
                numbers.setdefault(f'seed {seed}', {}).setdefault(method.lower(), {})[f'{factor}x'] = {
                    'PSNR of the average against the trained size, dB': 10 * math.log10(255**2 / error) if error else None,
                    '99th percentile of steps between pixels': float(np.quantile(step, 0.99))}
                row.append(cut.repeat(8 // factor, axis=0).repeat(8 // factor, axis=1))
            rows.append(row)
            names.append(f'{seed} {method.lower()}')
    context.write('superres', sheet(rows, names, [f'{factor}x' for factor in factors]), {'refine': refine, 'pictures': numbers})


@figure(seeds='0-1')
@click.option('--steps', type=click.IntRange(3, 64), default=9, help='Pictures from one seed to the next.')
@click.option('--video', is_flag=True, help='Also interpolate.mp4: a walk through all seeds in w and back to the first.')
def interpolate(context, steps, video):
    """From the first seed to the second: slerp in z, in w, in the parameters of the INR, and in pixels."""
    import numpy as np
    import torch

    from inference.latents import slerp, z_of
    from inference.painter import draws_by_points
    from inference.sheets import enlarged, sheet
    from inference.video import write_if_possible
    from torch_utils.pixels import to_uint8

    if len(context.seeds) < 2:
        raise UserError('interpolate: give two seeds or more, such as --seeds=3,5')
    G, (first, last) = context.G, context.seeds[:2]
    a, b = context.ws(first), context.ws(last)
    shares = np.linspace(0, 1, steps)
    z = [torch.from_numpy(slerp(z_of(G, first), z_of(G, last), share)).to(a.device) for share in shares]
    labels = [None] * steps if not G.c_dim else [context.label(first).lerp(context.label(last), float(share)) for share in shares]
    ends = context.picture(a).astype(float), context.picture(b).astype(float)
    rows = {'z (slerp)': [context.picture(G.mapping(point, label)) for point, label in zip(z, labels, strict=True)],
            'w': [context.picture(a.lerp(b, float(share))) for share in shares]}
    if draws_by_points(G):
        from inr.analysis.parameters import blend, draw_with, parameters_of

        points_per_grid = G.synthesis.pyramid.trained_points(a.device)
        of_a, of_b = parameters_of(G, a), parameters_of(G, b)
        rows['parameters'] = [to_uint8(draw_with(G, blend(of_a, of_b, float(share)), a, points_per_grid))[0] for share in shares]
    else:
        print('No row of parameters: this network is not an INR')
    rows['pixels'] = [(ends[0] + (ends[1] - ends[0]) * share).round().astype(np.uint8) for share in shares]
    steps_of = {name: [float(np.sqrt(np.square(q.astype(float) - p).mean())) for p, q in zip(row, row[1:], strict=False)]
                for name, row in rows.items()}
    picture = sheet([[enlarged(pixels, 96) for pixels in row] for row in rows.values()], list(rows), [f'{share:.2g}' for share in shares])
    context.write('interpolate', picture, {'RMS step between neighbours, of 255': steps_of})
    if video:
        stops = [context.ws(seed) for seed in (*context.seeds, first)]
        walk = (p.lerp(q, i / 30) for p, q in zip(stops, stops[1:], strict=False) for i in range(30))
        write_if_possible(context.path('interpolate.mp4'), (enlarged(context.picture(ws), 256) for ws in walk))


@figure(seeds='0-7')
@click.option('--psi', 'psis', type=cli.FiniteRange(), multiple=True, default=(0, 0.25, 0.5, 0.7, 0.9, 1, 1.3), help='Several times.')
def truncation(context, psis):
    """From the mean of w to all of it and beyond (Fig. 12)."""
    import numpy as np

    from inference.sheets import enlarged, sheet

    pictures = [[context.picture(context.ws(seed, psi)) for psi in psis] for seed in context.seeds]
    spread = [float(np.std([row[i].astype(float) for row in pictures], axis=0).mean()) for i in range(len(psis))]
    rows = [[enlarged(pixels, 96) for pixels in row] for row in pictures]
    context.write('truncation', sheet(rows, context.seeds, [f'psi {psi:g}' for psi in psis]),
                  {'psi': psis, 'deviation between seeds, of 255': spread})


@figure(seeds='0-3')
@click.option('--styles', type=cli.Seeds(), default='100-105', help='Seeds of the columns, whose styles are taken over.')
@click.option('--layers', type=cli.IntRangeList(), help='Which of the ws, such as 4-7.  [default: the second half]')
def mix(context, styles, layers):
    """Style mixing: every row's image with some layers' w of every column's."""
    from inference.sheets import enlarged, sheet

    num_ws = context.G.num_ws
    layers = layers or list(range(num_ws // 2, num_ws))
    if max(layers) >= num_ws:
        raise UserError(f'--layers: this network has the layers 0 to {num_ws - 1}')
    rows = [[None, *(enlarged(context.picture(context.ws(style)), 96) for style in styles)]]
    for seed in context.seeds:
        own = context.ws(seed)
        row = [enlarged(context.picture(own), 96)]
        for style in styles:
            mixed = own.clone()
            mixed[:, layers] = context.ws(style)[:, layers]
            row.append(enlarged(context.picture(mixed), 96))
        rows.append(row)
    context.write('mix', sheet(rows, ['', *context.seeds], ['', *styles]), {'styles': styles, 'layers': layers})


@figure(seeds='0-255')
@click.option('--show', type=click.IntRange(1, 64), default=16, help='How many of the least and of the most typical to show.')
def artifacts(context, show):
    """Untruncated samples that a feature network finds least like the others, and those it finds most typical (Fig. 13)."""
    import numpy as np
    import torch

    from inference.sheets import enlarged, sheet
    from metrics import detectors

    if len(context.seeds) < 8:
        raise UserError('artifacts: give 8 seeds or more, of which the strangest are shown')
    detector = detectors.load('efficientnet-lite0', device=context.device)
    pictures = [context.picture(context.ws(seed)) for seed in context.seeds]
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    features = torch.cat([detector.features(part.to(context.device)).cpu().double() for part in pixels.split(16)])
    nearest = torch.cdist(features, features).topk(min(6, len(features)), largest=False).values[:, 1:].mean(dim=1)
    order = nearest.argsort(descending=True).tolist()
    show = min(show, len(order) // 2)
    rows = [[enlarged(pictures[i], 96) for i in chosen[at:at + 8]] for chosen in (order[:show], order[-show:]) for at in range(0, show, 8)]
    per = -(-show // 8)
    names = ['least typical'] * per + ['most typical'] * per
    context.write('artifacts', sheet(rows, names), {
        'distance': 'mean distance to the 5 nearest of the others, pooled features of EfficientNet-Lite0',
        'least typical': {context.seeds[i]: float(nearest[i]) for i in order[:show]},
        'most typical': {context.seeds[i]: float(nearest[i]) for i in order[-show:]}, 'median': float(np.median(nearest))})


@figure(seeds='0-3')
@click.option('--angle', type=cli.FiniteRange(), default=30, help='Degrees, clockwise.')
@click.option('--shift', type=(cli.FiniteRange(), cli.FiniteRange()), default=(0.1, 0.0), help='Right and down, in units of the image.')
@click.option('--scale', type=cli.FiniteRange(min=0.01, max=100), default=1.25, help='Above 1 enlarges.')
def geometry(context, angle, shift, scale):
    """Rotates, shifts and scales images by composing the map of the plane with the first layer, not by moving pixels (appendix D)."""
    import torch

    from inference.sheets import enlarged, sheet
    from torch_utils.pixels import to_uint8

    context.need_inr('geometry')
    from inr.analysis.geometry import compose, moved_points, placement

    synthesis = context.G.synthesis
    matrix, offset = (part.to(context.device) for part in placement(synthesis.pyramid.convention, angle, shift, scale))
    try:
        moved = compose(context.G, matrix, offset)
    except ValueError as error:
        raise UserError(f'geometry: {error}') from None
    points_per_grid = synthesis.pyramid.trained_points(context.device)
    rows, largest = [], 0.0
    with torch.no_grad():
        for seed in context.seeds:
            ws = context.ws(seed)
            by_weights = moved.synthesis(ws, force_fp32=True)
            by_points = synthesis.draw(ws, moved_points(points_per_grid, matrix, offset), force_fp32=True)
            largest = max(largest, float((by_weights - by_points).abs().max()))
            rows.append([enlarged(pixels, 128) for pixels in (context.picture(ws), to_uint8(by_weights)[0], to_uint8(by_points)[0])])
    context.write('geometry', sheet(rows, context.seeds, ['as it is', 'map in the first layer', 'map of the grid']), {
        'angle': angle, 'shift': shift, 'scale': scale, 'largest difference of both, of an image in [-1, 1]': largest})
