"""Where the images come from: drawn by a generator, or read from a zip or folder. Any image can be asked for by its number."""

import hashlib

import numpy as np
import torch

from torch_utils.pixels import quantized
from training.sampling import some_items

SCALES = {'2x': 2, 'half': 0.5}  # other sizes to draw at, relative to the trained one


class DataImages:
    """Images of a data set, all or a random part of it, in its order.

    dataset: training.dataset.ImageDataset, or anything with a length, a digest and items (uint8 [C, H, W], label)
    most:    images taken at most, chosen by a fixed seed; None: all
    label:   item -> [label_dim], in place of the data set's own labels
    """

    activity = 'reading'

    def __init__(self, dataset, most=None, label=None):
        self.dataset, self._label = dataset, label
        self.total = len(dataset) if most is None else min(most, len(dataset))
        self._items = np.sort(some_items(dataset, most, 0)) if self.total < len(dataset) else range(len(dataset))
        self.digest = hashlib.sha256(f'{dataset.digest} {len(dataset)} {self.total}'.encode()).hexdigest()

    def batch(self, numbers):
        """uint8 [N, C, H, W] of the images with these numbers."""
        return torch.from_numpy(np.stack([self.dataset[int(self._items[i])][0] for i in numbers]))

    def label(self, number):
        """float32 [label_dim]."""
        return (self._label or self.dataset.get_label)(int(self._items[number]))


class Latents:
    """z and class of each number, the same whatever else is drawn and by how many processes.

    G:      generator
    labels: n -> [c_dim], a class of the data set by its number, and how many there are; None for a generator without classes
    """

    def __init__(self, G, labels=None, seed=0):
        self.G, self.labels, self.seed = G, labels, seed
        self.device = next(G.parameters()).device
        self.digest = str(seed) if not G.c_dim else f'{seed} {_labels_digest(*labels)}'  # of what is drawn from

    def __call__(self, numbers, count=1):
        """(z [count, N, z_dim], c [N, c_dim] or None) of these numbers."""
        randoms = [np.random.default_rng([self.seed, i]) for i in numbers]
        z = torch.from_numpy(np.stack([random.standard_normal((count, self.G.z_dim)) for random in randoms], axis=1)).float()
        c = None
        if self.G.c_dim:
            label_of, total = self.labels
            c = torch.from_numpy(np.stack([label_of(int(random.integers(total))) for random in randoms])).to(self.device)
        return z.to(self.device), c


def _labels_digest(label_of, total):
    """A digest of labels by number, by 256 of them: those of another set, or of other classes, differ."""
    some = [np.asarray(label_of(number)).tobytes() for number in np.linspace(0, total - 1, min(total, 256)).astype(int).tolist()]
    return hashlib.sha256(b''.join(some) + str(total).encode()).hexdigest()


class DrawnImages:
    """Images of a generator.

    latents: `Latents`;  total: how many
    psi:     truncation
    draw:    (ws [N, num_ws, w_dim], scale) -> images [N, C, scale * R, scale * R] in [-1, 1]; needed for a scale other than 1
    scale:   size to draw at, relative to the trained one; larger images are averaged down to it, smaller ones left to the detector
    """

    activity = 'drawing'

    def __init__(self, latents, total, psi=1.0, draw=None, scale=1):
        self.latents, self.total, self.psi, self.draw, self.scale = latents, total, psi, draw, scale
        self.digest = hashlib.sha256(f'{weights_digest(latents.G)} {latents.digest} {total} {psi} {scale}'.encode()).hexdigest()

    def batch(self, numbers):
        """uint8 [N, C, H, W] of the images with these numbers."""
        G = self.latents.G
        z, c = self.latents(numbers)
        ws = G.mapping(z[0], c, truncation_psi=self.psi)
        if self.scale == 1:
            images = synthesize(G, ws, numbers[0])
        else:
            images = self.draw(ws, self.scale)
            if self.scale > 1:
                images = torch.nn.functional.avg_pool2d(images, self.scale)
        if not images.isfinite().all():
            raise ValueError(f'images {numbers[0]} and after are not all finite: the network is broken')
        return quantized(images).cpu()


def synthesize(G, ws, seed, **options):
    """Images [N, C, R, R] of codes, with random noise where there is any: the same for the same seed. Leaves global state alone.

    options: of the synthesis, such as force_fp32
    """
    with torch.random.fork_rng(devices=[ws.device] if ws.device.type == 'cuda' else []):
        torch.manual_seed(seed)
        return G.synthesis(ws, noise_mode='random', **options)


def weights_digest(G):
    """Hex digest of a generator's class and weights."""
    total = hashlib.sha256(type(G).__name__.encode())
    for name, value in G.state_dict().items():
        total.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
