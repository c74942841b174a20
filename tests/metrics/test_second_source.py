"""FID, KID and IS of torchmetrics, fed with the same features."""

import warnings

import pytest
import torch
import torchmetrics.image.fid
import torchmetrics.image.inception
import torchmetrics.image.kid

from metrics.feature_stats import FeatureStats
from metrics.frechet_distance import frechet_distance
from metrics.inception_score import inception_score
from metrics.kernel_distance import kernel_distance

DIM = 12
pytestmark = pytest.mark.filterwarnings('ignore:Metric .* will save all extracted features:UserWarning')


class Projection(torch.nn.Module):
    """Features of tiny images: a fixed random projection."""

    num_features = DIM

    def __init__(self):
        super().__init__()
        self.register_buffer('matrix', torch.randn(3 * 4 * 4, DIM, generator=torch.Generator().manual_seed(0)) / 100)

    def forward(self, images):
        return images.flatten(1).to(self.matrix.dtype) @ self.matrix


@pytest.fixture
def sets():
    """Two sets of 300 and 260 images [N, 3, 4, 4] and their features."""
    random = torch.Generator().manual_seed(1)
    real = torch.randint(0, 256, (300, 3, 4, 4), generator=random, dtype=torch.uint8)
    fake = torch.randint(40, 200, (260, 3, 4, 4), generator=random, dtype=torch.uint8)
    return (real, fake), tuple(Projection()(x).numpy() for x in (real, fake))


def fed(metric, images):
    for real, x in zip((True, False), images, strict=True):
        for batch in x.split(50):
            metric.update(batch, real=real)
    return metric.compute()


def test_fid(sets):
    images, features = sets
    second = fed(torchmetrics.image.fid.FrechetInceptionDistance(Projection(), input_img_size=(3, 4, 4)).set_dtype(torch.float64), images)
    stats = [FeatureStats(len(x)) for x in features]
    for each, x in zip(stats, features, strict=True):
        each.add(x)
    ours = frechet_distance(*stats[0].mean_cov(), *stats[1].mean_cov())
    assert ours == pytest.approx(second.item(), rel=1e-5)


def test_kid_of_the_whole_sets(sets):
    """Subsets as large as the sets leave nothing to chance."""
    images, features = sets
    second = fed(torchmetrics.image.kid.KernelInceptionDistance(Projection(), subsets=2, subset_size=260), (images[0][:260], images[1]))
    ours = kernel_distance(features[0][:260], features[1], subset_size=260, num_subsets=2)
    assert ours[0] == pytest.approx(second[0].item(), rel=1e-4)


def test_inception_score(sets):
    """torchmetrics shuffles, so only one split is the same; logits in place of features."""
    images, features = sets
    metric = torchmetrics.image.inception.InceptionScore(Projection(), splits=1)
    metric.update(images[1])
    with warnings.catch_warnings(action='ignore'):  # of a standard deviation over one split
        second = float(metric.compute()[0])
    probs = torch.softmax(torch.from_numpy(features[1]), dim=1).numpy()
    assert inception_score(probs, 1)[0] == pytest.approx(second, rel=1e-5)
