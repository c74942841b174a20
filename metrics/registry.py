"""What the metrics are called, what each measures and who computes it: one row a kind. No torch.

A new metric is a row here and a module with its pure function. Of a kind that looks at features the module also has
`figures(real, drawn, subject)`, what it makes of two sets' statistics, and `notes(real, drawn)`; of any other kind `run` does the whole.
"""

import dataclasses
import re
from dataclasses import dataclass

from dnnlib.util import UserError, suggest

DETECTORS = ('inception', 'vgg16', 'efficientnet-lite0', 'dinov2')
SCALES = ('2x', 'half')
ALL = None  # of the real images
PLACES = {  # of a form: what may stand there
    '{net}': rf'(?P<net>{"|".join(DETECTORS)})',
    '{_net}': rf'(?:_(?P<net>{"|".join(DETECTORS)}))?',
    '{k}': r'(?:(?P<count>[1-9]\d*)k)?',
    '{_k}': r'(?:_(?P<count>[1-9]\d*)k)?',
    '{at}': rf'(?:_(?P<at>{"|".join(SCALES)}))?',
    '{@}': r'(?P<at>@[1-9]\d*)',
}


@dataclass(frozen=True)
class Kind:
    """A row.

    name:     of the kind
    about:    what it measures
    forms:    {form of a name: (images drawn, real images at most or ALL)}, with places: {net} a feature network, {k} its number in
              thousands, {at} a size to draw at, {@} one of pictures whose windows are looked at; a name without a network takes the
              kind's own
    network:  the one whose scores carry the kind's own name; None: no network is needed
    other:    what it is called with another network; None: the network is added to its name
    tail:     what follows the number of images in its name
    counted:  whether the number of images always stands in its name; else only where it is not the default
    outputs:  endings of the names of its figures, the first being the score
    fitted:   endings of further figures with --extrapolate
    better:   which scores are better: 'lower' or 'higher'
    asks:     what the network must have: '', 'probabilities' or 'distance'
    real:     whether real images are compared with
    generator: whether it looks at a generator, not at images
    sums:     of features: arguments of FeatureStats for its statistics (and 'splits', of the drawn images alone); None: not of features
    everywhere: of features: whether `figures` is called in all processes, which share the work; else in the main one
    module:   of features: where `figures` and `notes` are
    run:      (group of metrics, subject, detector) -> yields Scores
    """

    name: str
    about: str
    forms: dict
    run: str = 'metrics.feature_scores.run'
    module: str | None = None
    network: str | None = None
    other: str | None = None
    tail: str = ''
    counted: bool = True
    outputs: tuple = ('',)
    fitted: tuple = ()
    better: str = 'lower'
    asks: str = ''
    real: bool = True
    generator: bool = False
    sums: dict | None = None
    everywhere: bool = False


MOMENTS = {'moments': True, 'kept': 10_000}  # of fid and kid alike, so that the one finds the other's statistics in the cache
KINDS = {kind.name: kind for kind in (
    Kind('fid', 'Fréchet distance of Inception features; fd_NET of those of another network',
         {'fid50k_full{at}': (50_000, ALL), 'fid50k{at}': (50_000, 50_000), 'fid5k{at}': (5000, ALL), 'fd_{net}{_k}{at}': (50_000, ALL)},
         module='metrics.frechet_distance', network='inception', other='fd', sums=MOMENTS, fitted=('_limit', '_slope', '_residual')),
    Kind('kid', 'kernel distance of Inception features; kd_NET',
         {'kid50k_full{at}': (50_000, ALL), 'kid50k{at}': (50_000, 50_000), 'kid5k{at}': (5000, ALL), 'kd_{net}{_k}{at}': (50_000, ALL)},
         module='metrics.kernel_distance', network='inception', other='kd', sums=MOMENTS, outputs=('', '_std')),
    Kind('patch_fd', 'fd_NET of windows, as large as trained pictures, of pictures at 256 pixels: detail that these do not have',
         {'patch_fd_{net}{_k}{@}': (50_000, ALL)}, module='metrics.frechet_distance', other='patch_fd', sums=MOMENTS,
         fitted=('_limit', '_slope', '_residual')),
    Kind('patch_kd', 'kd_NET of the same windows', {'patch_kd_{net}{_k}{@}': (50_000, ALL)}, module='metrics.kernel_distance',
         other='patch_kd', sums=MOMENTS, outputs=('', '_std')),
    Kind('pr', 'precision and recall of VGG16 features, 3 neighbours; full: at most 200,000 real images; pr_NET',
         {'pr50k3_full': (50_000, 200_000), 'pr50k3': (50_000, 50_000), 'pr_{net}{_k}': (50_000, 200_000)},
         module='metrics.precision_recall', network='vgg16', other='pr', sums={'moments': False, 'kept': 200_000}, tail='3',
         outputs=('_precision', '_recall'), better='higher', everywhere=True),
    Kind('is', 'inception score; cs_NET, of the classes of another network',
         {'is50k': (50_000, ALL), 'cs_{net}{_k}': (50_000, ALL)},
         module='metrics.inception_score', network='inception', other='cs', sums={'moments': False, 'splits': 10},
         outputs=('_mean', '_std'), better='higher', asks='probabilities', real=False),
    Kind('ppl', 'perceptual path length; ppl2 looks at the whole image, ppl at the middle of a face',
         {form + '{_net}': (50_000, ALL) for form in ('ppl2_wend', 'ppl_zfull', 'ppl_wfull', 'ppl_zend', 'ppl_wend')},
         run='metrics.path_length.run', network='vgg16', counted=False, asks='distance', real=False, generator=True),
    Kind('swd', "sliced Wasserstein distance of patches, level by level, no network; swd16k, the paper's, is the default",
         {'swd{k}': (16_000, ALL)}, run='metrics.sliced_wasserstein.run'),
    Kind('scale_consistency', 'does an image drawn at another size stay itself', {'scale_consistency': (1000, ALL)},
         run='metrics.scale_consistency.run', counted=False, outputs=('_psnr_2x', '_ssim_2x', '_psnr_half', '_ssim_half'), better='higher',
         real=False, generator=True),
    Kind('kpl', 'keypoint prediction loss (INR-GAN, appendix B.2)', {'kpl': (10_000, ALL), 'kpl_random': (10_000, ALL)},
         run='metrics.keypoint_prediction.run', counted=False, outputs=('', '_per_image', '_normalized', '_train_per_image', '_images'),
         generator=True),
)}


