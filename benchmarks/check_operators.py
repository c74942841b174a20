"""Every CUDA operator against PyTorch's own operators in float64: outputs, first and second derivatives, types, layouts, odd shapes.

python benchmarks/check_operators.py [--device=cuda] [--small] [--json=FILE]

A kernel may be as far from float64 as plain operators of its own type are on the same device, half as far again, and four roundings. TF32
is off but in the cases that name it, which also hold the mean of the numbers. Exit code 1 if one is further off. --small takes a case of
each, for compute-sanitizer; --device=cpu checks the CPU's code instead.
"""

import itertools
import json
import sys
from dataclasses import dataclass

import click
from side_by_side import write

ROUNDING = {'float32': 1e-6, 'tf32': 2.0**-11, 'bfloat16': 2.0**-8, 'float16': 2.0**-10}
ACTS = ('linear', 'relu', 'lrelu', 'tanh', 'sigmoid', 'elu', 'selu', 'softplus', 'swish')


@dataclass
class Case:
    """name; function(impl, **tensors); shapes of the tensors; channels_last: of those with 4 dimensions.

    kinks: a function of the tensors that says where the first of them must be another number, or None
    differentiable: whether gradients are checked
    """

    name: str
    function: object
    shapes: dict
    channels_last: bool = False
    kinks: object = None
    differentiable: bool = True

    def tensors(self, dtype, device):
        """Leaves with the same numbers for every type, but for rounding."""
        import torch

        random = torch.Generator().manual_seed(1)
        found = {name: torch.randn(shape, generator=random).to(torch.bfloat16).double() for name, shape in self.shapes.items()}
        first = next(iter(found.values()))
        while self.kinks and (near := self.kinks(**found)).any():
            first[near] = torch.randn(int(near.sum()), generator=random).to(torch.bfloat16).double()
        for name, tensor in found.items():
            layout = torch.channels_last if self.channels_last and tensor.ndim == 4 else torch.contiguous_format
            found[name] = tensor.to(device, dtype).contiguous(memory_format=layout).requires_grad_(self.differentiable)
        return found

    def results(self, impl, dtype, device, second):
        """{what: tensor}: y and its gradients; with `second` those of their squares as well."""
        import torch

        tensors = self.tensors(dtype, device)
        y = self.function(impl, **tensors)
        if not self.differentiable:
            return {'y': y.cpu().double()}
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(torch.bfloat16).to(y).requires_grad_(second)
        first = torch.autograd.grad(y, list(tensors.values()), dy, retain_graph=second)
        found = {'y': y, **{f'd{name}': grad for name, grad in zip(tensors, first, strict=True)}}
        if second:
            first = torch.autograd.grad(y, list(tensors.values()), dy, create_graph=True)
            penalty = sum(grad.float().square().sum() if grad.dtype != torch.float64 else grad.square().sum() for grad in first)
            leaves = dict(tensors, dy=dy)
            more = torch.autograd.grad(penalty, list(leaves.values()), allow_unused=True, materialize_grads=True)
            found.update({f'd2{name}': grad for name, grad in zip(leaves, more, strict=True)})
        return {what: tensor.detach().cpu().double() for what, tensor in found.items()}

    def check(self, dtype, device, forced):
        """{case, errors: {what: [found, allowed]}, repeats, ok}. forced: the impl that must be as good as 'ref'."""
        import torch

        from torch_utils.misc import allow_tf32

        allow_tf32(dtype == 'tf32')
        kind, second = getattr(torch, 'float32' if dtype == 'tf32' else dtype), dtype == 'float32'
        exact = self.results('ref', torch.float64, 'cpu', second)
        plain, found, again = (self.results(impl, kind, device, second) for impl in ('ref', forced, forced))
        errors = {what: [error(found[what], y), 1.5 * error(plain[what], y) + 4 * ROUNDING[dtype]] for what, y in exact.items()}
        if dtype == 'tf32' and exact['y'].numel() > 1000:  # factors that are cut off and not rounded make every product smaller
            gain = (found['y'] * exact['y']).sum() / exact['y'].square().sum()
            errors['contrast'] = [abs(gain.item() - 1), 1e-4]
        repeats = all(torch.equal(found[what], again[what]) for what in found)
        ok = repeats and all(off <= allowed for off, allowed in errors.values())
        return dict(case=f'{self.name} {dtype} {device}', errors=errors, repeats=repeats, ok=ok)


def error(actual, expected):
    """||actual - expected|| / ||expected||; infinite for what is not finite."""
    if not actual.isfinite().all():
        return float('inf')
    return ((actual - expected).norm() / expected.norm().clamp(min=1e-30)).item() if expected.any() else actual.norm().item()


