"""The CUDA kernels that make a window, executed on the CPU, against the torch twins and the CPU's
kernels: window_noise, first_guesses and roll_window_.
"""

import pytest
import torch

from free import ops, reference
from free.reference.draft import DRAFTER, RESPONSE, REUSE
from tests.drafts import (
    CHANGES,
    random_draws,
    random_guesses,
    random_roll,
    written,
)
from tests.shim import NEEDS_COMPILER, Kernels, same

pytestmark = NEEDS_COMPILER

# Sizes below: single elements, odd and ragged ends, whole and split quads, several blocks.
#: Other orders of threads, other alignments.
SETTINGS = ({"descending": True}, {"shift": 1}, {"shift": 2, "descending": True})


# --- window_noise --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "width", "size", "rounds"),
    [
        (1, 1, 1, False),
        (1, 2, 3, True),
        (9, 8, 16, True),
        (5, 4, 255, False),
        (5, 4, 1028, True),
        (3, 4, 0, True),
    ],
)
def test_noise_agrees_with_twin_and_cpu(kernels, batch, width, size, rounds) -> None:
    given = random_draws(batch, width, size, rounds)
    drawn = kernels.window_noise(**given._asdict())
    expected = ops.window_noise(**given._asdict())
    assert torch.equal(drawn[1], expected.uniforms)
    same(drawn, expected, 1e-6)
    same(drawn, reference.window_noise(**given._asdict()), 3e-6)
    for setting in SETTINGS:
        with kernels.on(**setting):
            same(kernels.window_noise(**given._asdict()), drawn)


@pytest.mark.parametrize("width", [-(2**63), -1, 0, 5, 2**63 - 1])
def test_a_width_out_of_range_reaches_no_other_memory(kernels: Kernels, width: int) -> None:
    given = random_draws(3, 4, 10)._replace(widths=torch.tensor([2, width, 3]))
    same(kernels.window_noise(**given._asdict()), ops.window_noise(**given._asdict()), 1e-6)


@pytest.mark.parametrize("k", [-(2**63), -1, 0, 7, 9, 2**63 - 1])
def test_rows_end_with_the_schedule_wherever_a_window_begins(kernels: Kernels, k: int) -> None:
    given = random_draws(3, 4, 10)._replace(widths=None, steps=9)
    given.k[1] = k
    drawn = kernels.window_noise(**given._asdict())
    near = given._replace(k=given.k.clamp(0, 9))
    same(drawn[3:], reference.window_noise(**near._asdict())[3:])


# --- first_guesses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "drafts", "size", "source", "rolled"),
    [
        (1, 0, 1, RESPONSE, True),
        (9, 1, 3, REUSE, True),
        (9, 7, 16, RESPONSE, True),
        (9, 7, 16, DRAFTER, False),
        (1, 7, 255, REUSE, False),
        (5, 7, 255, RESPONSE, True),
        (9, 7, 1028, RESPONSE, True),
    ],
)
def test_guesses_agree_with_twin_and_cpu(kernels, batch, drafts, size, source, rolled) -> None:
    given = random_guesses(batch, drafts, (size,), source=source, rolled=rolled)._asdict()
    window = kernels.first_guesses(**given)
    kept = written(window, given["noise"])
    same(kept, written(reference.first_guesses(**given), given["noise"]), 1e-6)
    same(kept, written(ops.first_guesses(**given), given["noise"]))
    if not rolled:
        for rows, first in zip(window[:3], (1, 0, 1), strict=True):
            assert bool((rows[:, first:] == -77).all())
    for setting in SETTINGS:
        with kernels.on(**setting):
            same(kernels.first_guesses(**given), window)


@pytest.mark.parametrize("row", [-(2**63), -1, 11, 2**63 - 1])
def test_a_row_that_is_not_there_is_not_read(kernels: Kernels, row: int) -> None:
    """But the nearest one: what lies beyond is NaN."""
    given = random_guesses(2, 3, (4,))
    given.row[1, :3] = row
    nearest = given._replace(row=given.row.clamp(0, 10))
    same(kernels.first_guesses(**given._asdict()), reference.first_guesses(**nearest._asdict()))


@pytest.mark.parametrize("k", [-(2**63), 2**63 - 1])
def test_a_transition_far_beyond_the_schedule(kernels: Kernels, k: int) -> None:
    given = random_guesses(1, 2, (4,))
    nearest = given._replace(k=torch.tensor([-5 if k < 0 else 99]))
    ends = kernels.first_guesses(**given._replace(k=torch.tensor([k]))._asdict())
    same(ends, reference.first_guesses(**nearest._asdict()))


# --- roll_window_ --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "drafts", "span", "size"),
    [
        (1, 0, (0, 0), 1),
        (5, 1, (0, 1), 3),
        (5, 7, (2, 6), 16),
        (5, 7, (0, 7), 255),
        (1, 7, (3, 3), 16),
        (1, 7, (2, 6), 1028),
    ],
)
@pytest.mark.parametrize("changes", CHANGES)
def test_rolling_agrees_with_twin_and_cpu(kernels, batch, drafts, span, size, changes) -> None:
    window = random_roll(batch, drafts, (size,), changes, span)
    rolled = window.by(kernels.roll_window_)
    same(rolled, window.by(reference.roll_window_))
    same(rolled, window.by(ops.roll_window_))
    for setting in SETTINGS:
        with kernels.on(**setting):
            same(window.by(kernels.roll_window_), rolled)