@dataclass(frozen=True)
class Metric:
    """What one metric measures.

    kind:     name of its row
    variant:  how it is written apart from count, network and scale: 'ppl2_wend', 'kpl_random', 'pr' and so on
    detector: feature network, None where none is needed
    num:      images drawn (pairs for ppl)
    real:     real images compared with at most; None: all
    scale:    '2x' or 'half': size the images are drawn at; '@256': size of the pictures whose windows are; '': the trained one
    """

    kind: str
    variant: str
    detector: str | None
    num: int
    real: int | None = None
    scale: str = ''

    @property
    def row(self):
        """Its `Kind`."""
        return KINDS[self.kind]

    @property
    def full(self):
        """Whether its name says that all real images are taken; fid5k and kid5k take them without saying so."""
        return self.num != 5000 and any('_full' in form and real == self.real for form, (_num, real) in self.row.forms.items())

    def score_name(self, detector=None):
        """The name its score carries. detector: name of the network that was in fact used, None: the metric's own."""
        row, detector, count = self.row, detector or self.detector, _count(self.num)
        own, end = detector == row.network, self.scale if self.window_of else f'_{self.scale}' if self.scale else ''
        if not row.counted:
            default = {num for num, _real in row.forms.values()}
            return self.variant + ('' if own else f'_{detector}') + ('' if self.num in default else f'_{count}')
        if not own:
            return f'{row.other}_{detector}_{count}{end}'
        return f'{self.kind}{count}{row.tail}{"_full" if self.full else ""}{end}'

    @property
    def window_of(self):
        """Pixels a side of the pictures whose windows are looked at; None for whole images."""
        return int(self.scale[1:]) if self.scale.startswith('@') else None

    @property
    def higher_is_better(self):
        """Whether the first of its figures is better when it is higher."""
        return self.row.better == 'higher'

    @property
    def outputs(self):
        """Endings of the names of its figures, the first being the score."""
        return self.row.outputs

    def with_num(self, num):
        """The same with another number of images, in figure and name."""
        return dataclasses.replace(self, num=num)


def _count(num):
    return f'{num // 1000}k' if num % 1000 == 0 else str(num)


def _filled(form, places):
    for place, text in places.items():
        form = form.replace(place, text)
    return form


SHOWN = dict.fromkeys(PLACES, '') | {'{net}': 'efficientnet-lite0', '{@}': '@256'}
LISTED = tuple(_filled(form, SHOWN) for kind in KINDS.values() for form in kind.forms)
ALSO = f'also {{fd,kd,pr,cs}}_NET[_5k] with NET one of {", ".join(DETECTORS)}, and swd2k'


def help_text():
    """A line for each kind: its names and what it measures."""
    shown = SHOWN | {'{net}': 'NET', '{k}': '2k'}
    rows = [(', '.join(_filled(form, shown) for form in kind.forms), kind.about) for kind in KINDS.values()]
    return '\n'.join([f'{names}\n    {about}' for names, about in rows]
                     + [f'NET is one of {", ".join(DETECTORS)}; after it a number of images, such as _5k.',
                        'fid, kid, fd and kd take a suffix _2x or _half: the images are drawn at that size and then resized.'])


def parse(name):
    """The metric of a name. Raises UserError, with the nearest name, for one that is not known."""
    for kind in KINDS.values():
        for form, (num, real) in kind.forms.items():
            if match := re.fullmatch(_filled(form, PLACES), name):
                found = match.groupdict()
                count = int(found['count']) * 1000 if found.get('count') else num
                variant = kind.name if kind.counted else form.partition('{')[0]
                return Metric(kind.name, variant, found.get('net') or kind.network, count, real, found.get('at') or '')
    raise UserError(f'metric {name!r} is not known.{suggest(name, LISTED)} Known: {", ".join(LISTED)}; {ALSO}')


def parse_list(text):
    """The metrics of 'a,b', each once. Raises UserError."""
    names = [name.strip() for name in text.split(',') if name.strip()]
    if not names:
        raise UserError(f'no metric is named; known: {", ".join(LISTED)}')
    metrics = list(dict.fromkeys(parse(name) for name in names))
    return metrics
