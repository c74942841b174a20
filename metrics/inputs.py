"""What callers pass: tensors or arrays of any kind, made one kind, or refused in one line."""

import contextlib
import functools

import numpy as np
import torch

from metrics.perceptual import as_rgb


def array(x):
    """Tensors (of any device, in half precision, with gradients) and lists as NumPy arrays."""
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    return np.asarray(x)


def feature_sets(a, b, rows=1):
    """Two sets of features as arrays [N, D] and [M, D]. Raises ValueError for others, fewer than `rows`, numbers that are not finite."""
    a, b = array(a), array(b)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not a.shape[1] or min(len(a), len(b)) < rows:
        raise ValueError(f'features [N, D] and [M, D] of at least {rows} rows are needed, not {a.shape} and {b.shape}')
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError('features must be finite')
    return a, b


def images(x):
    """uint8 [N, 1 | 3 | 4, H, W], tensor or array, as a tensor [N, 3, H, W]: grey repeated, alpha dropped. Raises ValueError for others."""
    x = torch.as_tensor(x)
    if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] not in (1, 3, 4):
        raise ValueError(f'uint8 images [N, 1, 3 or 4, H, W] are needed, not {x.dtype} {list(x.shape)}')
    return as_rgb(x)


@contextlib.contextmanager
def full_precision():
    """Autocast is off inside: scores in half precision would be off by percents without a word."""
    with contextlib.ExitStack() as stack:
        for device in ('cpu', 'cuda'):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def in_full_precision(function):
    """The function with autocast off."""
    @functools.wraps(function)
    def wrapped(*args, **options):
        with full_precision():
            return function(*args, **options)
    return wrapped
