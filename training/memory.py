"""What a training step needs of memory, what is free, and how many images at once fit.

Activations are counted by running the passes on PyTorch's meta device, which has shapes and no numbers: a tenth of a second at any size.
"""

import dataclasses
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from dnnlib.util import UserError, format_bytes
from torch_utils import distributed
from torch_utils.misc import count_macs, count_parameters
from training import plugins, pretrained
from training.config import Config
from training.loss import PL_SHRINK, path_lengths, r1_penalty

SHARE = 0.7      # of the free memory that a step may fill: allocators waste some, and others want some
BASE = 256 << 20  # bytes for gradients in passing, work space of kernels and what allocators waste; docstring of `needs`


def saved_bytes(passes: Callable[[], object]) -> int:
    """Bytes that the backward pass of what `passes()` computes will read, parameters apart; a storage is counted once."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[id(storage)] = storage  # held, so that no other gets its id
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        passes()
    return sum(storage.nbytes() for storage in kept.values())


def judgement(D: torch.nn.Module, settings: Config) -> Callable[[torch.Tensor, torch.Tensor], object]:
    """(images, c) -> all that D says of images, of their features too where it judges those. To be made on D's device."""
    if settings.discriminator.features == 'none':
        return D
    features = pretrained.FrozenFeatures(settings.discriminator.features, **settings.features_kwargs())
    return lambda images, c: (D(images, c), D.judge_features(features(images), c))


