"""Divides a data set into clusters of pictures that look alike, which train.py then learns as classes.

That G learns more of a varied set where its labels say what a picture looks like: self-conditioned GANs (Liu et al. 2020, arXiv
2006.10728), which cluster D's own features; instance-conditioned GANs (Casanova et al. 2021, arXiv 2109.05070), which take those of a
pretrained network, as is done here.
"""

import warnings

import numpy as np
import torch
from scipy.cluster.vq import kmeans2

from dnnlib.util import UserError
from torch_utils.pixels import from_uint8
from training import pretrained
from training.data.files import BadImage, decode
from training.data.labels import SEPARATOR, Labels, group_of
from training.data.opening import Files
from training.data.transforms import part_of_square
from training.dataset import ImageDataset, corrupt, spread
from training.layers import FullyConnectedLayer

LOOK = 48         # numbers that say what a picture looks like
SIDE = 128        # pixels that smaller pictures are enlarged to for the pretrained network
WHOLE = 'all'     # the class whose clusters a set without labels is divided into
COMPARED = 64     # pictures of two sets that are looked at
MIN_SIDE = 16     # pixels that they are shrunk to
TRIES = 4         # times that k-means begins anew; the tightest division is kept


def groups_of(dataset: ImageDataset) -> tuple[np.ndarray, list[str]]:
    """(the class of each image, int64 [images]; the classes' names), which clusters are to divide; one class for a set without labels.

    Raises UserError for labels that are lists of numbers, and for a set that has been divided already.
    """
    labels = dataset.labels
    if labels is None:
        return np.zeros(dataset.images, int), [WHOLE]
    classes = [labels.by_name.get(name) for name in dataset.files.names]
    if None in classes:
        raise UserError(f'{dataset.path}: {dataset.files.names[classes.index(None)]} has no label in dataset.json: add one, or remove it')
    if isinstance(classes[0], tuple):
        raise UserError(f'the labels of {dataset.path} are lists of numbers, not classes that could be divided')
    names = labels.classes or [str(index) for index in range(labels.dim)]
    divided = next((name for name in names if group_of(name) != name), None)
    if divided is not None:
        raise UserError(f'{dataset.path} has the class {divided}, which is divided already: cluster the set it was made from')
    return np.array(classes), names


@torch.no_grad()
def features_of(dataset: ImageDataset, device: torch.device, advance=lambda images: None) -> np.ndarray:
    """float64 [images, 432]: the two deepest feature maps of EfficientNet-Lite1, averaged over each picture.

    advance: called with the number of images done
    Raises DataError for an image that cannot be read: another one in its place would get its cluster.
    """
    network = pretrained.calibrated('efficientnet-lite1', dataset, device, max(1.0, SIDE / dataset.resolution))
    found = []
    for first in range(0, dataset.images, 32):
        pixels = np.stack([dataset.pixels(name) for name in dataset.files.names[first:first + 32]])
        maps = network(from_uint8(torch.from_numpy(pixels).to(device)))
        found.append(torch.cat([each.mean((2, 3)) for each in maps[-2:]], dim=1).double().cpu().numpy())
        advance(len(pixels))
    return np.concatenate(found)


