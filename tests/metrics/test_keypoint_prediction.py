"""KPL with a drawer of synthetic faces whose keypoints are a known linear function of w, and the regression by hand."""

import numpy as np
import pytest
import torch

from dnnlib.util import UserError
from metrics import keypoint_prediction, keypoints
from metrics.image_sources import DataImages
from metrics.keypoint_prediction import KeypointPrediction, fit_linear, normalized_error, squared_errors
from metrics.keypoints import EYE_CORNERS, ScriptedKeypoints, from_heatmaps, load_extractor
from metrics.metric_main import Subject, evaluate
from metrics.registry import parse
from tests.metrics.test_detectors import script

CENTRES = torch.tensor([[8.0, 8.0], [24.0, 8.0], [8.0, 24.0], [24.0, 24.0]])  # x, y of four spots in 32 x 32 pixels
SPREAD = 1.0


class Faces(torch.nn.Module):
    """Draws four bright spots, each moved by two of the eight numbers of w, which are z."""

    z_dim, c_dim, w_dim, num_ws, img_resolution, img_channels = 8, 0, 8, 2, 32, 3

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.mapping = FacesMapping()
        self.synthesis = FacesSynthesis()


class FacesMapping(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, z, c, truncation_psi=1):
        return z[:, None].repeat(1, 2, 1)


class FacesSynthesis(torch.nn.Module):
    num_ws = 2

    def forward(self, ws, noise_mode='random', force_fp32=False):
        place = CENTRES + SPREAD * ws[:, 0].reshape(-1, 4, 2)                                  # [N, 4, 2]
        grid = torch.arange(32) + 0.5
        spot = torch.exp(-((grid - place[:, :, 1:])[:, :, :, None].square() + (grid - place[:, :, :1])[:, :, None].square()) / 8)
        return (2 * spot.sum(dim=1, keepdim=True).clamp(max=1) - 1).repeat(1, 3, 1, 1)


