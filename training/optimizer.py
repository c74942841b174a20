"""Adam for both networks: made from the recipe, stepped only by finite gradients, restored from a snapshot."""

import torch

from dnnlib.util import UserError
from torch_utils import distributed
from training.options import OptimizerConfig


def make_optimizer(network: torch.nn.Module, settings: OptimizerConfig) -> torch.optim.Adam:
    """Adam with one learning rate, or with one for each group of `network.parameter_groups()`. Raises UserError if the groups differ."""
    if not isinstance(settings.lr, dict):
        return torch.optim.Adam(network.parameters(), lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)
    groups = network.parameter_groups() if hasattr(network, 'parameter_groups') else {}
    if set(groups) != set(settings.lr):
        raise UserError(f'{type(network).__name__} has parameter groups {sorted(groups)}, the recipe gives rates for {sorted(settings.lr)}')
    return torch.optim.Adam([{'params': list(groups[name]), 'lr': lr} for name, lr in settings.lr.items()],
                            betas=settings.betas, eps=settings.eps, fused=True)


def step_if_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Averages the gradients over all processes and steps, unless one of them is not finite. Returns whether it stepped."""
    grads = _gradients(optimizer)
    if distributed.world_size() > 1:
        flat = torch.cat([grad.flatten() for grad in grads])
        distributed.sum_(flat).div_(distributed.world_size())
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))
    if not _all_finite(grads):
        return False
    optimizer.step()
    return True


def step_where_finite(optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """The same in one process without waiting for the device, so that it can be recorded. Returns a float32, 1 where it did not step."""
    skipped = 1 - _all_finite(_gradients(optimizer)).float()
    optimizer.found_inf, optimizer.grad_scale = skipped, None  # what fused Adam looks at
    _set_capturable(optimizer, skipped.is_cuda and torch.cuda.is_current_stream_capturing())
    try:
        optimizer.step()
    finally:
        _set_capturable(optimizer, False)
        del optimizer.found_inf, optimizer.grad_scale
    return skipped


def _gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p.grad for group in optimizer.param_groups for p in group['params'] if p.grad is not None]


def _all_finite(grads: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([grad.sum() for grad in grads]).isfinite().all()


def _set_capturable(optimizer: torch.optim.Optimizer, value: bool) -> None:
    for group in optimizer.param_groups:
        group['capturable'] = value


def restore(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Loads what a snapshot holds of an optimizer, checked by `state.expect_state`; all its options stay as they are.

    Moments get the memory format of their parameters, which may not be the one they were saved in: fused Adam goes through both as they lie
    in memory.
    """
    optimizer.load_state_dict({'state': state['state'], 'param_groups': optimizer.state_dict()['param_groups']})
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)
