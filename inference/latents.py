"""What a picture is drawn from: labels of classes, z and w of seeds, w out of files."""

import functools
import hashlib
import random
from pathlib import Path

import numpy as np
import torch

from dnnlib.arrays import NoArrays, arrays_in
from dnnlib.util import UserError, suggest
from inference.projection import w_statistics
from training.data.labels import group_of, groups_in

MOST_COLUMNS = 16  # of a sheet with a column for each class

_groups_in = functools.cache(groups_in)  # asked for every seed


def class_label(G, text, names=None, numbers=None, seed=0):
    """The label of --class or --label.

    text:    index or name of a class, or name of a group ('animals' for 'animals/1', 'animals/2', ...); None where none was given
    names:   the classes' names, or None
    seed:    which class of a group: its first one for 0, the next one for 1, and around again
    numbers: all c_dim numbers of a label, several classes at once or continuous ones, in place of `text`; None where none were given
    Returns [1, c_dim] on the generator's device, None for a generator without classes (which warns of a class that was given).
    Raises UserError when a class is needed and missing, or not known.
    """
    if text is not None and numbers is not None:
        raise UserError('--class and --label: both say of what to draw; give one of them')
    if not G.c_dim:
        if text is not None or numbers is not None:
            given = f'--class={text}' if text is not None else '--label'
            print(f'Warning: {given} has no effect, this network has no classes')
        return None
    if numbers is not None:
        if len(numbers) != G.c_dim:
            raise UserError(f'--label: {len(numbers)} numbers, but the labels of this network have {G.c_dim}')
        return torch.tensor([numbers], dtype=torch.float32, device=next(G.parameters()).device)
    names, text = [str(name) for name in names or []], None if text is None else str(text)
    groups = _groups(names)
    known = f'0 to {G.c_dim - 1}' + (f' or a name: {_abridged(groups)}' if names else '')
    if text is None:
        raise UserError(f'this network has {G.c_dim} classes: choose one with --class={known}; --label=NUMBERS gives all {G.c_dim}')
    if members := classes_named(text, names):
        index = members[seed % len(members)]
    elif text.isdecimal() and int(text) < G.c_dim:
        index = int(text)
    else:
        raise UserError(f'--class={text}: no such class.{suggest(text, [*groups, *names])} Known: {known}')
    return one_hot(G, index)


def classes_of_group(text, names):
    """The numbers of the classes in a group; none where no group, or a class itself, has that name."""
    return [] if text in names else [index for index, name in enumerate(names) if group_of(name) == text]


def classes_named(text, names):
    """The numbers of the classes that a name means: the one of that name, else those of the group of that name, else none."""
    return [names.index(text)] if text in names else classes_of_group(text, names)


def drawn_class(members, sizes, number):
    """One of the classes `members`, the same whenever it is asked for `number`: each as often as it was learned.

    sizes: how many images of each of the network's classes it learned; None, or none of these: each as often
    """
    weights = [sizes[index] for index in members] if sizes else []
    return random.Random(number).choices(members, weights if any(weights) else None)[0]


