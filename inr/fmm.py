"""Factorized multiplicative modulation: image-specific weights of a linear layer (INR-GAN, main paper and appendix E).

W = W_s * s(A B): W_s is shared by all images, A and B are small and come from the latent. Also StyleGAN2's modulation and demodulation
of a 1x1 kernel, which the nearest competitor (CIPS) keeps.

Legend: N images, C_in and C_out channels, r rank.
"""

import math
from dataclasses import dataclass

SQUASHES = {  # elementwise maps centred on 1; 'demod' is the identity, its rows are normalized afterwards
    'demod': lambda m: m + 1,
    'tanh': lambda m: m.tanh() + 1,
    'sigmoid': lambda m: m.sigmoid() + 0.5,
    '2sigmoid': lambda m: m.sigmoid() * 2,
}
FULL = 'full'  # the rank of a hypernetwork: A is as large as W, B is the identity


def fmm_weight(shared, left, right, squash):
    """Image-specific weights of an FMM layer: W = W_s * squash(A B)  (INR-GAN, appendix E).

    shared: [C_out, C_in]     weights all images share (W_s)
    left:   [N, C_out, rank]  factor A of each image
    right:  [N, rank, C_in]   factor B of each image; None for the identity (then rank is C_in)
    squash: elementwise map, centred on 1 so that a zero A B leaves W_s as it is
    Returns [N, C_out, C_in]. rank 1 is squeeze-and-excitation, rank C_in a full hypernetwork.
    """
    return shared * squash(left if right is None else left @ right)


def normalize_rows(weight):
    """Every row of `weight` [N, C_out, C_in] divided by its L2 norm: outputs keep the variance of the inputs."""
    return weight * (weight.square().sum(dim=-1, keepdim=True) + 1e-8).rsqrt()


def demodulated_weight(shared, styles):
    """StyleGAN2's modulated and demodulated weights for a 1x1 kernel.

    shared: [C_out, C_in]; styles: [N, C_in] scale of each input channel. Returns [N, C_out, C_in].
    """
    return normalize_rows(shared * styles.unsqueeze(1))


@dataclass(frozen=True)
class Weights:
    """The weights of a layer for N images: W of each, or, before they are put together, what the images share and their factors.

    matrix: W [N, C_out, C_in]; with factors the shared weights [C_out, C_in], W being rows of shared * (1 + A B), normalized
    left, right: A [N, C_out, r], B [N, r, C_in], or None
    """

    matrix: object
    left: object = None
    right: object = None

    @property
    def shape(self):
        """(C_out, C_in)."""
        return tuple(self.matrix.shape[-2:])

    def materialize(self):
        """W [N, C_out, C_in]."""
        if self.left is None:
            return self.matrix
        return normalize_rows(fmm_weight(self.matrix, self.left, self.right, SQUASHES['demod']))


@dataclass(frozen=True)
class Modulation:
    """How w makes the weights of a layer its own.

    rank: rank r of A B; 'full' for a whole A [C_out, C_in] with the identity for B; None for StyleGAN2's modulation and demodulation
        (no FMM)
    squash: one of SQUASHES. W = W_s * squash(M); 'demod' then normalizes the rows of W. M = A B in generator A, whose squash is
        '2sigmoid', and A B / sqrt(r) else
    equalized: W_s carries the equalized-learning-rate gain 1/sqrt(C_in). Row norms hide it; without it the activations of 'tanh' and
        'sigmoid' grow by sqrt(C_in) a layer. The public implementation has none.
    spread: of the weights that make A and B from w, at the start. At 1, as in the public implementation, M has deviation 1 and images begin
        as networks of their own; at 0.3 it has 0.1, and they begin as one network that w changes
    Raises ValueError for an unknown squash or a rank that is neither a number from 1 on nor 'full'.
    """

    rank: int | str | None = 10
    squash: str = 'demod'
    equalized: bool = True
    spread: float = 1.0

    def __post_init__(self):
        if not self.spread > 0:
            raise ValueError(f'FMM spread {self.spread} is not above 0: w could never change the weights')
        if self.squash not in SQUASHES:
            raise ValueError(f"unknown FMM squash '{self.squash}'; choose one of {', '.join(SQUASHES)}")
        if not (self.rank is None or self.rank == FULL or type(self.rank) is int):
            raise ValueError(f"FMM rank '{self.rank}' is neither a whole number nor '{FULL}'")
        if isinstance(self.rank, int) and self.rank < 1:
            raise ValueError(f'FMM rank {self.rank} is below 1')

    def num_styles(self, in_channels, out_channels):
        """Numbers a layer needs from its affine."""
        if self.rank is None:
            return in_channels
        return in_channels * out_channels if self.rank == FULL else (in_channels + out_channels) * self.rank

    @property
    def initial_style(self):
        """Bias the affine starts with: factors start around 0, plain scales around 1."""
        return 1 if self.rank is None else 0

    def gain(self, in_channels):
        """What W_s is multiplied with, see `equalized`."""
        counts = self.equalized and self.rank is not None and self.squash in ('tanh', 'sigmoid')
        return 1 / math.sqrt(in_channels) if counts else 1

    def factors(self, styles, out_channels, in_channels):
        """(A [N, C_out, r], B [N, r, C_in]) out of styles [N, num_styles], rows of A first; B is None for rank 'full'."""
        if self.rank == FULL:
            return styles.reshape(-1, out_channels, in_channels), None
        left, right = styles.split([out_channels * self.rank, self.rank * in_channels], dim=1)
        left = left.reshape(-1, out_channels, self.rank)  # [N, C_out, r]
        return left, right.reshape(-1, self.rank, in_channels)  # [N, r, C_in]

    def weights(self, shared, styles):
        """Image-specific Weights from shared [C_out, C_in] and styles [N, num_styles]."""
        if self.rank is None:
            return Weights(demodulated_weight(shared, styles))
        out_channels, in_channels = shared.shape
        left, right = self.factors(styles, out_channels, in_channels)
        if right is not None and self.squash != '2sigmoid':
            left = left / math.sqrt(self.rank)
        if self.squash == 'demod' and right is not None:
            return Weights(shared, left, right)
        weight = fmm_weight(shared * self.gain(in_channels), left, right, SQUASHES[self.squash])
        return Weights(normalize_rows(weight) if self.squash == 'demod' else weight)

    def weight(self, shared, styles):
        """Image-specific weights [N, C_out, C_in], put together."""
        return self.weights(shared, styles).materialize()


def check_rank(rank, widest):
    """Raises ValueError for an FMM rank above the inputs of the widest layer: A B has no more than that."""
    if isinstance(rank, int) and rank > widest:
        raise ValueError(f'FMM rank {rank} is above the {widest} inputs of the widest layer: take at most {widest}, or {FULL}')
