"""Losses of both networks: non-saturating logistic loss (Goodfellow 2014), R1 (Mescheder 2018), path length (Karras 2020, section 3.2)."""

import math

import torch
from torch.nn.functional import softplus

from torch_utils import distributed
from training.instances import MISMATCH
from training.latents import Latents
from training.options import LossConfig
from training.windows import consistency

PL_DECAY = 0.01   # share of a new mean in the running mean path length
PL_SHRINK = 2     # the path-length penalty takes one of so many images of a batch


def generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """-log(sigmoid(D(G(z)))), element by element."""
    return softplus(-fake_logits)


def discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(-log(sigmoid(D(x))), -log(1 - sigmoid(D(G(z))))), element by element; their sum is D's loss."""
    return softplus(-real_logits), softplus(fake_logits)


def r1_penalty(real_logits: torch.Tensor, real_images: torch.Tensor) -> torch.Tensor:
    """|d D(x) / d x|^2 of each image, to be weighted with gamma / 2.

    real_logits: [N, 1], computed from real_images [N, C, H, W], which require gradients
    Returns [N, 1], differentiable.
    """
    grads, = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)  # [N, C, H, W]
    return grads.square().sum([1, 2, 3])[:, None]


def feature_penalty(logits: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
    """R1 of the heads that judge features: |d D(f) / d f|^2 of each image, summed over the maps f, to be weighted with gamma / 2.

    logits: [N, K], computed from K maps, [N, C, H, W] each, which require gradients
    Returns [N, 1], differentiable.
    """
    grads = torch.autograd.grad(logits.sum(), maps, create_graph=True)
    return sum(grad.square().sum([1, 2, 3]) for grad in grads)[:, None]


def path_lengths(images: torch.Tensor, ws: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """|J_w^T y| of each image, J the Jacobian of the images with respect to w, y the noise scaled by 1/sqrt(H W).

    images: [N, C, H, W], computed from ws [N, num_ws, w_dim];  noise: like images, normal
    Returns [N], differentiable.
    """
    y = noise / math.sqrt(images.shape[2] * images.shape[3])
    grads, = torch.autograd.grad((images * y).sum(), ws, create_graph=True)          # [N, num_ws, w_dim]
    return grads.square().sum(2).mean(1).sqrt()


def mix_styles(ws: torch.Tensor, other: torch.Tensor, cutoff: torch.Tensor) -> torch.Tensor:
    """ws up to the layer `cutoff` of each image, `other` from there on.

    ws, other: [N, num_ws, w_dim];  cutoff: [N], num_ws mixes nothing
    """
    layers = torch.arange(ws.shape[1], device=ws.device)
    return torch.where((layers[None] < cutoff[:, None])[:, :, None], ws, other)


def phases(loss: LossConfig) -> list[tuple[str, int]]:
    """(phase of `GanLoss.accumulate`, interval in steps) in the order of a step; a penalty without weight has none."""
    result = []
    for network, weight, interval in (('G', loss.pl_weight, loss.g_reg_interval), ('D', loss.gamma, loss.r1_interval)):
        result.append((f'{network}_both' if weight and interval == 1 else network, 1))
        if weight and interval > 1:
            result.append((f'{network}_reg', interval))
    return result


def brightness(images: torch.Tensor) -> torch.Tensor:
    """Mean of each image [N, C, H, W], [N]: what varies among images that are not all alike (`training.health`)."""
    return images.detach().float().mean([1, 2, 3])


class GanLoss:
    """Accumulates the gradients of one phase of a training step.

    G, D:   the networks; mapping and synthesis are called apart
    config: weights and intervals
    stats:  where the losses are reported
    augment: ada.Augmentation of what D judges, None for none
    features: pretrained.FrozenFeatures for a D that judges those too, None for none
    stage:   growing.Stage that the passes are made at, to be set before each step of a run that grows; None: at full size
    windows: windows.Windows of a run on windows of pictures, else None
    looks:   instances.Looks of a run whose fakes stand for real pictures, with latents that say so, else None
    The running mean path length is its only state.
    """

    stage = windows = looks = None

    def __init__(self, G: torch.nn.Module, D: torch.nn.Module, config: LossConfig, stats, augment=None, features=None):
        self.G, self.D, self.config, self.stats, self.augment, self.features = G, D, config, stats, augment, features
        self.pl_mean = torch.zeros([], device=next(G.parameters()).device)

    def accumulate(self, phase: str, reals: torch.Tensor, real_c: torch.Tensor, latents: Latents, share: float,
                   real_windows: torch.Tensor | None = None) -> None:
        """Adds a pass's gradients to one network's.

        phase:   'G' or 'D' (the main loss), 'G_reg' or 'D_reg' (its penalty alone), 'G_both' or 'D_both' (both, from the same forward pass)
        reals:   [N, C, H, W] in [-1, 1];  real_c: [N, c_dim]
        share:   this pass's share of the batch that one process takes in a step
        real_windows: int64 [N, 3], which part of its picture each real image is; None for all of it
        """
        network, _, part = phase.partition('_')
        if network == 'G':
            if part != 'reg':
                self._main_g(latents, share)
            if part:
                self._reg_g(latents, share, self.config.g_reg_interval)
        else:
            if part != 'reg':
                self._main_d_fake(latents, share)
            self._d_real(reals, self._labels(real_c, real_windows), latents, share, logistic=part != 'reg', penalty=bool(part))

    def _labels(self, c: torch.Tensor, windows: torch.Tensor | None = None) -> torch.Tensor:
        """What D gets for images: their labels, with numbers for their windows [N, 3] (None for whole pictures) in a run on these."""
        return c if self.windows is None else self.windows.labels(c, windows)

    def judge(self, images: torch.Tensor, c: torch.Tensor, numbers: torch.Tensor | None) -> torch.Tensor:
        """D's logits, [N, 1], of whole pictures. numbers: [N, augment.NUMBERS], None draws them."""
        return self._judge_pixels(self._augmented(images, numbers), self._labels(c))

    def _augmented(self, images: torch.Tensor, numbers: torch.Tensor | None) -> torch.Tensor:
        return images if self.augment is None else self.augment(images, numbers)

    def _judge_pixels(self, images: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """D's logits, [N, 1]: every image that D judges comes this way, augmented. c: as `_labels` gives them"""
        return self.D(images, c) if self.stage is None else self.D(images, c, fade=self.stage.fade)

    def _synthesis(self, ws: torch.Tensor, windows: torch.Tensor | tuple | None = None) -> torch.Tensor:
        """Images [N, C, H, W] of the stage's size, or windows of them: [N, 3], or Latents.places."""
        if self.stage is not None and self.stage.resolution < self.G.img_resolution:
            return self.G.synthesis(ws, resolution=self.stage.resolution)
        if windows is not None and (isinstance(windows, tuple) or self.windows.are_parts(windows)):
            return self.G.synthesis(ws, windows=windows)
        return self.G.synthesis(ws)

    def _gamma(self) -> float:
        """Weight of R1: a smaller image's pixels are as many times steeper as it has fewer, so the weight goes with their number."""
        return self.config.gamma * (1 if self.stage is None else (self.stage.resolution / self.G.img_resolution) ** 2)

    def _ws(self, latents: Latents) -> torch.Tensor:
        ws = self.G.mapping(latents.z, latents.c)                                      # [N, num_ws, w_dim]
        if latents.z_mix is None:
            return ws
        cutoff = 1 + (latents.mix_position * (ws.shape[1] - 1)).long()                         # 1 .. num_ws - 1
        cutoff = torch.where(latents.chance < self.config.style_mixing, cutoff, ws.shape[1])
        return mix_styles(ws, self.G.mapping(latents.z_mix, latents.c, skip_w_avg_update=True), cutoff)

    def _main_g(self, latents: Latents, share: float) -> None:
        ws, labels = self._ws(latents), self._labels(latents.c, latents.windows)
        drawn = self._synthesis(ws, latents.parts)
        images = self._augmented(drawn, latents.numbers_of('fake'))
        loss = generator_loss(self._judge_pixels(images, labels))
        self.stats.report('Loss/G', loss)
        if self.features is not None:
            maps = self.features(images)
            of_features = generator_loss(self.D.judge_features(maps, labels, latents.looks))  # [N, heads]
            self.stats.report('Loss/G_features', of_features)
            loss = loss + of_features.mean(1, keepdim=True) * self.config.features_weight
            if latents.looks is not None:
                maps = maps if images is drawn else self.features(drawn)
                distance = self.looks.distances(self.looks.of(maps, latents.c), latents.looks)
                self.stats.report('Loss/look', distance, counted=latents.looks.any(dim=1))
                loss = loss + distance[:, None] * self.config.instances
        loss = loss.mean()
        if self.windows is not None and self.windows.config.consistency:
            loss = loss + self._consistency(ws, drawn, latents.windows) * self.windows.config.consistency
        loss.mul(share).backward()

    def _consistency(self, ws: torch.Tensor, images: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """Mean of windows.consistency over all images: how far windows are from the whole pictures, which learn nothing from it."""
        parts = (windows[:, 0] > self.G.img_resolution).nonzero()[:, 0].to(ws.device)
        if not len(parts):
            return images.sum() * 0
        with torch.no_grad():
            whole = self.G.synthesis(ws[parts])
        distance = consistency(images[parts], windows[parts.cpu()], whole)
        self.stats.report('Loss/consistency', distance)
        return distance.sum() / len(images)

    def _reg_g(self, latents: Latents, share: float, gain: float) -> None:
        ws = self._ws(latents.strided_slice(0, PL_SHRINK))
        images = self._synthesis(ws, None if latents.windows is None else latents.windows[::PL_SHRINK])
        lengths = path_lengths(images, ws, torch.randn_like(images))
        mean = lengths.mean()
        elsewhere = distributed.sum_(mean.detach().clone()) / distributed.world_size() - mean.detach()
        mean = self.pl_mean.lerp(mean + elsewhere, PL_DECAY)  # with its gradient, as the public code has it
        self.pl_mean = torch.where(mean.isfinite(), mean, self.pl_mean).detach()
        penalty = (lengths - mean).square()
        self.stats.report('Loss/path_length', lengths)
        self.stats.report('Loss/path_length_penalty', penalty)
        loss = penalty.mean() * (self.config.pl_weight * gain) + images[:, 0, 0, 0].mean() * 0  # as in `_d_real`
        loss.mul(share).backward()

    def _main_d_fake(self, latents: Latents, share: float) -> None:
        with torch.no_grad():
            images = self._synthesis(self._ws(latents), latents.parts)
            self.stats.report('Brightness/fake', brightness(images))
            images = self._augmented(images, latents.numbers_of('fake'))
            maps = None if self.features is None else self.features(images)
        labels = self._labels(latents.c, latents.windows)
        logits = self._judge_pixels(images, labels)
        self.stats.report('Scores/fake', logits)
        self.stats.report('Signs/fake', logits.sign())
        loss = discriminator_loss(logits, logits)[1]
        self.stats.report('Loss/D_fake', loss)
        if maps is not None:
            logits = self.D.judge_features(maps, labels, latents.looks)
            self.stats.report('Scores/fake_features', logits)
            loss = loss + discriminator_loss(logits, logits)[1].sum(1, keepdim=True)
        loss.mean().mul(share).backward()

    def _d_real(self, reals: torch.Tensor, real_c: torch.Tensor, latents: Latents, share: float, logistic: bool, penalty: bool) -> None:
        reals = reals.detach().requires_grad_(penalty)
        images = self._augmented(reals, latents.numbers_of('real'))
        logits = self._judge_pixels(images, real_c)
        loss = logits * 0  # gives every parameter a gradient, so that Adam counts the step of R1 alone for all of them
        if logistic:
            loss = discriminator_loss(logits, logits)[0]
            self.stats.report('Brightness/real', brightness(reals))
            self.stats.report('Scores/real', logits)
            self.stats.report('Signs/real', logits.sign())
            self.stats.report('Loss/D_real', loss)
            if self.augment is not None:
                self.augment.observe(logits)
        if penalty:
            r1 = r1_penalty(logits, reals)
            self.stats.report('Loss/r1', r1)
            loss = loss + r1 * (self._gamma() / 2 * self.config.r1_interval)
        if self.features is not None:
            loss = loss + self._d_real_features(images, real_c, latents.looks, logistic, penalty)
        loss.mean().mul(share).backward()

    def _d_real_features(self, images: torch.Tensor, c: torch.Tensor, looks: torch.Tensor | None, logistic: bool,
                         penalty: bool) -> torch.Tensor:
        """What `_d_real` adds for the heads, [N, 1]."""
        with torch.no_grad():
            maps = self.features(images)
        maps = [x.requires_grad_(penalty) for x in maps]
        logits = self.D.judge_features(maps, c, looks)                                 # [N, heads]
        loss = (logits * 0).sum(1, keepdim=True)
        if logistic:
            self.stats.report('Scores/real_features', logits)
            loss = discriminator_loss(logits, logits)[0].sum(1, keepdim=True)
            if looks is not None:
                wrong_looks, unlike = self.looks.of_others(looks)
                wrong = self.D.judge_features([x.detach() for x in maps], c, wrong_looks)
                self.stats.report('Scores/wrong_look', wrong, counted=unlike)
                loss = loss + discriminator_loss(wrong, wrong)[1].sum(1, keepdim=True) * unlike[:, None] * MISMATCH
        if penalty:
            r1 = feature_penalty(logits, maps)
            self.stats.report('Loss/r1_features', r1)
            loss = loss + r1 * (self.config.features_gamma / 2 * self.config.r1_interval)
        return loss
