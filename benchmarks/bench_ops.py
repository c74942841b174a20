"""bias_act and upfirdn2d, forward and backward, against the same in passes of their own (public_style.py).

python benchmarks/bench_ops.py [--device=cuda] [--json=FILE]
"""

import sys

import click
import public_style
from side_by_side import compare, header, write


@click.command()
@click.option('--device', default='cpu', show_default=True)
@click.option('--repeats', default=7, show_default=True)
@click.option('--json', 'json_file', help='Also write the figures here.')
def main(device, repeats, json_file):
    """Print seconds of both, their ratio and the relative error of the gradient."""
    import torch

    from torch_utils.ops import bias_act, upfirdn2d

    header(device)
    figures = []
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(16, 64, 64, 64, device=device, dtype=dtype, requires_grad=True)
        b, f = torch.randn(64, device=device, dtype=dtype), upfirdn2d.setup_filter([1, 3, 3, 1], device=device)

        def gradient(function, *args, x=x, **kwargs):
            y = function(x, *args, **kwargs)
            return torch.autograd.grad(y.square().sum(), x)[0]

        cases = {'bias_act lrelu clamp': (public_style.bias_act, bias_act.bias_act, (b,), dict(act='lrelu', clamp=256.0)),
                 'upfirdn2d blur': (public_style.upfirdn2d, upfirdn2d.upfirdn2d, (f,), dict(padding=(2, 1))),
                 'upfirdn2d down': (public_style.upfirdn2d, upfirdn2d.upfirdn2d, (f,), dict(padding=1, down=2)),
                 'upfirdn2d up': (public_style.upfirdn2d, upfirdn2d.upfirdn2d, (f,), dict(padding=(2, 1), up=2, gain=4))}  # fmt: skip
        for name, (plain, fast, args, kwargs) in cases.items():
            figures.append(compare(f'{name} 16x64x64x64 {str(dtype)[6:]} {device}', lambda p=plain, a=args, k=kwargs: gradient(p, *a, **k),
                                   lambda f=fast, a=args, k=kwargs: gradient(f, *a, **k), repeats))  # fmt: skip
    write(figures, json_file)


if __name__ == '__main__':
    sys.exit(main())
