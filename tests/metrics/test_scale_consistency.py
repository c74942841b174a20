"""PSNR and SSIM by hand, and generators that do and do not stay themselves."""

import pytest
import torch
import torch.nn.functional as F
import torchmetrics.functional.image

from metrics import scale_consistency
from metrics.scale_consistency import compare, psnr, ssim, summary


def test_psnr_by_hand():
    a = torch.zeros(1, 1, 4, 4)
    assert psnr(a, a + 0.2).item() == pytest.approx(20)  # the range is 2, the error a tenth of it
    assert psnr(a, a).item() == scale_consistency.LARGEST_PSNR


def test_ssim_by_a_second_source():
    a = F.avg_pool2d(torch.rand(2, 3, 64, 64), 2) * 2 - 1
    b = (a + 0.3 * torch.randn(a.shape)).clamp(-1, 1)
    _mean, second = torchmetrics.functional.image.structural_similarity_index_measure(a, b, data_range=2.0, reduction='none',
                                                                                      return_full_image=True)
    inner = second[:, :, 5:-5, 5:-5].mean(dim=(1, 2, 3))  # it pads the borders, ours leaves them out
    assert ssim(a, b).tolist() == pytest.approx(inner.tolist(), abs=1e-4)
    inner = ssim(a, a)
    assert inner.tolist() == pytest.approx([1, 1]) and ssim(a, b)[0] < 0.9
    flat = torch.full((1, 1, 16, 16), 0.5)
    c1 = 0.02 ** 2
    assert ssim(flat, flat * 0.5).item() == pytest.approx((2 * 0.125 + c1) / (0.25 + 0.0625 + c1), rel=1e-4)


def test_a_consistent_generator_scores_the_most():
    double = torch.rand(3, 3, 64, 64) * 2 - 1
    own = F.avg_pool2d(double, 2)
    figures = compare(own, double, F.avg_pool2d(own, 2))
    assert figures.shape == (3, 4) and summary(figures.numpy()) == pytest.approx([100, 1, 100, 1], rel=1e-5)
    moved = summary(compare(own, double.roll(2, dims=3), F.avg_pool2d(own, 2)).numpy())
    assert moved[0] < 15 and moved[1] < 0.5 and moved[2:] == pytest.approx([100, 1], rel=1e-5)
