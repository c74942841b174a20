"""One FMM layer, forward and backward, weights included, against the public way: concatenate, multiply, bias, activation, gain.

python benchmarks/bench_fmm.py [--device=cuda [--tiles]] [--json=FILE]

The second line of a case compares with the three matrix products alone (W x, W^T dy, dy x^T, by the library in the same type): a ratio of
0.6 is 60% of the measured rate of products. --no-tf32 multiplies float32 in full, as train.py does unless told otherwise; --tiles times the
forward kernel with other tiles than layer_triton.tile_sizes has.
"""

import itertools
import math
import statistics
import sys
from dataclasses import dataclass
from unittest import mock

import click
from public_style import dense
from side_by_side import compare, header, line, parse_case, relative_error, seconds_of, write

GAIN, SLOPE = math.sqrt(2), 0.2
FORM = dict.fromkeys(('rows', 'channels', 'features', 'points', 'images'), int)
CPU = ['512,512,0,4096,1', '512,512,512,4096,1', '64,64,0,4096,16', '64,64,128,4096,16']
GPU = ['512,512,0,65536,16', '512,512,512,65536,16', '256,512,0,65536,16', '64,64,128,4096,16']
TILES = tuple(tile for tile in itertools.product((64, 128, 256), (64, 128, 256), (32, 64), (4, 8), (3, 4))
              if 64 * 128 <= tile[0] * tile[1] <= 128 * 256 and (tile[0] * tile[1] < 128 * 256 or tile[3] == 8))  # fmt: skip


@dataclass
class Layer:
    """A layer of rank 10 and what goes through it. rows, channels, features, points, images: C_out, C, E, H W, N."""

    rows: int
    channels: int
    features: int
    points: int
    images: int

    def fill(self, dtype, device):
        """Draws the tensors: weights, bias, x and dy [N, C or C_out, side, side], e [1, E, side, side] or None. Returns self."""
        import torch

        from inr.fmm import Weights

        def draw(*shape, dtype=torch.float32):
            return torch.randn(shape, device=device, dtype=dtype)

        side, K, self.dtype = math.isqrt(self.points), self.channels + self.features, dtype
        factors = draw(self.images, self.rows, 10) * 0.1, draw(self.images, 10, K) * 0.1
        self.weights = Weights(draw(self.rows, K), *factors)
        self.bias, self.x = draw(self.rows), draw(self.images, self.channels, side, side, dtype=dtype)
        self.e = draw(1, self.features, side, side, dtype=dtype) if self.features else None
        self.dy = draw(self.images, self.rows, side, side, dtype=dtype)
        self.leaves = [self.weights.matrix, *factors, self.bias, self.x]
        for leaf in self.leaves:
            leaf.requires_grad_()
        return self

    def fast(self):
        """(y, gradients) by ops.dispatch."""
        from inr.ops import dispatch

        weight = dispatch.materialize(self.weights, self.dtype)
        return self._with_gradients(dispatch.layer(weight, self.bias, self.x, self.e, slope=SLOPE, gain=GAIN))

    def plain(self):
        """(y, gradients) the public way."""
        from torch.nn import functional as F

        y = dense(self._joined(), self.weights.materialize().to(self.dtype))
        y = y + self.bias.to(self.dtype)[:, None, None]
        return self._with_gradients(F.leaky_relu(y, SLOPE) * GAIN)

    def _joined(self):
        """x with e behind its channels: [N, C + E, side, side]."""
        import torch

        return self.x if self.e is None else torch.cat([self.x, self.e.expand(self.images, -1, -1, -1)], dim=1)

    def _with_gradients(self, y):
        import torch

        return y, *torch.autograd.grad(y, self.leaves, self.dy)

    def products(self):
        """The matrix products alone, without those for gradients of e."""
        import torch

        if not hasattr(self, 'ready'):
            w = self.weights.materialize().detach().to(self.dtype)
            self.ready = w, w[:, :, : self.channels].mT.contiguous(), self._joined().detach().flatten(2), self.dy.flatten(2)
        w, w_t, x, dy = self.ready
        return torch.bmm(w, x), torch.bmm(w_t, dy), torch.bmm(dy, x.mT)

    @property
    def flops(self):
        """Of `products`."""
        return 2 * self.images * self.rows * self.points * (3 * self.channels + 2 * self.features)