def class_of_seed(seed, c_dim, names=None):
    """The class of a seed where none was asked for: the groups of classes in turn, and of each group its classes in turn."""
    groups = list(_groups_in(tuple(map(str, names or range(c_dim)))).values())
    members = groups[seed % len(groups)]
    return members[seed // len(groups) % len(members)]


def label_of_seed(G, seed, text=None, names=None):
    """The label of a seed: of the class or group asked for, as in `class_label`, else of `class_of_seed`.

    Returns [1, c_dim], or None for a generator without classes.
    """
    return one_hot(G, class_of_seed(seed, G.c_dim, names)) if text is None and G.c_dim else class_label(G, text, names, seed=seed)


def labels_of_seeds(G, seeds, text=None, names=None, numbers=None):
    """A list of the labels of seeds: what `class_label` has to go by, else that of each seed, which is printed."""
    if numbers is not None or not G.c_dim:
        return [class_label(G, text, names, numbers)] * len(seeds)
    if text is not None:
        return [class_label(G, text, names, seed=seed) for seed in seeds]
    groups = _groups(names or [])
    known = f' ({_abridged(groups)})' if names else ''
    of_each = f', and of each its clusters in turn, {G.c_dim} in all' if names and len(groups) < len(names) else ''
    print(f'Classes by seed: seed 0 is of class 0, and so on through all {len(groups) or G.c_dim}{known}{of_each}; --class=NAME draws one')
    return [label_of_seed(G, seed, names=names) for seed in seeds]


def class_columns(G, seeds, names=None):
    """The classes, or groups of classes, that the columns of a sheet of these seeds are of, where each can have one: the seeds go through
    all that they show in the same order again and again. [] where they do not, and where there would be one row or more than MOST_COLUMNS.
    """
    names = [str(name) for name in names or range(G.c_dim)]
    shown = [group_of(names[class_of_seed(seed, G.c_dim, names)]) for seed in seeds] if G.c_dim else []
    first = list(dict.fromkeys(shown))
    again = all(name == first[i % len(first)] for i, name in enumerate(shown))
    return first if again and 1 < len(first) <= MOST_COLUMNS and len(first) < len(shown) else []


def one_hot(G, index):
    """The label of class `index`, [1, c_dim] on the generator's device."""
    label = torch.zeros(1, G.c_dim, device=next(G.parameters()).device)
    label[0, index] = 1
    return label


def _groups(names):
    """The names of groups and of classes in none, each once."""
    return list(groups_in(map(str, names)))


def _abridged(names, most=20):
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


@torch.no_grad()
def latents_of(G, seed, label, psi=1.0, psi_cutoff=None, mean=None):
    """w of a seed, the same whatever else is drawn: z is drawn by NumPy, as in stylegan2-ada-pytorch.  [1, num_ws, w_dim]

    psi, psi_cutoff, mean: as of `mapped`
    """
    return mapped(G, torch.from_numpy(z_of(G, seed)).to(next(G.parameters()).device), label, psi, psi_cutoff, mean)


def mapped(G, z, label, psi=1.0, psi_cutoff=None, mean=None):
    """w of z [N, z_dim] and label [N, c_dim] or None, truncated.  [N, num_ws, w_dim]

    psi:        truncation, 1 for none
    psi_cutoff: layers it ends at; None for all
    mean:       what it goes towards, [1, 1, w_dim], such as `class_means`; None: the mean w of all that is drawn
    """
    if mean is None:
        return G.mapping(z, label, truncation_psi=psi, truncation_cutoff=psi_cutoff)
    return truncated(G, G.mapping(z, label), psi, psi_cutoff, mean)


def towards_class(G, psi, psi_to):
    """Whether --psi and --psi-to ask for truncation towards the class drawn; tells of what has no effect or another one."""
    if psi_to == 'class' and not G.c_dim:
        print('Warning: --psi-to=class has no effect, this network has no classes')
    elif psi_to == 'class' and psi == 1:
        print('Warning: --psi-to=class has no effect without --psi')
    elif G.c_dim and psi != 1 and psi_to != 'class':
        print('Truncated towards the mean of all labels; --psi-to=class: towards that of the class or label drawn')
    return psi_to == 'class' and G.c_dim > 0 and psi != 1


def class_means(G, labels):
    """The mean w of each of some labels [1, c_dim]: a list of [1, 1, w_dim]. What is typical of several classes at once is a picture of
    none, so truncation goes towards one of these instead (as of clusters in arXiv 2202.12211)."""
    keys = [tuple(label[0].tolist()) for label in labels]
    means = {key: w_statistics(G.mapping, G.z_dim, label)[0] for key, label in dict(zip(keys, labels, strict=True)).items()}
    return [means[key] for key in keys]


def z_of(G, seed):
    """z of a seed, float64 [1, z_dim]."""
    return np.random.RandomState(seed).randn(1, G.z_dim)


def slerp(a, b, share):
    """From a to b [1, z_dim] along the great circle between their directions, lengths interpolated: `share` of the way.

    A straight line where there is no one great circle: the same or opposite directions, or none.
    """
    lengths = [np.linalg.norm(x) for x in (a, b)]
    if min(lengths) == 0:
        return a + (b - a) * share
    angle = np.arccos(np.clip((a * b).sum() / np.prod(lengths), -1, 1))
    if not 1e-6 < angle < np.pi - 1e-6:
        return a + (b - a) * share
    direction = (np.sin((1 - share) * angle) * a / lengths[0] + np.sin(share * angle) * b / lengths[1]) / np.sin(angle)
    return direction * (lengths[0] + (lengths[1] - lengths[0]) * share)


def truncated(G, ws, psi=1.0, psi_cutoff=None, mean=None):
    """ws with the layers below `psi_cutoff` (None: all) drawn towards a mean w, None for that of all.  [N, num_ws, w_dim]"""
    ws = ws.clone()
    ws[:, :psi_cutoff] = (G.mapping.w_avg if mean is None else mean).to(ws).lerp(ws[:, :psi_cutoff], psi)
    return ws


def network_digest(G):
    """Hex digest of a generator's parameters, so of what it has learned and not of noise maps that a projection changes."""
    total = hashlib.sha256()
    for name, value in G.named_parameters():
        total.update(name.encode() + value.detach().cpu().float().contiguous().numpy().tobytes())
    return total.hexdigest()


def save_projection(path, ws, noise_maps, G):
    """Writes what the projector found in a generator.

    ws: [1, num_ws, w_dim];  noise_maps: {buffer's name in the synthesis: tensor}, may be empty
    """
    arrays = {name: noise_map.cpu().numpy() for name, noise_map in noise_maps.items()}
    np.savez(path, w=ws.cpu().numpy(), network=network_digest(G), **arrays)


def read_arrays(path, G, key, name, writer):
    """{name: array} of a .npz file, or {key: array} of a .npy file, that `writer` wrote as `name` for a generator.

    Raises UserError for a file that is missing, unreadable, without `key`, or of another network (where it says of which).
    """
    if path.is_dir():
        raise UserError(f'{path} is a folder: give the {name} that {writer} wrote')
    if not path.is_file():
        raise UserError(f'{path}: no such file; {writer} writes {name}')
    try:
        arrays = arrays_in(path, key)
    except NoArrays as err:
        raise UserError(f'{path}: not a readable .npz or .npy file ({err}); give what {writer} wrote') from None
    if key not in arrays:
        raise UserError(f"{path}: holds no array '{key}', only {', '.join(arrays) or 'nothing'}; give what {writer} wrote")
    found_in = str(arrays.pop('network', network_digest(G)))
    if found_in != network_digest(G):
        raise UserError(f'{path}: this was found in another network (digest {found_in[:12]}, this one is {network_digest(G)[:12]}): '
                        f'draw it with --network=FILE as {writer} had it')
    return arrays


def load_projection(path, G):
    """w out of a file: what the projector wrote (noise maps in it become the generator's), or any .npy or .npz with `w`.

    Its array is [N, num_ws, w_dim], or [N, w_dim] with one w for all layers. Returns [N, num_ws, w_dim] on the generator's device.
    Raises UserError for a file that is missing, unreadable, of another shape, or found in another network (where it says in which).
    """
    path = Path(path)
    arrays = read_arrays(path, G, 'w', 'projected_w.npz', 'projector.py')
    w = arrays.pop('w')
    if w.ndim == 2 and w.shape[1] == G.w_dim:
        w = w[:, None].repeat(G.num_ws, axis=1)
    if w.ndim != 3 or w.shape[1:] != (G.num_ws, G.w_dim) or not len(w) or w.dtype.kind != 'f' or not (np.abs(w) < 1e30).all():
        raise UserError(f'{path}: w must be finite numbers [N, {G.num_ws}, {G.w_dim}] or [N, {G.w_dim}] for this network, '
                        f'it is {w.dtype} {list(w.shape)}; project with the same network')
    buffers = dict(G.synthesis.named_buffers())
    for name, noise_map in arrays.items():
        if name in buffers and buffers[name].shape == noise_map.shape and noise_map.dtype.kind == 'f' and np.isfinite(noise_map).all():
            buffers[name].copy_(torch.from_numpy(noise_map))
    return torch.from_numpy(w.astype(np.float32)).to(next(G.parameters()).device)


class Walk:
    """The way from each of several stops to the next, and from the last to the first.

    seeds, labels: of the stops; a label is [1, c_dim] or None
    space: 'w', straight lines; 'z', great circles, labels blended
    psi, psi_cutoff: truncation, as of `mapped`;  to_class: towards the mean of the label in place of that of all
    """

    def __init__(self, G, seeds, labels, psi=1.0, space='w', psi_cutoff=None, to_class=False):
        self.G, self.space, self.truncation, self.to_class = G, space, (psi, psi_cutoff), to_class
        self.zs, self.labels = [z_of(G, seed) for seed in seeds], labels
        self.means = class_means(G, labels) if to_class else [None] * len(seeds)
        stops = zip(seeds, labels, self.means, strict=True)
        self.ws = [latents_of(G, seed, label, *self.truncation, mean) for seed, label, mean in stops] if space == 'w' else None

    @torch.no_grad()
    def at(self, stop, share):
        """w [1, num_ws, w_dim] at a share of the way, 0 to 1, from one stop to the next."""
        following = (stop + 1) % len(self.zs)
        if self.space == 'w':
            return self.ws[stop].lerp(self.ws[following], share)
        z = torch.from_numpy(slerp(self.zs[stop], self.zs[following], share)).to(next(self.G.parameters()).device)
        label = None if self.labels[stop] is None else self.labels[stop].lerp(self.labels[following], share)
        mean = self.means[stop] if not self.to_class or torch.equal(label, self.labels[stop]) else class_means(self.G, [label])[0]
        return mapped(self.G, z, label, *self.truncation, mean)
