"""What the metrics are called and what each measures. No torch.

  fid50k_full, kid50k_full, pr50k3_full   50,000 drawn images against all real ones
  fid50k, kid50k, pr50k3                  against at most 50,000 real ones
  fid5k, kid5k                            5,000 drawn images against all real ones, for short runs
  is50k                                   inception score of 50,000 drawn images
  ppl2_wend, ppl_{z,w}{full,end}          perceptual path length; ppl2 looks at the whole image, ppl at the middle of a face
  fd_NET, kd_NET, pr_NET, cs_NET[_5k]     Fréchet and kernel distance, precision and recall, classifier score with another feature network
  swd2k, swd16k (the paper's), swd        sliced Wasserstein distance of patches, level by level; no network; swd is swd16k
  scale_consistency                       does an image drawn at another size stay itself
  kpl, kpl_random                         keypoint prediction loss (INR-GAN, appendix B.2)

fid, kid, fd and kd take a suffix _2x or _half: the images are drawn at that size and then resized.
"""

import dataclasses
import re
from dataclasses import dataclass

from dnnlib.util import UserError, suggest

DETECTORS = ('inception', 'vgg16', 'efficientnet-lite0', 'dinov2')
LISTED = ('fid50k_full', 'kid50k_full', 'pr50k3_full', 'ppl2_wend', 'ppl_zfull', 'ppl_wfull', 'ppl_zend', 'ppl_wend', 'is50k',
          'fid50k', 'kid50k', 'pr50k3', 'fid5k', 'kid5k', 'kpl', 'kpl_random', 'scale_consistency',
          'swd2k', 'swd16k',
          *(f'{kind}_efficientnet-lite0' for kind in ('fd', 'kd', 'pr', 'cs')))
SCALES = ('2x', 'half')
ELSEWHERE = {'fid': 'fd', 'kid': 'kd', 'is': 'cs', 'pr': 'pr'}  # what a kind is called with a network that is not its own
OWN_NETWORK = {'fid': 'inception', 'kid': 'inception', 'is': 'inception', 'pr': 'vgg16', 'ppl': 'vgg16'}
OUTPUTS = {  # kind: endings of the names of its figures
    'fid': ('',), 'kid': ('', '_std'), 'is': ('_mean', '_std'), 'pr': ('_precision', '_recall'), 'ppl': ('',),
    'scale_consistency': ('_psnr_2x', '_ssim_2x', '_psnr_half', '_ssim_half'),
    'swd': ('',),  # and one for each level of the pyramid
    'kpl': ('', '_per_image', '_normalized', '_train_per_image', '_images'),
}
HIGHER_IS_BETTER = ('is', 'pr', 'scale_consistency')


@dataclass(frozen=True)
class Metric:
    """What one metric measures.

    kind:     fid, kid, is, pr, ppl, scale_consistency, kpl or swd, whatever the network
    variant:  how it is written apart from count, network and scale: 'ppl2_wend', 'kpl_random', 'pr' and so on
    detector: feature network, None where none is needed
    num:      images drawn (pairs for ppl)
    real:     real images compared with at most; None: all
    scale:    '2x' or 'half': size the images are drawn at; '': the trained one
    """

    kind: str
    variant: str
    detector: str | None
    num: int
    real: int | None = None
    scale: str = ''

    @property
    def full(self):
        """Whether the name says that all real images are taken."""
        return self.kind in ('fid', 'kid', 'pr') and self.real is None and self.num != 5000

    def score_name(self, detector=None):
        """The name its score carries. detector: name of the network that was in fact used, None: the metric's own."""
        detector, count = detector or self.detector, _count(self.num)
        end = f'_{self.scale}' if self.scale else ''
        if self.kind in ('kpl', 'scale_consistency'):
            return self.variant if self.num == _default_num(self.kind) else f'{self.variant}_{count}'
        if self.kind == 'swd':
            return f'swd{count}'
        own = detector == OWN_NETWORK[self.kind]
        if self.kind == 'ppl':
            return self.variant + ('' if own else f'_{detector}') + ('' if self.num == 50_000 else f'_{count}')
        if not own:
            return f'{ELSEWHERE[self.kind]}_{detector}_{count}{end}'
        return f'{self.kind}{count}{"3" if self.kind == "pr" else ""}{"_full" if self.full else ""}{end}'

    @property
    def higher_is_better(self):
        """Whether the first of its figures is better when it is higher."""
        return self.kind in HIGHER_IS_BETTER

    @property
    def outputs(self):
        """Endings of the names of its figures, the first being the score."""
        return OUTPUTS[self.kind]

    def with_num(self, num):
        """The same with another number of images, in figure and name."""
        return dataclasses.replace(self, num=num)


def _count(num):
    return f'{num // 1000}k' if num % 1000 == 0 else str(num)


def _default_num(kind):
    return 10_000 if kind == 'kpl' else 1000


def parse(name):
    """The metric of a name. Raises UserError, with the nearest name, for one that is not known."""
    networks = '|'.join(DETECTORS)
    scale = rf'(?:_({"|".join(SCALES)}))?'
    if match := re.fullmatch(rf'(fid|kid)(5k|50k|50k_full){scale}', name):
        kind, count, at = match.groups()
        return Metric(kind, kind, 'inception', 5000 if count == '5k' else 50_000, 50_000 if count == '50k' else None, at or '')
    if match := re.fullmatch(r'pr50k3(_full)?', name):
        return Metric('pr', 'pr', 'vgg16', 50_000, None if match[1] else 50_000)
    if name == 'is50k':
        return Metric('is', 'is', 'inception', 50_000)
    if match := re.fullmatch(rf'(fd|kd)_({networks})(?:_(\d+)k)?{scale}', name):
        kind, detector, count, at = match.groups()
        return Metric({'fd': 'fid', 'kd': 'kid'}[kind], kind, detector, int(count or 50) * 1000 or 50_000, None, at or '')
    if match := re.fullmatch(rf'(pr|cs)_({networks})(?:_(\d+)k)?', name):
        kind, detector, count = match.groups()
        return Metric({'pr': 'pr', 'cs': 'is'}[kind], kind, detector, int(count or 50) * 1000 or 50_000)
    if match := re.fullmatch(rf'(ppl2_wend|ppl_[zw](?:full|end))(?:_({networks}))?', name):
        return Metric('ppl', match[1], match[2] or 'vgg16', 50_000)
    if name in ('kpl', 'kpl_random'):
        return Metric('kpl', name, None, _default_num('kpl'))
    if name == 'scale_consistency':
        return Metric(name, name, None, _default_num(name))
    if match := re.fullmatch(r'swd(?:([1-9]\d*)k)?', name):
        return Metric('swd', 'swd', None, int(match[1] or 16) * 1000)
    raise UserError(f'metric {name!r} is not known.{suggest(name, LISTED)} Known: {", ".join(LISTED)}; '
                    f'also swd[5k] and {{fd,kd,pr,cs}}_NET[_5k] with NET one of {", ".join(DETECTORS)}')


def parse_list(text):
    """The metrics of 'a,b', each once. Raises UserError."""
    names = [name.strip() for name in text.split(',') if name.strip()]
    if not names:
        raise UserError(f'no metric is named; known: {", ".join(LISTED)}')
    metrics = list(dict.fromkeys(parse(name) for name in names))
    return metrics
