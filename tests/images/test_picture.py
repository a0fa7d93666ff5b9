"""Grids of samples."""

import numpy as np
import pytest
import torch

from free.images.picture import image_grid, to_uint8


def test_grid_shows_each_sample_at_its_place() -> None:
    samples = torch.tensor([-1.0, 0.0, 5.0]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    picture = np.asarray(image_grid([("title", samples)], ["a", "b", "c"], scale=2, columns=2))
    cell_width, cell_height = 8 + 8, 8 + 16 + 8
    for place, value in enumerate((0, 128, 255)):
        left, upper = 8 + place % 2 * cell_width, 8 + 24 + place // 2 * cell_height
        tile = picture[upper : upper + 8, left : left + 8]
        assert (tile == value).all()


def test_only_images_can_be_drawn() -> None:
    with pytest.raises(ValueError, match=r"samples must be \[B, 1 or 3, H, W\]"):
        image_grid([("", torch.zeros(1, 4, 2, 2))], ["a"])


def test_bytes_are_those_of_dits_script() -> None:
    """Truncated, not rounded: 0.00393 is 128.501 and stays 128; the ends are clipped."""
    values = [-7.0, -1.0, -0.9961, 0.0, 0.00393, 0.9999, 1.0, 1.5]
    images = torch.tensor(values).view(8, 1, 1, 1).repeat(1, 3, 1, 2)
    images[:, 2] = 0.5
    pixels = to_uint8(images)
    assert pixels.shape == (8, 1, 2, 3)
    assert pixels.dtype is torch.uint8
    assert pixels[:, 0, 1, 0].tolist() == [0, 0, 0, 128, 128, 255, 255, 255]
    assert (pixels[..., 2] == 191).all()  # 191.75
    assert to_uint8(images.to(torch.bfloat16)).shape == (8, 1, 2, 3)
