"""Bytes to [-1, 1] and back."""

import pytest
import torch

from torch_utils.pixels import from_uint8, quantized, to_uint8


def test_every_byte_comes_back():
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    images = from_uint8(every)
    assert images.dtype == torch.float32 and images.min() == -1 and images.max() == 1
    assert torch.equal(quantized(images), every)


def test_values_are_rounded_and_clipped():
    images = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 1, 5)
    assert quantized(images).flatten().tolist() == [0, 0, 128, 255, 255]
    half = torch.linspace(-1, 1, 1000).reshape(1, 1, 10, 100).bfloat16()
    assert torch.equal(quantized(half), quantized(half.float()))  # sums in half precision would be two bytes apart


def test_files_have_channels_last():
    images = torch.linspace(-1, 1, 2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert to_uint8(images).shape == (2, 4, 5, 3)
    assert (to_uint8(images)[1, 2, 3] == quantized(images)[1, :, 2, 3].numpy()).all()


def test_what_has_another_range_is_refused():
    for convert, images in [(quantized, torch.zeros(1, 1, 2, 2, dtype=torch.uint8)), (to_uint8, torch.zeros(1, 1, 2, 2, dtype=torch.int64)),
                            (from_uint8, torch.zeros(1, 1, 2, 2)), (from_uint8, torch.zeros(1, 1, 2, 2, dtype=torch.int64))]:
        with pytest.raises(TypeError, match='these are torch'):
            convert(images)
