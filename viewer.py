"""Look at a trained generator in the browser: any window, any size, every snapshot of the run."""

import click

from dnnlib import cli


@click.command(context_settings={'show_default': True})
@click.option('--network', metavar='FILE|URL|DIR',
              help='Snapshot to draw from.  [default: the newest under training-runs/, else a bundled one]')
@click.option('--directions', metavar='FILE', help='Directions that analyze.py directions wrote.  [default: those of SeFa]')
@click.option('--port', type=click.IntRange(0, 65535), help='Port to listen on; 0 takes any.  [default: 8400, or any if that is taken]')
@click.option('--host', metavar='NAME', default='127.0.0.1',
              help='Address to listen on. 0.0.0.0 lets other machines in; the link then has a token, without which nothing is answered.')
@click.option('--browser/--no-browser', default=True, help='Open the page in the browser.')
@click.option('--device', metavar='NAME', default='auto', help='cpu, cuda, cuda:1; auto takes a GPU if there is one.')
def main(network, directions, port, host, browser, device):
    """Look at a trained generator in the browser: any window, any size, every snapshot of the run.

    Tiles are drawn when they come into sight; nothing is stored on the disk. Ctrl-C ends it.

    \b
    python viewer.py
    python viewer.py --network=training-runs/00003-photos-inr --port=9000
    """
    from viewing.run import serve

    serve(network, device, directions, host, port, browser)


if __name__ == '__main__':
    cli.run(main)
