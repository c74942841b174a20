"""Frequencies of the Fourier embeddings, block by block (INR-GAN, appendix C, Fig. 16)."""

import math

import torch

SOURCES = ('log', 'random', 'learned', 'generated')  # of the rows of generator B, in their order; generator A has generated ones alone


@torch.no_grad()
def row_frequencies(G, ws):
    """Norms of the rows of the matrices W of e(p) = [sin(W p), cos(W p)], in cycles per image.

    ws: [N, num_ws, w_dim]; rows that do not depend on w count once
    Returns {block: {source: float tensor [rows]}}, coarse to fine; blocks without rows are left out.
    Raises ValueError for a generator without any.
    """
    span = 2 if G.synthesis.pyramid.convention.centred else 1  # the image's side in the model's coordinates
    found, first = {}, 0
    for name in G.synthesis.block_names:
        block = G.synthesis.get_submodule(name)
        if block.coords is not None:
            rows = block.coords.rows(ws[:, first])[0]  # [N or 1, n, 2]
            spec = getattr(block.coords, 'spec', None)
            cycles = rows.norm(dim=2) * span / (2 * math.pi)
            sizes = [0, 0, 0, rows.shape[1]]
            if spec is not None:
                sizes = [block.coords.log_basis.shape[0], spec.random + spec.fine, spec.learned, spec.generated]
            parts = zip(SOURCES, cycles.split(sizes, dim=1), strict=True)
            by_source = {source: (part if source == 'generated' else part[:1]).flatten() for source, part in parts if part.shape[1]}
            if by_source:
                found[name] = by_source
        first += block.spec.layers
    if not found:
        raise ValueError('this generator has no Fourier embedding of its coordinates')
    return found
