"""Keypoint extractors: dlib's 68 face landmarks, or a TorchScript that returns heatmaps (as FAN does) or coordinates.

An extractor takes uint8 images [N, 1 | 3 | 4, H, W] and returns float64 [N, K, 2]: x and y in pixels of the image at 256 x 256, nan where
there is no face. 68 points are in the order of iBUG 300-W; its outer eye corners, 36 and 45, give the inter-ocular distance.
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from dnnlib.util import UserError, fetch, file_digest
from metrics.detectors import load_script
from metrics.perceptual import as_rgb

SIDE = 256
EYE_CORNERS = (36, 45)
LEAST_PEAK = 0.1  # mean height of the heatmaps' peaks below which there is no face
DLIB_FILE = 'shape_predictor_68_face_landmarks.dat'
DEBIAN_FILE = Path('/usr/share/dlib') / DLIB_FILE


def at_side(images):
    """uint8 [N, C, H, W] -> float [N, 3, 256, 256] in [0, 255], bilinear."""
    return F.interpolate(as_rgb(images).float(), size=(SIDE, SIDE), mode='bilinear', align_corners=False, antialias=True)


def from_heatmaps(heatmaps):
    """Places of the peaks, moved a quarter of a cell towards the higher neighbour (Newell et al., arXiv 1603.06937, section 3.3).

    heatmaps: [N, K, h, w];  returns [N, K, 2], x and y in pixels of 256 x 256; nan for images whose peaks are low
    """
    count, points, height, width = heatmaps.shape
    padded = F.pad(heatmaps, (1, 1, 1, 1)).flatten(2)                                        # [N, K, (h + 2) (w + 2)]
    peak, place = heatmaps.flatten(2).max(dim=2)
    row, column = place // width, place % width

    def beside(dy, dx):
        return padded.gather(2, ((row + 1 + dy) * (width + 2) + column + 1 + dx)[:, :, None])[:, :, 0]

    x = (column + 0.5 + 0.25 * (beside(0, 1) - beside(0, -1)).sign()) * (SIDE / width)
    y = (row + 0.5 + 0.25 * (beside(1, 0) - beside(-1, 0)).sign()) * (SIDE / height)
    found = peak.mean(dim=1) >= LEAST_PEAK
    return torch.where(found[:, None, None], torch.stack([x, y], dim=2), torch.nan)


class ScriptedKeypoints:
    """A TorchScript: float [N, 3, 256, 256] in [0, 1] -> heatmaps [N, K, h, w] or coordinates [N, K, 2] in pixels, nan for no face.

    Of a list of outputs (a stack of hourglasses) the last is taken.
    """

    def __init__(self, path, device='cpu'):
        path = fetch(path)
        self.name, self.digest, self.device = path.stem, file_digest(path), device
        self.script = load_script(path).to(device)

    def __call__(self, images):
        out = self.script(at_side(images.to(self.device)) / 255)
        out = out[-1] if isinstance(out, (list, tuple)) else out
        if out.ndim == 4:
            out = from_heatmaps(out)
        if out.ndim != 3 or out.shape[2] != 2:
            raise UserError(f'--keypoints: {self.name} returns {list(out.shape)}; heatmaps [N, K, h, w] or points [N, K, 2] are needed')
        return out.double().cpu().numpy()


class Dlib68:
    """dlib's frontal face detector and 68 landmarks; of several faces the largest."""

    name = 'dlib68'

    def __init__(self):
        if not importlib.util.find_spec('dlib'):
            raise UserError("--keypoints=dlib68 is not installed: run pip install '.[faces]'")
        import dlib

        path = self._model()
        self.digest = file_digest(path)
        self._detect, self._predict = dlib.get_frontal_face_detector(), dlib.shape_predictor(str(path))

    @staticmethod
    def _model():
        if importlib.util.find_spec('face_recognition_models'):
            import face_recognition_models

            return Path(face_recognition_models.pose_predictor_model_location())
        if DEBIAN_FILE.is_file():
            return DEBIAN_FILE
        raise UserError(f"--keypoints=dlib68: {DLIB_FILE} is missing: run pip install '.[faces]', or put it at {DEBIAN_FILE}")

    def __call__(self, images):
        pixels = at_side(images).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
        found = np.full((len(pixels), 68, 2), np.nan)
        for image, points in zip(pixels, found, strict=True):
            faces = self._detect(image, 1)
            if faces:
                shape = self._predict(image, max(faces, key=lambda face: face.area()))
                points[:] = [(part.x + 0.5, part.y + 0.5) for part in shape.parts()]
        return found


def load_extractor(text, device='cpu'):
    """The extractor of --keypoints: 'dlib68', or path or URL of a TorchScript. Raises UserError."""
    return Dlib68() if text == 'dlib68' else ScriptedKeypoints(text, device)