def cases():
    """One after the other, the small ones of each operator first."""
    from torch_utils.ops import bias_act, upfirdn2d

    for last, act in itertools.product((False, True), ACTS):
        for clamp in (None, 0.8):
            def function(impl, x, b, act=act, clamp=clamp):
                return bias_act.bias_act(x, b, act=act, clamp=clamp, impl=impl)

            def kinks(x, b, act=act, clamp=clamp):  # where rounding decides which derivative holds
                z, y = x + b[:, None, None], bias_act.bias_act(x, b, act=act, impl='ref')
                return (z.abs() < 0.05) | ((y.abs() - (clamp or 1e9)).abs() < 0.02)

            yield Case(f'bias_act {act} clamp={clamp} last={last}', function, dict(x=(3, 5, 7, 9), b=(5,)), last, kinks)
    for last, (taps, up, down, padding) in itertools.product((False, True), FILTERS):
        def function(impl, x, taps=taps, up=up, down=down, padding=padding):
            f = upfirdn2d.setup_filter(taps, device=x.device)
            return upfirdn2d.upfirdn2d(x, f, up=up, down=down, padding=padding, impl=impl)
        yield Case(f'upfirdn2d taps={len(taps)} up={up} down={down} padding={padding} last={last}', function, dict(x=(2, 5, 13, 11)), last)
    yield from fmm_cases()


FILTERS = [([1, 3, 3, 1], 1, 1, (2, 1, 2, 1)), ([1, 3, 3, 1], 2, 1, (2, 1, 2, 1)), ([1, 3, 3, 1], 1, 2, (1, 1, 1, 1)),
           ([1, 2, 1], (3, 1), (1, 2), (-1, 2, 0, 3)), ([[1, 2], [3, 4], [5, 6]], 2, 3, (0, 3, 2, -1))]  # fmt: skip
LAYERS = [  # C_out, C, E, size, whether x is of the grid below, clamp
    (19, 21, 11, (10, 14), False, None), (19, 21, 11, (10, 14), True, 1.0), (64, 48, 33, (2, 34), True, None),
    (1, 1, 1, (1, 1), False, None), (130, 257, 0, (9, 31), False, 0.5), (512, 512, 48, (32, 32), True, 256.0),
    (3, 0, 300, (17, 5), False, None),
]  # fmt: skip


SMALL = ('bias_act lrelu clamp=0.8', 'upfirdn2d', 'fmm 21+11>19 10x14 below=True', 'fmm weights')  # how the names begin


class Doubled:
    """What a trained grid does with the values of the grid below."""

    doubling = 'nearest'

    def __call__(self, x):
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def fmm_cases():
    """Layers, and the weights that one kernel puts together."""
    from inr.fmm import Weights
    from inr.ops import dispatch

    for rows, C, E, (H, W), below, clamp in LAYERS:
        def function(impl, weight, bias, x=None, features=None, below=below, clamp=clamp):
            weight = weight / weight.shape[2] ** 0.5
            return dispatch.layer(weight, bias, x, features, Doubled() if below else None, gain=1.4, clamp=clamp, impl=impl)

        shapes = dict(weight=(3, rows, C + E), bias=(rows,))
        if C:
            shapes['x'] = (3, C, H // 2, W // 2) if below else (3, C, H, W)
        if E:
            shapes['features'] = (1, E, H, W)
        yield Case(f'fmm {C}+{E}>{rows} {H}x{W} below={below} clamp={clamp}', function, shapes)
    for rank in (1, 3, 10, 33):
        def function(impl, shared, left, right):
            import torch

            parts = [part.float() if part.dtype != torch.float64 else part for part in (shared, left, right)]
            return dispatch.materialize(Weights(*parts), shared.dtype, impl)
        shapes = dict(shared=(37, 53), left=(3, 37, rank), right=(3, rank, 53))
        yield Case(f'fmm weights rank {rank}', function, shapes, differentiable=False)  # as drawn without gradients


def forced_impl(case, device):
    """Who must compute a case."""
    return 'cuda' if device != 'cpu' else 'fused' if case.name.startswith('fmm') else 'auto'


@click.command()
@click.option('--device', default='cuda', show_default=True)
@click.option('--small', is_flag=True, help='One case of each operator.')
@click.option('--json', 'json_file', help='Also write what was found here.')
def main(device, small, json_file):
    """Print what is further off than it may be, and how many cases there were."""
    from torch_utils.misc import allow_tf32

    allow_tf32(False)
    chosen = list(cases())
    if small:
        chosen = [next(case for case in chosen if case.name.startswith(name)) for name in SMALL]
    found = []
    for case in chosen:
        forced = forced_impl(case, device)
        for dtype in ROUNDING:
            if device == 'cpu' and dtype in ('float16', 'tf32'):
                continue  # plain PyTorch has no use for the one there, and there is no other
            if dtype == 'tf32' and not case.name.startswith('fmm'):
                continue  # no product is taken
            found.append(case.check(dtype, device, forced))
            if not found[-1]['ok']:
                print(json.dumps(found[-1]), flush=True)
    bad = sum(not each['ok'] for each in found)
    print(f'{len(found)} cases on {device}, {bad} further off than they may be', flush=True)
    write(found, json_file)
    sys.exit(1 if bad else 0)


if __name__ == '__main__':
    main()
