"""Layers of sizes that no tile or vector divides, and how kernels are held against plain operators in float64."""

from dataclasses import dataclass

import torch

from inr.ops import dispatch
from inr.ops.layer import double
from tests.helpers import relative_error

ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


@dataclass(frozen=True)
class Doubled:
    """What a trained grid does with the values of the grid below."""

    doubling: str

    def __call__(self, x):
        return double(x, self.doubling)


@dataclass(frozen=True)
class Case:
    """images, rows C_out, below C, features E, size of the points; shared: what all images have in common.

    up: how x, which is of the grid below, is doubled; None: it is of the points
    biases: 0 none, 1 one for all images, 2 one for each
    """

    images: int = 3
    rows: int = 19
    below: int = 21
    features: int = 11
    size: tuple = (10, 14)
    up: str | None = None
    shared: str = 'features'
    biases: int = 1
    slope: float = 0.2
    gain: float = 1.4
    clamp: float | None = None

    @property
    def options(self):
        return dict(slope=self.slope, gain=self.gain, clamp=self.clamp, upsample=Doubled(self.up) if self.up else None)

    def tensors(self, dtype, device='cpu'):
        """Arguments of dispatch.layer, leaves that want gradients; the same numbers for every dtype but for rounding."""
        random = torch.Generator().manual_seed(7)

        def draw(*shape, factor=1.0):
            numbers = torch.randn(shape, generator=random) * factor
            return numbers.to(torch.bfloat16).to(device, dtype).requires_grad_()  # exact in every type but float16, nearly so there

        N, K, (H, W), side = self.images, self.below + self.features, self.size, 2 if self.up else 1
        return dict(
            weight=draw(N, self.rows, K, factor=max(K, 1) ** -0.5),
            bias={0: None, 1: draw(self.rows), 2: draw(N, self.rows)}[self.biases],
            x=draw(1 if 'x' in self.shared else N, self.below, H // side, W // side) if self.below else None,
            features=draw(1 if 'features' in self.shared else N, self.features, H, W) if self.features else None,
        )  # fmt: skip

    def run(self, impl, tensors, **more):
        """Output and gradients for every tensor, by its name."""
        y = dispatch.layer(**tensors, **self.options, impl=impl)
        names = [name for name, tensor in tensors.items() if tensor is not None]
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(8)).to(torch.bfloat16).to(y)
        grads = torch.autograd.grad(y, [tensors[name] for name in names], dy, **more)
        return dict(zip(['y', *names], [y, *grads], strict=True))

    def check(self, impl, dtype, device='cpu'):
        """Kernels are as near to float64 as plain operators of the same type are, but for a factor of 1.5 and a rounding."""
        exact = self.run('ref', self.tensors(torch.float64))
        plain, found = (self.run(which, self.tensors(dtype, device)) for which in ('ref', impl))
        assert set(exact) == set(found)
        for name, expected in exact.items():
            assert found[name].dtype == (dtype if name == 'y' else plain[name].dtype) and found[name].shape == expected.shape
            allowed = 1.5 * relative_error(plain[name].cpu(), expected) + ROUNDING[dtype]
            if name == 'bias':  # a sum over all points, most of which cancels, but not their roundings
                allowed += 2 * ROUNDING[dtype] * self.gain * exact['y'].numel() ** 0.5 / expected.norm().item()
            assert relative_error(found[name].cpu(), expected) < allowed, name

    def check_second_order(self, impl, device='cpu'):
        """Gradients of a penalty on gradients, as R1 and path lengths take them, in float32."""
        results = []
        for which, dtype, where in (('ref', torch.float64, 'cpu'), (impl, torch.float32, device)):
            tensors = self.tensors(dtype, where)
            first = self.run(which, tensors, create_graph=True)
            penalty = sum(grad.square().sum() for name, grad in first.items() if name != 'y')
            leaves = [tensor for tensor in tensors.values() if tensor is not None]
            results.append(torch.autograd.grad(penalty, leaves, materialize_grads=True, allow_unused=True))
        assert any(grad.any() for grad in results[0])
        for expected, found in zip(*results, strict=True):
            assert relative_error(found.cpu(), expected) < 1e-5 if expected.any() else not found.any()


CASES = [
    Case(),
    Case(up='nearest', clamp=1.0),
    Case(below=0, biases=2, slope=0.0, gain=1.0),
    Case(features=0, slope=1.0, clamp=0.8),
    Case(features=0, up='linear', biases=2),
    Case(images=1, rows=1, below=1, features=1, size=(1, 1), biases=0),
    Case(shared='', biases=2, up='nearest'),
    Case(shared='x features', clamp=0.5),
    Case(images=2, rows=64, below=48, features=33, size=(2, 34), up='linear', biases=0),
    Case(rows=5, size=(6, 50), slope=0.0, gain=0.7, clamp=0.3, biases=2),
    Case(images=1, rows=17, below=5, features=0, size=(3, 16)),
    Case(images=1, rows=2, below=3, features=2, size=(70, 300)),
    Case(up='linear', clamp=1.0),
    Case(images=2, rows=3, below=2, features=1, size=(2, 2), up='linear'),
    Case(images=2, rows=5, below=4, features=0, size=(36, 72), up='linear', slope=0.0, biases=0),
]  # fmt: skip


def named(case):
    """A case's id."""
    return repr(case).removeprefix('Case').replace(' ', '')
