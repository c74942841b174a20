"""What augmentation adds to a training step: steps with and without, in turn.

OMP_NUM_THREADS=1 python benchmarks/bench_augment.py [--preset=inr-tiny --res=32 --batch=16] [--json=FILE]

A ratio of 0.9 is a step that takes 1/0.9 of the time. The images are random; 16 steps are the presets' interval of R1.
"""

import sys

import click
from side_by_side import compare, header, write


class Steps:
    """So many steps of a preset's networks with augmentation at p, pipe '' for none."""

    def __init__(self, preset, res, batch, steps, device, pipe, p):
        import torch

        from torch_utils.training_stats import Averages
        from training import plugins
        from training.ada import Augmentation
        from training.augment import NUMBERS
        from training.config import DataConfig, build
        from training.latents import Latents
        from training.loss import GanLoss, phases
        from training.options import AugmentConfig

        data = DataConfig('', '', res, 3, 1, 0, None, False, None)
        self.steps, settings = steps, build(preset, plugins.presets()[preset], data, device, batch=batch)
        torch.manual_seed(0)
        G, D = (network.to(device).train() for network in (plugins.build_generator(settings), plugins.build_discriminator(settings)))
        if device == 'cpu':
            D.use_channels_last()
        augment = Augmentation(AugmentConfig('fixed', pipe, p) if pipe else AugmentConfig(), device)
        self.networks, self.loss = {'G': G, 'D': D}, GanLoss(G, D, settings.loss, Averages(), augment)
        self.phases, self.reals = phases(settings.loss), (torch.rand(batch, 3, res, res) * 2 - 1).to(device)
        self.labels, zeros = torch.zeros(batch, 0, device=device), torch.zeros(batch)
        self.latents = Latents(torch.randn(batch, settings.generator.z_dim), None, zeros, zeros, torch.zeros(batch, 0),
                               torch.rand(batch, 2, NUMBERS, dtype=torch.float64)).to(device)

    def __call__(self):
        for step in range(self.steps):
            for phase, interval in self.phases:
                if step % interval == 0:
                    for name, network in self.networks.items():
                        network.requires_grad_(name == phase[0]).zero_grad()
                    self.loss.accumulate(phase, self.reals, self.labels, self.latents, 1.0)


@click.command()
@click.option('--preset', default='inr-tiny', show_default=True)
@click.option('--res', default=32, show_default=True)
@click.option('--batch', default=16, show_default=True)
@click.option('--steps', default=16, show_default=True)
@click.option('--pipe', 'pipes', multiple=True, default=['bgc', 'bgcfnc'], show_default=True)
@click.option('--p', 'chances', multiple=True, type=float, default=[0.2, 0.6, 1.0], show_default=True)
@click.option('--device', default='cpu', show_default=True)
@click.option('--repeats', default=5, show_default=True)
@click.option('--json', 'json_file', help='Also write the figures here.')
def main(preset, res, batch, steps, pipes, chances, device, repeats, json_file):
    """Print seconds of both, their ratio and the peak memory of steps with augmentation."""
    header(device)
    plain, figures = Steps(preset, res, batch, steps, device, '', 0), []
    for pipe in pipes:
        for p in chances:
            case = f'{preset} {res} batch {batch} {pipe} p {p:g} {device}'
            figures.append(compare(case, plain, Steps(preset, res, batch, steps, device, pipe, p), repeats, 0.0))
            write(figures, json_file)


if __name__ == '__main__':
    sys.exit(main())
