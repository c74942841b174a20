"""Pictures told apart within their class: z says how a picture looks, and D judges whether it looks so (instance-conditioned GANs, Casanova
et al. 2021, arXiv 2109.05070).

A look is K numbers: what the pretrained features that D judges (training.pretrained) see in a picture, less what they see in its class on
average, along the K directions in which pictures differ most, whitened. So looks are about as z is, normal, and in a run with --instances
all fakes have the labels of real pictures and half of them stand for these: the first K numbers of their z are the look of the picture. The
others keep a z as drawing gives it, so that what lies between the looks of pictures, and beyond them, is learned too. D's heads get the
look beside the features, are shown real pictures under the look of others as fakes, and G is taught the distance of its picture's look from
the one asked for. Nothing but z and a label is needed to draw. While a run grows, fakes stand for nothing: features of small pictures are
others.

What a look is comes from the data set once, before the first step, and is in the training state from then on: computed anew, on another
number of threads, those along which pictures differ about as much may mix.

Legend: N images, F numbers that features are pooled to, K numbers of a look.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from torch_utils import distributed
from torch_utils.pixels import from_uint8
from training.dataset import ImageDataset
from training.latents import Latents
from training.layers import FullyConnectedLayer
from training.pretrained import FrozenFeatures
from training.sampling import some_items
from training.windows import are_whole

NOISE = 0.3        # deviation of what z adds to a look, so that what lies between pictures is drawn too
MOST = 4096        # images that directions and classes' means come from
AT_ONCE = 64       # of these
PLACES = 2         # rows and columns that the second feature map is pooled to: where in the picture things are
PLACES_WEIGHT = 0.5
UNLIKE = 0.5       # mean squared distance of two looks that D is to tell apart; that of any two is 2
MISMATCH = 0.5     # weight of real pictures under the look of others in the loss of D's heads
DIGIT = 2 ** -12    # of z's last number, which chooses the fakes that stand for pictures
RIDGE = 0.01       # of the mean square along a direction, in `Looks.begin`


def pooled(maps: list[torch.Tensor]) -> torch.Tensor:
    """Feature maps [N, C, H, W] -> [N, F]: the two deepest averaged over the picture, the second one over its quarters."""
    places = F.adaptive_avg_pool2d(maps[1], PLACES).flatten(1) * PLACES_WEIGHT
    return torch.cat([*(each.mean((2, 3)) for each in maps[-2:]), places], dim=1)


class Looks:
    """How pictures of a data set look, by features that are calibrated, as soon as it is `measured`. numbers: K

    means:      [c_dim + 1, F], what features are by a label: of labels that are classes, their means
    directions: [F, K], what whitened numbers come from
    shares:     [K], of what pictures of a class differ by, how much is along each; 0 for directions that a small set does not have
    """

    def __init__(self, features: FrozenFeatures, numbers: int, device: torch.device | str = 'cpu'):
        self.features, self.numbers, self.device = features, numbers, device
        self.means = self.directions = self.shares = None

    @property
    def measured(self) -> bool:
        return self.shares is not None

    @torch.no_grad()
    def measure(self, dataset: ImageDataset, seed: int) -> None:
        """Looks at up to MOST pictures. All processes must call this."""
        seen, labels, items = [], [], np.sort(some_items(dataset, MOST, seed))
        distributed.print0(f'instances: finding out from {len(items):,} pictures how they look')
        for some in np.split(items, range(AT_ONCE, len(items), AT_ONCE)):
            pixels, c = zip(*(dataset[int(i)] for i in some), strict=True)
            seen.append(pooled(self.features(from_uint8(torch.from_numpy(np.stack(pixels)).to(self.device)))).double().cpu())
            labels.append(torch.from_numpy(np.stack(c)).double())
        seen, labels = torch.cat(seen), F.pad(torch.cat(labels), [0, 1], value=1.0)  # [images, F], [images, c_dim + 1]
        means = torch.linalg.pinv(labels.T @ labels, hermitian=True) @ (labels.T @ seen)
        main = _directions(seen - seen.mean(0), self.numbers)[0]                     # [F, <= K]
        inner, deviation = _directions((seen - labels @ means) @ main, self.numbers)
        kept = deviation > 1e-6 * seen.abs().max()                                   # classes of a picture each leave nothing
        inner, deviation = inner[:, kept], deviation[kept]
        room = [0, self.numbers - len(deviation)]
        directions, shares = F.pad(main @ (inner / deviation), room), F.pad(deviation ** 2 / deviation.square().sum(), room)
        self.means, self.directions, self.shares = (distributed.broadcast_(x.float().to(self.device)) for x in (means, directions, shares))

    def state_dict(self) -> dict[str, torch.Tensor] | None:
        """What it has measured, None before that."""
        return {name: getattr(self, name).cpu() for name in ('means', 'directions', 'shares')} if self.measured else None

    def load_state_dict(self, state: dict[str, torch.Tensor] | None) -> None:
        for name, value in (state or {}).items():
            setattr(self, name, value.to(self.device))

    def of(self, maps: list[torch.Tensor], c: torch.Tensor) -> torch.Tensor:
        """The looks [N, K] of pictures whose features are `maps` and whose labels are c [N, c_dim], differentiable."""
        return (pooled(maps) - F.pad(c, [0, 1], value=1.0) @ self.means) @ self.directions

    @torch.no_grad()
    def of_reals(self, reals: torch.Tensor, c: torch.Tensor, windows: torch.Tensor | None, at_once: int) -> torch.Tensor:
        """The looks [N, K] of real pictures [N, C, R, R]; zero for windows [N, 3] that are a part of one, which say little of it."""
        found = torch.cat([self.of(self.features(x), labels) for x, labels in zip(reals.split(at_once), c.split(at_once), strict=True)])
        return found if windows is None else found * are_whole(windows, reals.shape[-1])[:, None].to(found)

    def stand_for(self, latents: Latents, looks: torch.Tensor, real_c: torch.Tensor, windows: torch.Tensor | None) -> Latents:
        """Latents for fakes of which half stand for real pictures: with labels and windows of these, and z that says how they look. Which,
        follows from z alone, so it is the same for any number of processes and passes.

        looks: [N, K] of these, zero where nothing is known of a picture
        """
        K, z = self.numbers, latents.z.to(looks.device)
        known = looks.any(dim=1, keepdim=True) & ((z[:, -1:] / DIGIT).floor() % 2 == 0)
        own = looks * math.sqrt(1 - NOISE ** 2) + z[:, :K] * NOISE
        said = torch.where(known & (self.shares > 0), own, z[:, :K])
        mix = latents.z_mix if latents.z_mix is None else torch.cat([said, latents.z_mix.to(looks.device)[:, K:]], dim=1)
        return replace(latents, z=torch.cat([said, z[:, K:]], dim=1), z_mix=mix, c=real_c, windows=windows, looks=said * known)

    def distances(self, drawn: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """Squared distances of the looks of fakes from those asked for, [N, K] each, along each direction as much as pictures differ there;
        [N]: 2 for two real pictures of a class on average, zero where nothing was asked for."""
        return (drawn - asked).square() @ self.shares * asked.any(dim=1)

    def of_others(self, looks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(looks [N, K] of others in the batch, of one class where D's groups are four; bool [N], whether known and unlike the own)"""
        rolled, there = looks.roll(len(looks) // 2, 0), self.shares > 0
        for quarters in (1, 3):
            rolled = torch.where(rolled.any(dim=1, keepdim=True), rolled, looks.roll(len(looks) * quarters // 4, 0))
        apart = ((rolled - looks).square() * there).sum(1) / there.sum().clamp_min(1)
        return rolled, (apart > UNLIKE) & looks.any(dim=1) & rolled.any(dim=1)

    @torch.no_grad()
    def begin(self, mapping: torch.nn.Module, groups: list[int]) -> bool:
        """Lets z's first K numbers begin as looks to a mapping network: as its columns of the classes tell looks apart, found by least
        squares within the groups of classes. So a cluster's pictures begin as unlike as clusters are, and nothing is to be learned anew.

        groups: [c_dim], the group of each class
        Returns False, with nothing done, for a network without such columns, or where groups have too few classes to tell.
        """
        embed = getattr(mapping, 'embed', None)
        enough = len(groups) - len(set(groups)) >= 2 * self.numbers
        if not enough or not isinstance(embed, FullyConnectedLayer) or not mapping.pixel_norm:
            return False
        columns = embed(torch.eye(len(groups), device=embed.weight.device)).double().cpu()  # [c_dim, E]
        members = F.one_hot(torch.tensor(groups)).double()                                  # [c_dim, groups]
        within = torch.eye(len(groups)) - members @ torch.linalg.pinv(members)              # takes off the mean of the group
        looks = within @ self.means[:-1].double().cpu() @ self.directions.double().cpu()    # [c_dim, K]
        squares = looks.T @ looks
        ridge = (RIDGE * squares.trace() / len(squares)).clamp_min(1e-12) * torch.eye(len(squares))
        reading = torch.linalg.solve(squares + ridge, looks.T @ (within @ columns))         # [K, E]
        first, scale = mapping.fc0.weight, columns.square().mean().sqrt()
        first[:, :self.numbers] = first[:, mapping.z_dim:] @ (reading / scale).T.to(first)
        return True


def _directions(rows: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(principal directions [F, <= most] of centred rows [images, F], the rows' deviation along each)

    Each points to where its largest number is above zero: which of the two ways a library takes is chance, or the number of threads.
    """
    _, values, directions = torch.linalg.svd(rows, full_matrices=False)
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return (directions * torch.where(largest < 0, -1.0, 1.0))[:most].T, values[:most] / max(len(rows), 1) ** 0.5