class Centroids(torch.nn.Module):
    """The extractor: centre of brightness in each quarter; nan where all is dark."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.mean(dim=1).reshape(-1, 2, 128, 2, 128).permute(0, 1, 3, 2, 4).reshape(-1, 4, 128, 128)
        grid = torch.arange(128) + 0.5
        mass = x.sum(dim=(2, 3))
        offset = torch.tensor([[0.0, 0.0], [128.0, 0.0], [0.0, 128.0], [128.0, 128.0]])
        places = torch.stack([(x * grid).sum(dim=(2, 3)), (x * grid[:, None]).sum(dim=(2, 3))], dim=2)
        return places / mass[:, :, None] + offset


class Photographs:
    """Real faces: what the drawer makes of codes of its own, the last two black."""

    label_dim, size, num_channels, path = 0, (32, 32), 3, 'photographs'

    def __init__(self, count=12, dark=2):
        self.w = torch.randn(count, 8, generator=torch.Generator().manual_seed(7)) * 0.7
        self.images = ((Faces().synthesis(self.w[:, None]) + 1) * 127.5).round().byte().numpy()
        self.images[len(self.images) - dark:] = 0
        self.digest = f'{count} {dark}'

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], np.zeros(0, np.float32)


@pytest.fixture(scope='module')
def extractor(tmp_path_factory):
    return ScriptedKeypoints(script(Centroids(), tmp_path_factory.mktemp('extractor') / 'centroids.pt'))


def test_extractor_reads_what_was_drawn(extractor):
    w = torch.randn(5, 8) * 0.7
    found = extractor(((Faces().synthesis(w[:, None]) + 1) * 127.5).round().byte())
    assert found == pytest.approx((CENTRES + w.reshape(5, 4, 2)).numpy() * 8, abs=1.5)  # 256 / 32 pixels
    assert np.isnan(extractor(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))).all()


def test_kpl_of_a_drawer_that_is_linear(extractor, tmp_path):
    subject = Subject(Photographs(), Faces(), batch=50, cache=tmp_path)
    subject.keypoints = KeypointPrediction(extractor, tests=12, steps=40, distance='pixels')
    scores = {}
    for name in ('kpl', 'kpl_random'):
        score = next(iter(evaluate([parse(name).with_num(300)], subject)))
        scores[name] = score.values
        assert score.notes == ('2 of 12 real images have no face that centroids finds',)
    true = (CENTRES + subject.dataset.w[:10].reshape(10, 4, 2)).numpy().reshape(10, 8) * 8
    variance = np.square(true - true.mean(axis=0)).sum(axis=1).mean()
    kpl, random = scores['kpl'], scores['kpl_random']
    assert kpl['kpl_300_per_image'] < 0.03 * variance
    assert kpl['kpl_300'] == pytest.approx(10 * kpl['kpl_300_per_image']) and kpl['kpl_300_images'] == 10
    assert random['kpl_random_300_per_image'] == pytest.approx(variance, rel=0.3)
    assert kpl['kpl_300_normalized'] < 0.2 * random['kpl_random_300_normalized']
    assert kpl['kpl_300_train_per_image'] < 0.03 * random['kpl_random_300_train_per_image']


def test_projections_begin_with_the_labels_that_are_scored(extractor, tmp_path):
    class OfClasses(FacesMapping):
        def forward(self, z, c, truncation_psi=1):
            if len(z) == 1000:  # a part of the statistics of w that a projection begins with
                asked.append(int(c.argmax(1).unique()))
            return super().forward(z, c)

    G, asked = Faces(), []
    G.c_dim, G.mapping = 3, OfClasses()
    for shift in (0, 1):
        labels = (lambda n, shift=shift: np.eye(3, dtype=np.float32)[(n + shift) % 3]), 12
        subject = Subject(Photographs(), G, labels=labels, batch=50, cache=tmp_path)
        subject.keypoints = KeypointPrediction(extractor, tests=5, steps=2, distance='pixels')
        next(iter(evaluate([parse('kpl').with_num(60)], subject)))
    items = DataImages(Photographs(), 5)._items.tolist()
    assert items != list(range(5)) and asked[::10] == [n % 3 for n in items if n < 10] + [(n + 1) % 3 for n in items if n < 10]


def test_expensive_parts_are_kept(extractor, tmp_path, monkeypatch):
    subject = Subject(Photographs(4, 0), Faces(), batch=50, cache=tmp_path)
    subject.keypoints = KeypointPrediction(extractor, tests=4, steps=2, distance='pixels')
    first = next(iter(evaluate([parse('kpl').with_num(100)], subject))).values
    monkeypatch.setattr(keypoint_prediction.projection, 'project', None)  # would fail if it were called again
    assert next(iter(evaluate([parse('kpl').with_num(100)], subject))).values == first
    assert sorted(path.name.rsplit('-', 1)[0] for path in tmp_path.iterdir()) == ['kpl-drawn', 'kpl-projections']


def test_too_few_faces(extractor, tmp_path):
    subject = Subject(Photographs(3, 3), Faces(), batch=50, cache=tmp_path)
    subject.keypoints = KeypointPrediction(extractor, tests=3, steps=2, distance='pixels')
    with pytest.raises(UserError, match='kpl: 0 of 3 real images have a face that centroids finds, at least 1'):
        list(evaluate([parse('kpl').with_num(30)], subject))
    with pytest.raises(UserError, match='kpl: 9 of 9 drawn images have a face .* at least 10 are needed'):
        list(evaluate([parse('kpl').with_num(9)], subject))
    subject.keypoints = None
    with pytest.raises(UserError, match='kpl needs a keypoint extractor'):
        list(evaluate([parse('kpl')], subject))
    other = Subject(Photographs(), Faces(), keypoints=KeypointPrediction(extractor, distance='pixels'))
    other.dataset.size = 64, 64
    with pytest.raises(UserError, match='has 3x64x64, this network draws 3x32x32'):
        list(evaluate([parse('kpl')], other))


def test_regression_finds_a_linear_map():
    rng = np.random.RandomState(0)
    w, A, b = rng.randn(50, 4) * [1, 1e-3, 10, 1], rng.randn(4, 6), rng.randn(6)
    found = fit_linear(w, w @ A + b)
    assert found[0] == pytest.approx(A) and found[1] == pytest.approx(b)
    assert squared_errors(*found, w, w @ A + b) == pytest.approx(0, abs=1e-18)
    assert squared_errors(A, b + 1, w, w @ A + b) == pytest.approx(6)
    twice = np.concatenate([w, w[:, :1]], axis=1)  # singular: the smallest of the maps that fit
    assert fit_linear(twice, w @ A + b)[0][[0, 4]] == pytest.approx(np.stack([A[0], A[0]]) / 2)


def test_ridge_shrinks_by_hand():
    """One code of mean square s: the map is divided by 1 + ridge."""
    w = np.array([[-1.0], [1.0], [-2.0], [2.0]])
    A, b = fit_linear(w, 3 * w + 5, ridge=0.5)
    assert A[0, 0] == pytest.approx(3 / 1.5) and b[0] == pytest.approx(5)


def test_error_in_inter_ocular_distances():
    true = np.zeros((1, 68, 2))
    true[0, EYE_CORNERS[1]] = [30, 40]  # 50 from the other corner
    A, b = np.zeros((2, 136)), true.reshape(136) + np.tile([3.0, 4.0], 68)
    assert normalized_error(A, b, np.zeros((1, 2)), true.reshape(1, 136)) == pytest.approx(5 / 50)
    assert normalized_error(np.zeros((2, 4)), np.array([0, 64.0, 0, 64]), np.zeros((1, 2)), np.zeros((1, 4))) == pytest.approx(0.5)


def test_heatmaps_become_coordinates():
    maps = torch.zeros(2, 2, 64, 64)
    maps[0, 0, 10, 20], maps[0, 0, 10, 21], maps[0, 0, 9, 20] = 1, 0.5, 0.2
    maps[0, 1, 0, 63] = 1
    found = from_heatmaps(maps)
    assert found[0, 0].tolist() == [(20.5 + 0.25) * 4, (10.5 - 0.25) * 4] and found[1].isnan().all()
    assert found[0, 1].tolist() == [63.5 * 4, 0.5 * 4]


def test_stacked_heatmaps_and_wrong_outputs(tmp_path):
    class Stack(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            small = torch.nn.functional.avg_pool2d(images, 4)
            return [small * 0, small]

    image = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    image[0, :, 40:44, 80:84] = 255
    found = ScriptedKeypoints(script(Stack(), tmp_path / 'stack.pt'))(image)
    assert found.shape == (1, 3, 2) and found[0, 0] == pytest.approx([82, 42])
    wrong = ScriptedKeypoints(script(torch.nn.Flatten(), tmp_path / 'wrong.pt'))
    with pytest.raises(UserError, match='wrong returns .*heatmaps'):
        wrong(image)
    with pytest.raises(UserError, match='no such file'):
        load_extractor(str(tmp_path / 'none.pt'))


def test_dlib_is_optional(monkeypatch):
    monkeypatch.setattr(keypoints.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"dlib68 is not installed: run pip install '\.\[faces\]'"):
        load_extractor('dlib68')
