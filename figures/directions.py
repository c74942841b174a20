"""Directions in w that change an image most: found in the weights (SeFa) or in samples of w (PCA)."""

import click

from dnnlib import cli
from figures.context import figure


@figure(seeds='0-1')
@click.option('--method', type=click.Choice(['sefa', 'pca']), default='sefa',
              help='sefa: of the affine layers that w goes through; pca: of the covariance of w.')
@click.option('--count', type=click.IntRange(1, 512), default=16, help='Directions to keep.')
@click.option('--layers', type=cli.IntRangeList(),
              help='Which of the ws to move, such as 0-3; sefa looks at these layers alone.  [default: all]')
@click.option('--strength', type=cli.Strengths(), default='-2..2', help='Shown on the sheet, in standard deviations of w.')
@click.option('--show', type=click.IntRange(1, 64), default=8, help='Directions on the sheet.')
def directions(context, method, count, layers, strength, show):
    """The directions in w of most effect (SeFa) or most spread (PCA), a sheet and a file of them for the other commands."""
    from inference.directions import find, save
    from inference.sheets import enlarged, sheet

    found = find(context.G, method, layers, min(count, context.G.w_dim))
    rows = [[enlarged(context.picture(ws), 96) for seed in context.seeds
             for ws in found.along({'': context.ws(seed)}, number, strength).values()] for number in range(min(show, len(found)))]
    names = [f'{seed}: {each:+g}' for seed in context.seeds for each in strength]
    path = context.path('directions.npz')
    save(path, found, context.G)
    context.write('directions', sheet(rows, range(len(rows)), names), {
        'method': method, 'layers': found.layers, 'strengths': strength, 'file': str(path),
        'lengths': found.vectors.norm(dim=1).tolist(), 'shares': found.shares.tolist()})
