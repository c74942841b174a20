"""Adaptive augmentation: p follows how often D recognizes real images (Karras et al. 2020, arXiv 2006.06676, section 3.1).

r_t = E[sign(D(real))] is 0 where D cannot tell reals from fakes and 1 where it always can, because it knows its few images by heart.
"""

import torch

from torch_utils import distributed
from training.augment import AugmentPipe
from training.options import AugmentConfig

TARGET, KIMG, INTERVAL = 0.6, 500.0, 4  # of the paper, see Controller
KNOWN = 0.9    # r_t from which on D tells nearly all its images from fakes
LEAKING = 0.8  # p above which G begins to draw augmentations (section 2.2 there)
EPOCHS = 10    # how often D must have been shown its images before it can know them by heart


def advice(r: float, p: float, kind: str, epochs: float) -> str:
    """What the log says of overfitting, '' for nothing.

    r: mean sign of D(real) over a tick;  p: chance of an augmentation;  kind: as of AugmentConfig;  epochs: times each image was shown
    """
    if epochs < EPOCHS:
        return ''
    if kind == 'ada' and p >= LEAKING:
        return (f'p is at {p:.2f}, and above {LEAKING} G begins to draw augmentations: more images, a higher --gamma or fewer groups in '
                '--augpipe help')
    if kind != 'ada' and r > KNOWN:
        return (f'D knows its images by heart, or is far ahead of G: r_t, the mean sign of D(real), is {r:.2f} after {epochs:.0f} epochs, '
                f'and {TARGET} would be healthy. --resume takes --aug=ada, and a higher --gamma')
    return ''


class Controller:
    """Moves p towards the r_t wanted.

    target:   r_t to hold
    kimg:     thousands of images in which p goes from 0 to 1 at most
    interval: steps between changes
    device:   where the logits are
    State: the sums of signs since the last change, and the last r_t.
    """

    def __init__(self, target: float = TARGET, kimg: float = KIMG, interval: int = INTERVAL, device: torch.device | str = 'cpu'):
        self.target, self.kimg, self.interval = target, kimg, interval
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)  # number of real images, sum of signs; in this process
        self.r = 0.0

    def observe(self, logits: torch.Tensor) -> None:
        """Takes D's logits of real images into account."""
        logits = logits.detach().double()
        signs = torch.where(logits.isnan(), logits, logits.sign())
        self.sums += torch.stack([torch.full_like(signs, 1).sum(), signs.sum()])

    def update(self, p: torch.Tensor, images: int, batch: int) -> None:
        """Changes p, in place, if the step that ended at `images` is one to do so. All processes must call this."""
        if (images // batch) % self.interval:
            return
        count, total = distributed.sum_(self.sums.clone()).tolist()
        self.sums.zero_()
        if count and total == total:  # logits that are not finite have no sign
            self.r = total / count
            step = batch * self.interval / (self.kimg * 1000)
            p.add_(step * ((self.r > self.target) - (self.r < self.target))).clamp_(0, 1)

    def state_dict(self) -> dict:
        """The state, over all processes, on the CPU. All processes must call this."""
        return {'sums': distributed.sum_(self.sums.clone()).cpu(), 'r': self.r}

    def load_state_dict(self, state: dict) -> None:
        """Goes on from what `state_dict` returned; the main process takes the sums, the others count from zero."""
        self.sums.copy_(state['sums'] * (1 if distributed.is_main() else 0))
        self.r = state['r']


class Augmentation:
    """What a run does to the images that D judges: nothing, a pipe with p as given, or one whose p a controller moves.

    config: all about it;  device: where the logits are
    """

    def __init__(self, config: AugmentConfig, device: torch.device | str = 'cpu'):
        self.config = config
        self.pipe = AugmentPipe(config.pipe, config.p or 0.0) if config.kind != 'noaug' else None  # on the CPU: its p is read in every pass
        self.controller = Controller(config.target or TARGET, config.ada_kimg or KIMG, INTERVAL, device) if config.kind == 'ada' else None

    @property
    def p(self) -> float:
        """Chance of each transform."""
        return self.pipe.p.item() if self.pipe else 0.0

    def __call__(self, images: torch.Tensor, numbers: torch.Tensor | None = None) -> torch.Tensor:
        """Images as D gets them; arguments as of AugmentPipe."""
        return self.pipe(images, numbers) if self.pipe else images

    def observe(self, logits: torch.Tensor) -> None:
        """Takes D's logits of real images."""
        if self.controller:
            self.controller.observe(logits)

    def update(self, images: int, batch: int) -> None:
        """Ends the step that led to so many `images`. All processes must call this."""
        if self.controller:
            self.controller.update(self.pipe.p, images, batch)

    def state_dict(self) -> dict | None:
        """p, where it started, and the controller's state. All processes must call this."""
        return {'p': self.p, 'start': self.config.p or 0.0, **self.controller.state_dict()} if self.controller else None

    def load_state_dict(self, state: dict | None) -> None:
        """Goes on from what `state_dict` returned, unless there is nothing or p is to start somewhere else now."""
        if self.controller and state and state['start'] == (self.config.p or 0.0):
            self.pipe.p.fill_(state['p'])
            self.controller.load_state_dict(state)
