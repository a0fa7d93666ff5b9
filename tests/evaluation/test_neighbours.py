"""Precision and recall, block by block, beside all distances at once."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from free.evaluation.neighbours import coverage, neighbour_radii

SAMPLES, REFERENCE = torch.randn(53, 6) * 1.3 + 40, torch.randn(71, 6) + 40


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("free.evaluation.neighbours._ROWS", 16)
    monkeypatch.setattr("free.evaluation.neighbours._COLUMNS", 20)


def _all_at_once(samples: Tensor, reference: Tensor, k: int) -> tuple[list[bool], list[bool]]:
    """The definition, by scipy."""
    ours, theirs = samples.double().numpy(), reference.double().numpy()
    # Place 0 of each sorted row is the distance to itself.
    near, far = (np.sort(cdist(part, part), axis=1)[:, k] for part in (ours, theirs))
    distances = cdist(ours, theirs)
    return (distances <= far).any(1).tolist(), (distances <= near[:, None]).any(0).tolist()


@pytest.mark.parametrize("k", [1, 3, 52])
def test_it_is_the_definition(k: int) -> None:
    radii = neighbour_radii(SAMPLES, k), neighbour_radii(REFERENCE, k)
    inside, reached = coverage(SAMPLES, REFERENCE, *radii)
    wanted = _all_at_once(SAMPLES, REFERENCE, k)
    assert (inside.tolist(), reached.tolist()) == wanted


def test_copies_have_no_radius() -> None:
    copies = torch.cat([SAMPLES[:1].expand(4, -1), SAMPLES[4:]])
    assert (neighbour_radii(copies, 3)[:4] < 1e-9).all()
    for k in (0, 53):
        with pytest.raises(ValueError, match=f"neighbours must be from 1 to 52, .* got {k}"):
            neighbour_radii(SAMPLES, k)
