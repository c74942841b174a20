"""Directions in w: by closed-form factorization (SeFa, arXiv 2007.06600) and by principal components (GANSpace, arXiv 2004.02546).

Everything that w does begins with affine layers: what modulates a layer, factors of FMM or styles, is A w + b. SeFa takes the unit vectors
n of largest ||A n||, the eigenvectors of A^T A, where A holds the affine layers one below the other. PCA takes those of the covariance of
w.
A direction is as long as one standard deviation of w along it, so that a strength means the same for all of them.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dnnlib.util import UserError, atomic_path
from inference.latents import Walk, label_of_seed, network_digest, read_arrays, z_of
from inference.painter import draw_a_few_points

METHODS = ('sefa', 'pca')
COUNT = 16
SAMPLES = 2048  # of w


@dataclass(frozen=True)
class Directions:
    """vectors: [K, w_dim], the strongest first; shares: of ||A||^2 or of the variance, [K]; layers: of ws that are moved; method."""

    vectors: torch.Tensor
    shares: torch.Tensor
    layers: tuple[int, ...]
    method: str

    def __len__(self):
        return len(self.vectors)

    def moved(self, ws, strengths):
        """ws [N, num_ws, w_dim] moved along several directions; strengths: (number, strength) pairs."""
        ws = ws.clone()
        for number, strength in strengths:
            ws[:, list(self.layers)] += strength * self.vectors[number].to(ws.device)
        return ws

    def along(self, codes, number, strengths):
        """{name: ws} with each moved by each strength in turn; names get the strength. Raises UserError for no such direction."""
        self.expect(number)
        return {f'{name}{strength:+.2f}': self.moved(ws, [(number, strength)]) for name, ws in codes.items() for strength in strengths}

    def swing(self, walk, number, ends):
        """A latents.Walk that also moves from the first of two strengths to the second and back, stop by stop. Raises as `along`."""
        self.expect(number)
        return Swing(self, walk, number, ends)

    def expect(self, number):
        if not 0 <= number < len(self):
            raise UserError(f'--direction={number}: there are the directions 0 to {len(self) - 1}')


@dataclass(frozen=True)
class Swing:
    """What Directions.swing returns."""

    directions: Directions
    walk: Walk
    number: int
    ends: tuple[float, float]

    def at(self, stop, share):
        """As Walk.at."""
        begin, end = self.ends[stop % 2], self.ends[(stop + 1) % 2]
        return self.directions.moved(self.walk.at(stop, share), [(self.number, begin + (end - begin) * share)])


@torch.no_grad()
def affine_layers(G):
    """[(number of the w it takes, matrix [outputs, w_dim])] of all layers of the synthesis that take a w."""
    ws = torch.randn([1, G.num_ws, G.w_dim], generator=torch.Generator().manual_seed(0)).to(next(G.parameters()).device)
    found = {}

    def look(name, module, inputs):
        x = inputs[0] if inputs else None
        if isinstance(x, torch.Tensor) and x.shape == (1, G.w_dim):
            found.update({(name, i): module for i in range(G.num_ws) if torch.equal(x[0], ws[0, i])})

    hooks = [module.register_forward_pre_hook(functools.partial(look, name))
             for name, module in G.synthesis.named_modules() if not list(module.children())]
    try:
        draw_a_few_points(G, ws)
    finally:
        for hook in hooks:
            hook.remove()
    zero = torch.zeros([1, G.w_dim], device=ws.device)
    unit = torch.eye(G.w_dim, device=ws.device)
    return [(i, (module(unit) - module(zero)).T) for (_, i), module in found.items()]


@torch.no_grad()
def sampled_w(G, count=SAMPLES):
    """w of the seeds from 0 on, classes in turn, without truncation: [count, w_dim]."""
    device = next(G.parameters()).device
    z = torch.from_numpy(np.concatenate([z_of(G, seed) for seed in range(count)])).to(device)
    c = torch.cat([label_of_seed(G, seed) for seed in range(count)]) if G.c_dim else None
    return G.mapping(z, c)[:, 0]


def find(G, method='sefa', layers=None, count=COUNT, samples=SAMPLES):
    """The strongest Directions of a generator. layers: of ws; None for all. Raises UserError for a layer that is not there."""
    layers = tuple(range(G.num_ws)) if layers is None else tuple(layers)
    if not layers or min(layers) < 0 or max(layers) >= G.num_ws:
        raise UserError(f'--layers: this network has the layers 0 to {G.num_ws - 1}')
    w = sampled_w(G, samples).double()
    covariance = torch.cov(w.T)
    symmetric = covariance
    if method == 'sefa':
        matrices = [matrix.double() for i, matrix in affine_layers(G) if i in layers]
        symmetric = sum(matrix.T @ matrix for matrix in matrices)
    values, vectors = torch.linalg.eigh(symmetric)
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count].T  # [K], [K, w_dim]
    vectors = vectors * vectors.gather(1, vectors.abs().argmax(1, keepdim=True)).sign()  # an eigenvector has no sign of its own
    deviations = (vectors @ covariance * vectors).sum(1, keepdim=True).clamp(min=0).sqrt()
    return Directions((vectors * deviations).float(), (values / symmetric.trace()).float(), layers, method)


def save(path, directions, G):
    """Writes directions that were found in a generator."""
    with atomic_path(path) as temporary, open(temporary, 'wb') as file:
        np.savez(file, vectors=directions.vectors.cpu().numpy(), shares=directions.shares.cpu().numpy(), layers=np.array(directions.layers),
                 method=directions.method, network=network_digest(G))


def load(path, G):
    """Directions out of a file. Raises UserError for one that is no such file or of another network."""
    path = Path(path)
    arrays = read_arrays(path, G, 'vectors', 'directions.npz', 'analyze.py directions')
    vectors, layers = arrays['vectors'], arrays.get('layers', np.array([]))
    if vectors.ndim != 2 or vectors.shape[1] != G.w_dim or vectors.dtype.kind != 'f' or not np.isfinite(vectors).all() or not len(vectors):
        raise UserError(f'{path}: vectors must be finite numbers [K, {G.w_dim}] for this network, '
                        f'they are {vectors.dtype} {list(vectors.shape)}')
    if layers.ndim != 1 or layers.dtype.kind != 'i' or not len(layers) or layers.min() < 0 or layers.max() >= G.num_ws:
        raise UserError(f'{path}: layers must be numbers from 0 to {G.num_ws - 1}')
    shares = arrays.get('shares', np.zeros(len(vectors)))
    return Directions(torch.from_numpy(vectors.astype(np.float32)).to(next(G.parameters()).device),
                      torch.from_numpy(np.asarray(shares, np.float32)), tuple(layers.tolist()), str(arrays.get('method', '')))


def load_or_find(path, G):
    """Those of a file, or of SeFa for None."""
    return find(G) if path is None else load(path, G)
