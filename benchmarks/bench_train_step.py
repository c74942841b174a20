"""A training step against the same step computed as the public implementations do (public_style.py), and where its time goes.

python benchmarks/bench_train_step.py [--device=cuda --preset=inr --res=256] [--json=FILE]

Without a preset G is `inr` at 64x64 with 64 channels and D has channel base 2048. Batch 16, lazy R1; a step is the mean over one interval
of R1. The baseline computes in float32 (on a GPU with TF32). In bfloat16 is what --precision=bf16 puts there.
"""

import contextlib
import sys

import click
from public_style import computed_plainly
from side_by_side import compare, header, line, relative_error, write

R1_INTERVAL = 16  # steps


def networks(res, half, preset=None):
    """(G, D) with random weights. half: as --precision=bf16 makes them; preset: of inr/presets.py, None for the small pair."""
    from inr.presets import PRESETS
    from training import plugins
    from training.config import DataConfig, build

    row = dict(PRESETS[preset or 'inr'])
    if preset is None:
        row.update(z_dim=128, w_dim=128, g_channel_base=10**6, g_channel_max=64, d_channel_base=2048, conv_clamp=None)
    data = DataConfig('', '', res, 3, 1, 0, None, False, None)
    settings = build('inr', row, data, precision='bf16' if half else 'fp32')
    G = plugins.build_generator(settings)
    return G, plugins.build_discriminator(settings)


class Pair:
    """G, D and what a step needs; plain: computed as the public implementations do. half, preset: see networks."""

    def __init__(self, plain, res, batch, half, device='cpu', preset=None):
        import torch

        from training.latents import Latents
        from training.loss import GanLoss
        from training.options import LossConfig
        from training.training_loop import Averages

        torch.manual_seed(0)
        self.G, self.D = (network.to(device).train() for network in networks(res, half, preset))
        if not plain and device == 'cpu':
            self.D.use_channels_last()
        weights = LossConfig(gamma=1.0, r1_interval=R1_INTERVAL, pl_weight=0.0, g_reg_interval=4, style_mixing=0.0)
        self.loss = GanLoss(self.G, self.D, weights, Averages())
        self.reals = (torch.rand(batch, 3, res, res) * 2 - 1).to(device)
        z = torch.randn(batch, self.G.z_dim)
        self.latents = Latents(z, None, torch.zeros(batch), torch.zeros(batch), torch.zeros(batch, 0)).to(device)
        options = {} if plain else dict(fused=True)
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


@click.command()
@click.option('--res', default=64, show_default=True)
@click.option('--batch', default=16, show_default=True)
@click.option('--preset', help='A preset of inr at full width; without it, the small pair.')
@click.option('--device', default='cpu', show_default=True)
@click.option('--repeats', default=7, show_default=True)
@click.option('--json', 'json_file', help='Also write the figures here.')
def main(res, batch, preset, device, repeats, json_file):
    """Print the phases of a step in float32 and bfloat16, and whole steps."""
    from torch_utils.misc import keep_freed_memory

    header(device)
    keep_freed_memory()  # as train.py does; both gain by it
    figures = []
    for dtype in ('float32', 'bfloat16'):
        base, fast = Pair(True, res, batch, False, device, preset), Pair(False, res, batch, dtype == 'bfloat16', device, preset)
        parts, errors, what = {}, {}, f'{preset + " " if preset else ""}{res} batch {batch} {dtype} {device}'
        for name in ('G', 'D', 'D_reg'):  # before the weights part ways
            expected = base.gradients(name)
            errors[name] = relative_error(fast.gradients(name), expected)
        for name in ('G', 'D', 'D_reg'):
            parts[name] = compare(f'{name} phase {what}', lambda b=base, n=name: b.phase(n), lambda f=fast, n=name: f.phase(n),
                                  repeats, errors[name])  # fmt: skip
        seconds = [parts['G'][key] + parts['D'][key] + parts['D_reg'][key] / R1_INTERVAL for key in ('baseline_s', 'fast_s')]
        step = dict(case=f'step {what}', baseline_s=seconds[0], fast_s=seconds[1], ratio=seconds[0] / seconds[1],
                    rel_err=max(part['rel_err'] for part in parts.values()), peak_mib=max_of(part['peak_mib'] for part in parts.values()))
        print(line(step), flush=True)
        figures += [*parts.values(), step]
    write(figures, json_file)


def max_of(peaks):
    """The largest, None where they are not known."""
    peaks = list(peaks)
    return None if None in peaks else max(peaks)


if __name__ == '__main__':
    sys.exit(main())
