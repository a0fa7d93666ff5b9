"""Grids of samples."""

import numpy as np
import pytest
import torch

from free.picture import image_grid


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
