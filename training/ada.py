"""The controller of adaptive augmentation: p follows how often D recognizes real images (Karras et al. 2020, section 3.1).

r_t = E[sign(D(real))] is 0 where D cannot tell reals from fakes and 1 where it always can, because it knows its few images by heart.
"""

import torch

from torch_utils import distributed


class Controller:
    """Moves p towards the r_t wanted.

    target:   r_t to hold, 0.6 in the paper
    kimg:     thousands of images in which p goes from 0 to 1 at most, 500 in the paper
    interval: steps between changes, 4 in the paper
    device:   where the logits are
    State: the sums of signs since the last change, and the last r_t.
    """

    def __init__(self, target: float = 0.6, kimg: float = 500.0, interval: int = 4, device: torch.device | str = 'cpu'):
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