def error_of(layer):
    """Largest relative error of output and gradients."""
    return max(relative_error(*pair) for pair in zip(layer.fast(), layer.plain(), strict=True))


def sweep(layer, repeats):
    """Prints the forward kernel's milliseconds for other tiles, the best last."""
    import torch

    from inr.ops import layer_triton
    from inr.ops.layer import Activation

    act, w, found = Activation(SLOPE, GAIN), layer.weights.materialize().detach().to(layer.dtype), []
    for BM, BN, BK, warps, stages in TILES:
        tile = dict(BM=BM, BN=BN, BK=BK, num_warps=warps, num_stages=stages)
        with mock.patch.object(layer_triton, 'tile_sizes', lambda *_, tile=tile: tile), torch.no_grad():
            run = lambda: layer_triton.forward(w, layer.bias, layer.x, layer.e, None, 1, act)  # noqa: E731
            try:
                run()
            except Exception as why:  # too large for the GPU's shared memory
                print(f'{tile}: {type(why).__name__}')
                continue
            found.append((statistics.median(seconds_of(run) for _ in range(repeats)), tile))
    for seconds, tile in sorted(found, key=lambda pair: -pair[0])[-8:]:
        print(f'{seconds * 1e3:8.3f} ms  {tile}', flush=True)


@click.command()
@click.option('--case', 'cases', multiple=True, help='rows,channels,features,points,images in place of the default ones; may be repeated.')
@click.option('--dtype', 'dtypes', multiple=True, type=click.Choice(['float32', 'bfloat16', 'float16']),
              help='In place of float32 and bfloat16; may be repeated.')
@click.option('--device', default='cpu', show_default=True)
@click.option('--tiles', is_flag=True, help='On a GPU: then time other tiles, for minutes.')
@click.option('--tf32/--no-tf32', default=True, show_default=True, help='On a GPU: how float32 is multiplied, by both.')
@click.option('--repeats', default=7, show_default=True)
@click.option('--json', 'json_file', help='Also write the figures here.')
def main(cases, dtypes, device, tiles, tf32, repeats, json_file):
    """Print seconds of both, their ratio, the relative error and the peak memory of the fast one."""
    import torch

    header(device, tf32)
    figures, layers = [], []
    chosen = [parse_case(text, **FORM) for text in cases or (CPU if device == 'cpu' else GPU)]
    for numbers in chosen:
        for dtype in dtypes or ('float32', 'bfloat16'):
            torch.manual_seed(0)
            layer = Layer(*numbers).fill(getattr(torch, dtype), device)
            e = f'+{layer.features}' if layer.features else ''
            case = f'fmm {layer.channels}{e}>{layer.rows} {layer.points} points batch {layer.images} {dtype} {device}'
            figures.append(compare(case, layer.plain, layer.fast, repeats, error_of(layer)))
            layer.products()
            seconds = statistics.median(seconds_of(layer.products) for _ in range(repeats))
            ratio = seconds / figures[-1]['fast_s']
            figures.append(dict(figures[-1], case=f'{case} products', baseline_s=seconds, ratio=ratio))
            print(line(figures[-1], f'{layer.flops / seconds / 1e12:.2f} TFLOP/s'), flush=True)
            layers.append((case, numbers, dtype))
            write(figures, json_file)  # what is there so far, should the rest be cut off
    for case, numbers, dtype in layers if tiles else ():
        print(f'tiles for {case}', flush=True)
        sweep(Layer(*numbers).fill(getattr(torch, dtype), device), repeats)


if __name__ == '__main__':
    sys.exit(main())
