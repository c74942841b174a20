"""Where the trained image lies in a window, and windows on the way."""

import pytest

from inr.analysis.zoom import path, trained_box


def test_box_of_the_trained_image():
    assert trained_box((0, 0, 1, 1), 64, 32) == (0, 0, 64, 32)
    assert trained_box((-0.5, -0.5, 1.5, 1.5), 64, 64) == (16, 16, 48, 48)
    assert trained_box((0.25, 0.25, 0.75, 0.75), 64, 64) == (-32, -32, 96, 96)


def test_a_zoom_goes_there_and_back_at_a_steady_rate():
    windows = path((0, 0, 1, 1), (-0.5, -0.5, 1.5, 1.5), 8)
    widths = [window[2] - window[0] for window in windows]
    assert windows[0] == (0, 0, 1, 1) and windows[4] == pytest.approx((-0.5, -0.5, 1.5, 1.5)) and len(windows) == 8
    assert [b / a for a, b in zip(widths[:4], widths[1:5], strict=True)] == pytest.approx([2**0.25] * 4)
    assert widths[5:] == pytest.approx(widths[3:0:-1])
    assert path((0, 0, 1, 1), (0.5, 0, 1.5, 1), 4)[1] == pytest.approx((0.25, 0, 1.25, 1))
