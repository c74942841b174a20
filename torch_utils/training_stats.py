"""Means of named scalars between two ticks, over all processes, in a form that a training state can hold."""

import math

import torch

from torch_utils import distributed


class Averages:
    """Collects values by name; every process must report the same names.

    Values stay on their device as sums in float64 [number, sum, sum of squares], so that reporting never waits for a GPU.
    """

    def __init__(self):
        self._sums: dict[str, torch.Tensor] = {}

    def report(self, name: str, value: torch.Tensor | float, counted: torch.Tensor | None = None) -> None:
        """Adds the elements of `value` to the statistics of `name`: all, or the rows that are `counted`, bool [N]."""
        value = torch.as_tensor(value).detach().to(torch.float64)
        value = value.reshape(len(counted), -1) if counted is not None else value.reshape(1, -1)
        number = torch.ones_like(value)
        if counted is not None:
            value, number = value.where(counted[:, None], 0), number * counted[:, None]
        sums = torch.stack([number.sum(), value.sum(), value.square().sum()])
        if name in self._sums:
            self._sums[name].add_(sums)  # in place: a recorded step adds to the same tensor
        else:
            self._sums[name] = sums

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The sums over all processes since the last `collect`, on the CPU, of what was reported. All processes must call this."""
        names = sorted(self._sums)
        if not names:
            return {}
        sums = distributed.sum_(torch.stack([self._sums[name] for name in names])).cpu()
        return {name: own for name, own in zip(names, sums.unbind(), strict=True) if own[0]}

    def load_state_dict(self, state: dict[str, torch.Tensor], device: torch.device | str = 'cpu') -> None:
        """Goes on from what `state_dict` returned; the main process takes the sums, the others count from zero."""
        share = 1 if distributed.is_main() else 0
        self._sums = {name: sums.to(device, torch.float64) * share for name, sums in state.items()}

    def collect(self) -> dict[str, dict[str, float]]:
        """{name: {num, mean, std}} since the last call, over all processes; starts anew. All processes must call this."""
        result = {}
        for name, sums in self.state_dict().items():
            num, total, squares = sums.tolist()
            self._sums[name].zero_()
            mean = total / num
            variance = squares / num - mean * mean
            result[name] = {'num': int(num), 'mean': mean, 'std': math.sqrt(max(variance, 0)) if math.isfinite(variance) else variance}
        return result