def looks_of(features: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """float64 [images, numbers]: the principal directions of features, of length 1; at most LOOK numbers.

    Each direction is divided by the root of its deviation, halfway to whitening. A class counts as the square root of its size.

    features: [images, any];  classes: int64 [images]
    """
    weight = 1 / np.sqrt(np.bincount(classes)[classes])
    weight /= weight.sum()
    centred = features - weight @ features
    _, deviation, directions = np.linalg.svd(centred * np.sqrt(weight)[:, None], full_matrices=False)
    kept = deviation[:LOOK] > 1e-9 * np.abs(features).max()
    if not kept.any():  # one picture, or all the same
        return np.ones([len(features), 1])
    looks = centred @ (directions[:LOOK][kept].T / np.sqrt(deviation[:LOOK][kept]))
    return looks / np.linalg.norm(looks, axis=1, keepdims=True).clip(1e-12)


def shares(sizes: np.ndarray, total: int) -> np.ndarray:
    """How many of `total` clusters each class gets: as the square root of its size, one at least, half of its images at most."""
    wanted = np.sqrt(sizes) * total / np.sqrt(sizes).sum()
    return np.clip(np.round(wanted), 1, np.maximum(1, sizes // 2)).astype(int)


def divide(looks: np.ndarray, classes: np.ndarray, names: list[str], total: int,
           seed: int = 0) -> tuple[np.ndarray, list[str], np.ndarray]:
    """(cluster of each image, names of the clusters, their mean looks) by k-means within each class.

    A cluster is called CLASS/NUMBER, from the largest, 1, to the smallest. The first clusters of all classes come first, then the second
    ones, so that the first seeds of generate.py show all classes.

    looks: [images, numbers];  classes: int64 [images], the places of `names`;  total: how many clusters, about
    """
    sizes = np.bincount(classes, minlength=len(names))
    present, found = np.flatnonzero(sizes), []  # (number, class, images) of each cluster
    for index, count in zip(present, shares(sizes[present], total), strict=True):
        own = np.flatnonzero(classes == index)
        placed = _kmeans(looks[own], count, seed)
        groups = sorted((own[placed == each] for each in np.unique(placed)), key=lambda images: (-len(images), images[0]))
        found += [(number, index, images) for number, images in enumerate(groups, 1)]
    found.sort(key=lambda cluster: cluster[:2])
    clusters = np.empty(len(looks), int)
    for place, (_, _, images) in enumerate(found):
        clusters[images] = place
    means = np.stack([looks[images].mean(0) for _, _, images in found])
    return clusters, [f'{names[index]}{SEPARATOR}{number}' for number, index, _ in found], means


def _kmeans(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """int [points]: which of `count` clusters each point is in; some may have none."""
    count, best, least = min(count, len(np.unique(points, axis=0))), np.zeros(len(points), int), np.inf
    for attempt in range(TRIES if count > 1 else 0):
        with warnings.catch_warnings(action='ignore', category=UserWarning):  # of clusters that stay empty
            centres, placed = kmeans2(points, count, minit='++', seed=seed + attempt)
        spread = ((points - centres[placed]) ** 2).sum()
        if spread < least:
            best, least = placed, spread
    return best


def taken(files: Files, others: Files) -> tuple[list[int], list[str], list[list[float]]]:
    """(cluster of each image, names of the clusters, their looks) as the images of the same names have them in another set.

    Raises UserError where that has no clusters, or not the same pictures under these names.
    """
    labels = others.labels()
    if labels is None or not labels.looks:
        raise UserError(f'{others.path} has no clusters: make them with python dataset_tool.py cluster')
    missing = next((name for name in files.names if name not in labels.by_name), None)
    if missing is not None:
        raise UserError(f'{files.path}: {missing} is not in {others.path}, whose clusters are wanted')
    _expect_same_classes(files, others)
    _expect_same_pictures(files, others)
    return [labels.by_name[name] for name in files.names], labels.classes, labels.looks


def _expect_same_classes(files: Files, others: Files) -> None:
    own, theirs = files.labels(), others.labels()
    if own is None or not own.classes or own.vectors:
        return
    for name in files.names:
        there = theirs.classes[theirs.by_name[name]]
        if name in own.by_name and own.classes[own.by_name[name]] not in (there, group_of(there)):
            raise UserError(f'{name} is of {own.classes[own.by_name[name]]} in {files.path} and of {there} in {others.path}: '
                            'these are not the same pictures')


def _expect_same_pictures(files: Files, others: Files) -> None:
    """Raises UserError where small grey copies of pictures are not like those of the same names: `convert` numbers them, so that names
    say little, and one left out moves all after it."""
    names = [files.names[i] for i in spread(len(files.names), COMPARED)]
    ours, theirs = (np.stack([_small(each, name) for name in names]) for each in (files, others))
    distances = np.square(ours[:, None] - theirs).sum(2)  # [pictures, pictures]
    alike = (distances.diagonal() <= distances.min(1) * 1.001).mean()
    if alike < 0.9:
        counts = f'{len(files.names):,} and {len(others.names):,} pictures'
        raise UserError(f'{files.path} and {others.path}, of {counts}, have not the same pictures under the same names '
                        f'({alike:.0%} of {len(names)} looked at are): convert both from the same pictures')


def _small(files: Files, name: str) -> np.ndarray:
    """float64 [numbers]: a small grey copy of a picture."""
    try:
        return part_of_square(decode(files.read(name)), MIN_SIDE, 0, 0, MIN_SIDE).mean(0, dtype=float).ravel()
    except BadImage as err:
        raise corrupt(files, name, err) from err


@torch.no_grad()
def begin(network: torch.nn.Module, labels: Labels, seed: int) -> None:
    """Lets the columns of a network's embedded labels begin as clusters look: like ones alike, those of one group nearer than others.

    With columns begun at random G takes very long to tell clusters apart. Half of a column's square is its group's, drawn at random, half
    its look, turned at random; inputs behind the classes stay as they are.

    network: G or D, whose mapping has embed, a FullyConnectedLayer of the labels (and what is behind them), or, as inr's hypernetworks,
             embedding [classes, features]; a mapping of others' that has neither stays as it is
    labels:  with looks
    """
    embed, embedding = (getattr(network.mapping, name, None) for name in ('embed', 'embedding'))
    if isinstance(embed, FullyConnectedLayer):
        weight = embed.weight                                                                  # [features, inputs]
    elif isinstance(embedding, torch.nn.Parameter) and len(embedding) == len(labels.looks):
        weight = embedding.T
    else:
        return
    features, random = len(weight), torch.Generator().manual_seed(seed)
    groups = torch.randn([features, max(labels.groups) + 1], generator=random, dtype=torch.float64)
    turn = torch.randn([features, len(labels.looks[0])], generator=random, dtype=torch.float64)
    looks = turn @ torch.nn.functional.normalize(torch.tensor(labels.looks, dtype=torch.float64), dim=1).T  # [features, classes]
    columns = ((groups[:, labels.groups] + looks) / 2 ** 0.5).round(decimals=4)  # the same on machines that add in another order
    weight[:, :len(labels.looks)] = columns.to(weight)
