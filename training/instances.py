"""Pictures told apart within their class: z says how a picture looks, and D judges whether it looks so (instance-conditioned GANs, Casanova
et al. 2021, arXiv 2109.05070).

A look is K numbers: what the pretrained features that D judges (training.pretrained) see in a picture, less what they see in its class on
average, along the K directions in which pictures differ most, whitened. So looks are about as z is, normal, and in a run with --instances
every fake stands for a real picture: it has its label, and the first K numbers of its z are its look. D's heads get the look beside the
features, are shown real pictures under the look of others as fakes, and G is taught the distance of its picture's look from the one asked
for. Nothing but z and a label is needed to draw.

Legend: N images, F numbers that features are pooled to, K numbers of a look.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from torch_utils.pixels import from_uint8
from training.dataset import ImageDataset
from training.latents import Latents
from training.layers import FullyConnectedLayer
from training.pretrained import FrozenFeatures
from training.windows import are_whole

NOISE = 0.3        # deviation of what z adds to a look, so that what lies between pictures is drawn too
MOST = 8192        # images that directions and classes' means come from
AT_ONCE = 64       # of these
PLACES = 2         # rows and columns that the second feature map is pooled to: where in the picture things are
PLACES_WEIGHT = 0.5
UNLIKE = 0.5       # mean squared distance of two looks that D is to tell apart; that of any two is 2
MISMATCH = 0.5     # weight of real pictures under the look of others in the loss of D's heads
RIDGE = 0.01       # of the mean square along a direction, in `Looks.begin`


def pooled(maps: list[torch.Tensor]) -> torch.Tensor:
    """Feature maps [N, C, H, W] -> [N, F]: the two deepest averaged over the picture, the second one over its quarters."""
    places = F.adaptive_avg_pool2d(maps[1], PLACES).flatten(1) * PLACES_WEIGHT
    return torch.cat([*(each.mean((2, 3)) for each in maps[-2:]), places], dim=1)


class Looks:
    """How pictures of a data set look, by features that are calibrated. numbers: K"""

    @torch.no_grad()
    def __init__(self, dataset: ImageDataset, features: FrozenFeatures, numbers: int, device: torch.device | str = 'cpu'):
        self.features, self.numbers = features, numbers
        seen, labels = [], []
        items = dataset.spread(MOST)
        for some in np.split(items, range(AT_ONCE, len(items), AT_ONCE)):
            pixels = np.stack([dataset[int(i)][0] for i in some])
            seen.append(pooled(features(from_uint8(torch.from_numpy(pixels).to(device)))).double().cpu())
            labels.append(torch.from_numpy(np.stack([dataset.get_label(int(i)) for i in some])).double())
        seen, labels = torch.cat(seen), torch.cat(labels)  # [images, F], [images, c_dim]
        labels = torch.cat([labels, torch.ones(len(labels), 1, dtype=torch.float64)], dim=1)
        # [c_dim + 1, F], what features are by a label: of labels that are classes, their means
        self.means = torch.linalg.pinv(labels.T @ labels, hermitian=True) @ (labels.T @ seen)
        main = _directions(seen - seen.mean(0), numbers)[0]                          # [F, <= K]
        inner, deviation = _directions((seen - labels @ self.means) @ main, numbers)
        kept = deviation > 1e-6 * seen.abs().max()         # classes of a picture each leave nothing
        inner, deviation = inner[:, kept], deviation[kept]
        self.classes = self.means[:-1] @ main              # [c_dim, <= K], where each class is along the main directions
        self.along = F.pad(inner * deviation, [0, numbers - len(deviation)]).T       # [K, <= K], a look along these
        self.directions = F.pad(main @ (inner / deviation), [0, numbers - len(deviation)]).float().to(device)  # [F, K]
        self.shares = F.pad(deviation ** 2 / (deviation ** 2).sum().clamp_min(1e-30), [0, numbers - len(deviation)]).float().to(device)
        self.means = self.means.float().to(device)

    def of(self, maps: list[torch.Tensor], c: torch.Tensor) -> torch.Tensor:
        """The looks [N, K] of pictures whose features are `maps` and whose labels are c [N, c_dim], differentiable."""
        return (pooled(maps) - F.pad(c, [0, 1], value=1.0) @ self.means) @ self.directions

    def distances(self, drawn: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """Squared distances of the looks of fakes from those asked for, [N, K] each, along each direction as much as pictures differ there;
        [N]: 2 for two real pictures of a class on average, zero where nothing was asked for."""
        return (drawn - asked).square() @ self.shares * asked.any(dim=1)

    @torch.no_grad()
    def of_reals(self, reals: torch.Tensor, c: torch.Tensor, windows: torch.Tensor | None, at_once: int) -> torch.Tensor:
        """The looks [N, K] of real pictures [N, C, H, W]; zero for windows [N, 3] that are a part of one, which say little of it."""
        found = torch.cat([self.of(self.features(x), labels) for x, labels in zip(reals.split(at_once), c.split(at_once), strict=True)])
        return found if windows is None else found * are_whole(windows, reals.shape[-1])[:, None].to(found)

    @torch.no_grad()
    def begin(self, mapping: torch.nn.Module, groups: list[int]) -> bool:
        """Lets z's first K numbers begin as looks to a mapping network: as its columns of the classes tell looks apart, found by least
        squares within the groups of classes. So a cluster's pictures begin as unlike as clusters are, and nothing is to be learned anew.

        groups: [c_dim], the group of each class
        Returns False, with nothing done, for a network without such columns, or with less than twice as many classes as numbers.
        """
        embed = getattr(mapping, 'embed', None)
        if not isinstance(embed, FullyConnectedLayer) or not mapping.pixel_norm or len(groups) < 2 * self.numbers:
            return False
        columns = embed(torch.eye(len(groups), device=embed.weight.device)).double().cpu()  # [c_dim, E]
        members = F.one_hot(torch.tensor(groups)).double()                                  # [c_dim, groups]
        within = torch.eye(len(groups)) - members @ torch.linalg.pinv(members)              # takes off the mean of the group
        looks, told_apart = within @ self.classes, within @ columns
        squares = looks.T @ looks
        ridge = RIDGE * squares.trace() / len(squares) * torch.eye(len(squares))
        reading = self.along @ torch.linalg.solve(squares + ridge, looks.T @ told_apart)    # [K, E]
        first, scale = mapping.fc0.weight, columns.square().mean().sqrt()
        first[:, :self.numbers] = first[:, mapping.z_dim:] @ (reading / scale).T.to(first)
        return True


def _directions(rows: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(principal directions [F, <= most] of centred rows [images, F], the rows' deviation along each)"""
    _, values, directions = torch.linalg.svd(rows, full_matrices=False)
    return directions[:most].T, values[:most] / max(len(rows), 1) ** 0.5


def stand_for(latents: Latents, looks: torch.Tensor, real_c: torch.Tensor, windows: torch.Tensor | None) -> Latents:
    """Latents for fakes that stand for real pictures: with their labels and windows, and what z is to say of them.

    looks: [N, K] of these, zero where nothing is known of a picture
    """
    K, known = looks.shape[1], looks.any(dim=1, keepdim=True)
    z = latents.z.to(looks.device)
    own = looks * math.sqrt(1 - NOISE ** 2) + z[:, :K] * NOISE
    said = torch.where(known, own, z[:, :K])
    mix = latents.z_mix if latents.z_mix is None else torch.cat([said, latents.z_mix.to(looks.device)[:, K:]], dim=1)
    return replace(latents, z=torch.cat([said, z[:, K:]], dim=1), z_mix=mix, c=real_c, windows=windows, looks=own * known)


def others(looks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(looks [N, K] of others in the batch, of one class where D's groups are; bool [N], whether these are known and unlike the own)"""
    rolled = looks.roll(len(looks) // 2, 0)
    return rolled, ((rolled - looks).square().mean(1) > UNLIKE) & looks.any(dim=1) & rolled.any(dim=1)
