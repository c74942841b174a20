"""Scores of script/ladder.py: distances of EfficientNet-Lite0's features, and what a small classifier, trained here, makes of images."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from dnnlib.util import atomic_path


class InMemory:
    """Images uint8 [N, C, H, W] as the metrics take a data set."""

    def __init__(self, images):
        self.images, self.digest = images.numpy(), hashlib.sha256(images.numpy().tobytes()).hexdigest()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], np.zeros(0, np.float32)


def score(reals, images, num: int, device, classifier=None, labels=None) -> dict[str, float]:
    """All figures of uint8 images [num, C, H, W] against as many of the data set `reals`.

    classifier: what `train_classifier` returns, or None;  labels: [num], the classes that were asked for, or None
    """
    from metrics.inception_score import inception_score
    from metrics.metric_main import Subject, evaluate
    from metrics.registry import parse

    metrics = [replace(parse(f'{kind}_efficientnet-lite0'), num=num, real=num) for kind in ('fd', 'kd')]
    fd, kd = (tuple(found.values.values()) for found in evaluate(metrics, Subject(reals, images=InMemory(images), device=device)))
    scores = {'fd': fd[0], 'kd': 1000 * kd[0], 'kd_std': 1000 * kd[1]}
    if classifier is not None:
        probs = probabilities(classifier, images, device)
        scores['cs'] = inception_score(probs, splits=10)[0]
        if labels is not None:
            scores['accuracy'] = float((probs.argmax(dim=1) == labels).float().mean())
    return scores


def pixels(dataset, num: int):
    """`num` images evenly spread over a data set: uint8 [N, C, H, W]."""
    import torch

    return torch.from_numpy(np.stack([dataset[i][0] for i in np.linspace(0, len(dataset) - 1, num).round().astype(int)]))


def drawn(G, num: int, device):
    """(uint8 images [num, C, H, W], classes [num] or None) of seeds 0 on, classes in turn; batches of 64."""
    import torch

    from torch_utils.pixels import to_uint8

    z = torch.from_numpy(np.random.RandomState(0).randn(num, G.z_dim))
    classes = torch.arange(num) % G.c_dim if G.c_dim else None
    c = torch.eye(G.c_dim)[classes] if G.c_dim else torch.zeros([num, 0])
    with torch.no_grad():
        parts = [to_uint8(G(z_part.to(device), c_part.to(device), noise_mode='const'))
                 for z_part, c_part in zip(z.split(64), c.split(64), strict=True)]
    return torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2), classes


def make_classifier(channels: int, classes: int):
    """A small convolutional classifier of images [N, channels, H, W] in [-1, 1]."""
    from torch import nn

    layers, width = [], channels
    for following in (32, 64, 128):
        layers += [nn.Conv2d(width, following, 3, padding=1), nn.BatchNorm2d(following), nn.ReLU(), nn.MaxPool2d(2)]
        width = following
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def train_classifier(dataset, path: Path, device, epochs: int = 3, batch: int = 128):
    """The classifier trained on a labelled data set, or read from `path`, where it is kept."""
    import torch

    from torch_utils.pixels import from_uint8

    network = make_classifier(dataset.num_channels, dataset.label_dim).to(device)
    if not path.exists():
        torch.manual_seed(0)
        loader = torch.utils.data.DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * len(loader))
        for _ in range(epochs):
            for images, labels in loader:
                loss = torch.nn.functional.cross_entropy(network(from_uint8(images.to(device))), labels.to(device).argmax(dim=1))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        with atomic_path(path) as temporary:
            torch.save(network.state_dict(), temporary)
    network.load_state_dict(torch.load(path, map_location=device, weights_only=True))
    return network.eval()


def probabilities(network, images, device):
    """Class probabilities [N, classes] of uint8 images, on the CPU."""
    import torch

    from torch_utils.pixels import from_uint8

    with torch.no_grad():
        return torch.cat([network(from_uint8(part.to(device))).softmax(dim=1).cpu() for part in images.split(256)])