def parts(settings: Config, images: int) -> dict:
    """What the synthesis of G is asked for in the largest pass: windows in the middle of pictures, if the run has any."""
    R = settings.data.resolution
    return {'windows': torch.tensor([[2 * R, R // 2, R // 2]], device='cpu').expand(images, -1)} if settings.windows.on else {}


def activations(G: torch.nn.Module, D: torch.nn.Module, judge: Callable, settings: Config, images: int) -> int:
    """Bytes of the largest pass on so many images: G's main loss, R1, or the path-length penalty. All are on the meta device.

    judge: as `judgement` makes it
    """
    z, c = torch.zeros([images, G.z_dim], device='meta'), torch.zeros([images, G.c_dim], device='meta')
    labels = torch.zeros([images, D.c_dim], device='meta')
    shape = [images, G.img_channels, *reversed(settings.data.sides)]

    def fool():
        D.requires_grad_(False)
        judge(G.synthesis(G.mapping(z, c), **parts(settings, images)), labels)
        D.requires_grad_(True)

    def r1():
        reals = torch.zeros(shape, device='meta', requires_grad=True)
        r1_penalty(D(reals, labels), reals)

    def path_length():
        ws = G.mapping(z[::PL_SHRINK], c[::PL_SHRINK])
        drawn = G.synthesis(ws)
        path_lengths(drawn, ws, torch.zeros_like(drawn))

    return max(saved_bytes(passes) for passes, weight in ((fool, 1), (r1, settings.loss.gamma), (path_length, settings.loss.pl_weight))
               if weight)


@dataclass(frozen=True)
class Needs:
    """What training takes on a device.

    parameters: {'G', 'D': number}; weights: {'G', 'D': bytes}; fixed, per_image: bytes in a step
    macs: as of the function
    """

    parameters: dict[str, int]
    weights: dict[str, int]
    fixed: float
    per_image: float
    macs: dict[str, int]

    def memory(self, at_once: int) -> float:
        """Bytes of a step in passes of so many images, besides PyTorch itself."""
        return self.fixed + at_once * self.per_image

    def fitting(self, settings: Config, free: float, world_size: int) -> int:
        """The most images at once that divide the process's share of a batch and fit into SHARE of `free` bytes; 0: not even one does."""
        share = settings.run.batch // world_size
        fitting = [n for n in range(1, share + 1) if share % n == 0 and self.memory(n) <= SHARE * free]
        return max(fitting, default=int(self.memory(1) <= free))


def needs(settings: Config) -> Needs:
    """Weights, gradients, both moments of Adam and the average of G, BASE, and the activations of the largest pass.

    Measured on a CPU, GiB estimated and taken, passes of 1, 2, 4: inr at 256 pixels 3.1 3.7 4.9 and 2.7 3.2 4.2; stylegan2 1.6 2.0 and
    1.8 1.9; at 64 pixels, passes of 16: inr-tiny 0.43 and 0.37, stylegan2-tiny 0.45 and 0.43.
    """
    with torch.device('meta'):  # shapes alone: what is too large to be built can still be told
        G = plugins.build_generator(settings)
        D = plugins.build_discriminator(settings)
        judge = judgement(D, settings)
    parameters = {name: count_parameters(network) for name, network in (('G', G), ('D', D))}
    weights = {name: sum(value.numel() * value.element_size() for value in network.state_dict().values())
               for name, network in (('G', G), ('D', D))}
    few = 2 * settings.mbstd_group(1)  # the pass may be cut into groups, and the path length takes a part of it
    small, large = (activations(G, D, judge, settings, images) for images in (few, 2 * few))
    per_image = (large - small) / few
    return Needs(parameters, weights, BASE + 5 * weights['G'] + 4 * weights['D'] + small - few * per_image, per_image, macs(settings))


def macs(settings: Config, resolution: int | None = None) -> dict[str, int]:
    """{'G', 'D': multiply-accumulates of one image, forward}. resolution: of the images, where a run grows; None: full size."""
    with torch.device('meta'):
        G, D = plugins.build_generator(settings), plugins.build_discriminator(settings)
        z, c, labels = torch.zeros([1, G.z_dim]), torch.zeros([1, G.c_dim]), torch.zeros([1, D.c_dim])
        full = settings.data.resolution
        size = resolution or full
        image = torch.zeros([1, G.img_channels, *(side * size // full for side in reversed(settings.data.sides))])
        judge = judgement(D, settings)
    smaller = parts(settings, 1) if size == full else {'resolution': size}
    return {'G': count_macs(lambda: G.synthesis(G.mapping(z, c), **smaller)), 'D': count_macs(lambda: judge(image, labels))}


# ---- What is free


def free_bytes(device: torch.device | str) -> float:
    """Bytes that this process can still take on a device; processes that torchrun started on this machine share its CPU's."""
    if torch.device(device).type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    free = min(psutil.virtual_memory().available, cgroup_free())
    return free / int(os.environ.get('LOCAL_WORLD_SIZE', '1'))


def cgroup_free(root: Path = Path('/sys/fs/cgroup'), membership: Path = Path('/proc/self/cgroup')) -> float:
    """Bytes up to the lowest limit that control groups (version 1 or 2) set to this process; infinite where there is none.

    root:       where the groups' file system is
    membership: the file that names this process's groups
    """
    try:
        lines = [line.split(':', 2) for line in membership.read_text().splitlines()]
    except OSError:
        return math.inf
    found = [math.inf]
    for _, controllers, path in lines:
        if controllers == '':
            base, names = root, ('memory.max', 'memory.current', 'inactive_file')
        elif 'memory' in controllers.split(','):
            base, names = root / 'memory', ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file')
        else:
            continue
        group = base / path.lstrip('/')
        found += [_group_free(folder, *names) for folder in (group, *group.parents) if folder.is_relative_to(base)]
    return max(min(found), 0)


def _group_free(folder: Path, limit: str, used: str, reclaimable: str) -> float:
    """Limit - used of one group, cached files that can be dropped counted as free; infinite where there is no limit."""
    try:
        most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
        statistics = dict(line.split() for line in (folder / 'memory.stat').read_text().splitlines())
    except (OSError, ValueError):
        return math.inf
    return math.inf if most == 'max' else int(most) - now + int(statistics.get(reclaimable, 0))


# ---- The choice


def fit(settings: Config, needed: Needs, device: torch.device | str, world_size: int, chosen: bool) -> tuple[Config, str]:
    """(configuration, line of the recipe about memory).

    needed: `needs` of this configuration
    chosen: whether the images at once are given, by --batch-gpu or by the run that is resumed; else the most that fit are taken.
            All processes must call this and get the same.
    Raises UserError where there is a choice and not even one image fits.
    """
    free = free_bytes(device)
    if sum(needed.weights.values()) > free:
        raise UserError(f'the weights alone take {format_bytes(sum(needed.weights.values()))}, a step about '
                        f'{format_bytes(needed.memory(1))}, and {format_bytes(free)} is free on {device}: take a smaller --width or preset')
    fitting = needed.fitting(settings, free, world_size)
    if not chosen:
        fitting = -int(distributed.max_(torch.tensor(-fitting, device=device)))
        if fitting == 0:
            raise UserError(f'one image at a time needs about {format_bytes(needed.memory(1))} of memory on {device}, and '
                            f'{format_bytes(free)} is free: close other programs, take a smaller --width, preset or resolution, or '
                            'try all the same with --batch-gpu=1')
        settings = dataclasses.replace(settings, run=dataclasses.replace(settings.run, batch_gpu=fitting))
    at_once = settings.images_at_once(world_size)
    text = f'{"memory:":13}about {format_bytes(needed.memory(at_once))} besides PyTorch itself in passes of {at_once}'
    text += f', {format_bytes(free)} free'
    share = settings.run.batch // world_size
    if not chosen and at_once < share:
        text += f'; more do not fit, so a batch of {share} takes {share // at_once} passes'
        if settings.mbstd_group(world_size) < settings.discriminator.mbstd_group:
            text += f' and minibatch groups shrink from {settings.discriminator.mbstd_group} to {settings.mbstd_group(world_size)}'
    if needed.memory(at_once) > free:
        text += f'. This may not fit: --batch-gpu={max(fitting, 1)} needs less' if at_once > 1 else '. This may not fit'
    return settings, text
