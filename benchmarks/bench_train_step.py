"""A training step of a small pair against the same step computed as the public implementations do on a CPU, and where its time goes.

python benchmarks/bench_train_step.py [--json=FILE]

G is `inr` at 64x64 with 64 channels, D has channel base 2048, batch 16, lazy R1. The baseline has public_style's generator, bias,
activation, gain and clamp as passes of their own, upfirdn2d with autograd's own derivatives, and Adam over one tensor at a time. A step is
the mean over one interval of R1.
"""

import contextlib
import sys
from unittest import mock

import click
import public_style
from side_by_side import compare, header, write


def plain_bias_act(x, b=None, dim=1, act='linear', alpha=None, gain=None, clamp=None, impl='auto'):
    """bias_act, a pass for each thing it does."""
    from torch_utils.ops.bias_act import activation_funcs

    spec = activation_funcs[act]
    if b is not None:
        x = x + b.to(x.dtype).reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    x = spec.func(x, spec.def_alpha if alpha is None else alpha)
    x = x * (spec.def_gain if gain is None else gain)
    return x if clamp is None else x.clamp(-clamp, clamp)


def plain_upfirdn2d(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl='auto'):
    """upfirdn2d: zeros inserted, padded, a grouped convolution, every down-th pixel kept."""
    import torch
    from torch.nn import functional as F

    from torch_utils.ops.upfirdn2d import pair, quad

    (upx, upy), (downx, downy) = pair(up), pair(down)
    N, C, H, W = x.shape
    if max(upx, upy) > 1:
        x = F.pad(x.reshape(N, C, H, 1, W, 1), [0, upx - 1, 0, 0, 0, upy - 1]).reshape(N, C, H * upy, W * upx)
    x = F.pad(x, list(quad(padding)))
    f = torch.ones(1, 1) if f is None else f
    f = (f * gain ** (f.ndim / 2)).to(x.dtype)
    f = f if flip_filter else f.flip(list(range(f.ndim)))
    for taps in [f] if f.ndim == 2 else [f[None, :], f[:, None]]:
        x = F.conv2d(x, taps.expand(C, 1, *taps.shape), groups=C)
    return x[:, :, ::downy, ::downx]


class Pair:
    """G, D and what a step needs; plain: computed as the public implementations do."""

    def __init__(self, plain, res, batch, half):
        import torch

        from inr.generator import Generator
        from training.config import LossConfig
        from training.loss import GanLoss, Latents
        from training.networks import Discriminator
        from training.training_loop import Averages

        torch.manual_seed(0)
        g_half = dict(num_fp16_res=9, half_dtype='bfloat16') if half else {}
        d_half = dict(num_fp16_res=9, block_kwargs=dict(half_dtype='bfloat16', fp16_channels_last=True)) if half else {}
        self.G = Generator(128, 0, 128, res, 3, dict(num_layers=2), dict(channel_base=10**6, channel_max=64, **g_half)).train()
        self.D = Discriminator(0, res, 3, channel_base=2048, channel_max=512, **d_half).train()
        if not plain:
            self.D.lie_channels_last()
        self.loss = GanLoss(self.G, self.D, LossConfig(1.0, 16, 0.0, 4, 0.0), Averages())
        self.reals = torch.rand(batch, 3, res, res) * 2 - 1
        self.latents = Latents(torch.randn(batch, 128), None, torch.zeros(batch), torch.zeros(batch), torch.zeros(batch, 0))
        options = dict(foreach=False) if plain else dict(fused=True)
        self.optimizers = [torch.optim.Adam(m.parameters(), lr=1e-6, betas=(0.0, 0.99), **options) for m in (self.G, self.D)]
        self.plain = plain

    def phase(self, name, step=True):
        """The gradients of one phase, and the optimizer's step."""
        network, other, optimizer = (self.G, self.D, self.optimizers[0]) if name[0] == 'G' else (self.D, self.G, self.optimizers[1])
        with computed_plainly(self.G) if self.plain else contextlib.nullcontext():
            other.requires_grad_(False)
            network.requires_grad_(True)
            optimizer.zero_grad(set_to_none=True)
            self.loss.accumulate(name, self.reals, self.latents.c, self.latents, 1.0)
            if step:
                optimizer.step()

    def gradients(self, name):
        """All gradients of a phase in one vector."""
        import torch

        self.phase(name, step=False)
        return torch.cat([p.grad.flatten() for p in (self.G if name[0] == 'G' else self.D).parameters() if p.grad is not None])


def computed_plainly(G):
    """A context in which G and the operators of D are computed as the public implementations do."""
    from torch_utils.ops import bias_act, conv2d_resample, upfirdn2d

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(bias_act, 'bias_act', plain_bias_act))
    for module in (upfirdn2d, conv2d_resample):
        stack.enter_context(mock.patch.object(module, 'upfirdn2d', plain_upfirdn2d))
    stack.enter_context(mock.patch.object(G.synthesis, 'forward', lambda ws, **_: public_style.synthesis(G.synthesis, ws)))
    return stack


@click.command()
@click.option('--res', default=64, show_default=True)
@click.option('--batch', default=16, show_default=True)
@click.option('--repeats', default=7, show_default=True)
@click.option('--json', 'json_file', help='Also write the figures here.')
def main(res, batch, repeats, json_file):
    """Print the phases of a step in float32 and bfloat16, and whole steps."""
    from torch_utils.misc import keep_freed_memory

    header()
    keep_freed_memory()  # as train.py does; both gain by it
    figures = []
    for dtype in ('float32', 'bfloat16'):
        base, fast = Pair(True, res, batch, False), Pair(False, res, batch, dtype == 'bfloat16')
        parts, errors = {}, {}
        for name in ('G', 'D', 'D_reg'):  # before the weights part ways
            expected, found = base.gradients(name), fast.gradients(name)
            errors[name] = ((found - expected).norm() / expected.norm()).item()
        for name in ('G', 'D', 'D_reg'):
            parts[name] = compare(f'{name} phase {res} batch {batch} {dtype} cpu', lambda b=base, n=name: b.phase(n),
                                  lambda f=fast, n=name: f.phase(n), repeats, errors[name])  # fmt: skip
        figures += parts.values()
        seconds = [parts['G'][key] + parts['D'][key] + parts['D_reg'][key] / 16 for key in ('baseline_s', 'fast_s')]
        case, error = f'step {res} batch {batch} {dtype} cpu', max(part['rel_err'] for part in parts.values())
        figures.append(dict(case=case, baseline_s=seconds[0], fast_s=seconds[1], ratio=seconds[0] / seconds[1], rel_err=error,
                            peak_mib=None))  # fmt: skip
        print(f'{figures[-1]["case"]:<44} {seconds[0]:8.4f} s {seconds[1]:8.4f} s   ratio {figures[-1]["ratio"]:5.2f}', flush=True)
    write(figures, json_file)


if __name__ == '__main__':
    sys.exit(main())
