"""The INR of an image as a point of its own: reading out the parameters that a latent becomes, and drawing with others.

Interpolating them is not interpolating latents: the image between is drawn with the mean of two functions' weights (main paper, on the
meaning of the space of parameters).
"""

import contextlib

import torch

from inr.blocks import SynthesisLayer, ToRGBLayer
from inr.hypernetwork import InrLayer


def sources(G):
    """{name: (module, method)}: all that turns w into parameters of the INR: weights and biases, Fourier matrices, to-RGB."""
    found = {}
    for name, module in G.synthesis.named_modules():
        if isinstance(module, InrLayer):
            found[name] = module, 'forward'
        elif isinstance(module, SynthesisLayer):
            found[name] = module, 'materialized_weight'
        elif isinstance(module, ToRGBLayer):
            found[f'{name}.affine'] = module.affine, 'forward'
        elif name.endswith('coords') and not name.endswith('coords.coords'):  # one that geometry moves holds the one it moves
            found[name] = module, 'rows'
    return found


@contextlib.contextmanager
def _replaced(G, make):
    """While entered, every source is make(name, original)."""
    replaced = sources(G)
    for name, (module, method) in replaced.items():
        setattr(module, method, make(name, getattr(module, method)))
    try:
        yield
    finally:
        for module, method in replaced.values():
            delattr(module, method)


@torch.no_grad()
def parameters_of(G, ws):
    """{source: parameters} of the INRs of ws [N, num_ws, w_dim]: tensors [N or 1, ...], or tuples of them."""
    found = {}

    def recorded(name, original):
        def call(w, *how):
            found[name] = original(w, *how)
            return found[name]
        return call

    with _replaced(G, recorded):
        G.synthesis.draw(ws, G.synthesis.pyramid.trained_points(ws.device), force_fp32=True, impl='ref')
    return found


def blend(a, b, share):
    """(1 - share) a + share b of two results of `parameters_of`."""
    if isinstance(a, dict):
        return {name: blend(a[name], b[name], share) for name in a}
    if isinstance(a, tuple):
        return tuple(blend(x, y, share) for x, y in zip(a, b, strict=True))
    return a if a is None else torch.lerp(a, b, share)


@torch.no_grad()
def draw_with(G, parameters, ws, points_per_grid):
    """The image of given parameters at the points `points_per_grid` (see SynthesisNetwork.draw); ws only says how many images there are."""
    with _replaced(G, lambda name, original: lambda w, *_: parameters[name]):
        return G.synthesis.draw(ws, points_per_grid, force_fp32=True, impl='ref')
