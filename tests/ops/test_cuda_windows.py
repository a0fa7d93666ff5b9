"""The CUDA kernels that make a window, executed on the CPU, against the torch twins and the CPU's
kernels: window_noise, first_guesses and roll_window_.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from free import ops, reference
from tests import shim
from tests.drafts import (
    CHANGES,
    random_draws,
    random_guesses,
    random_roll,
    without_what_is_to_be_rolled,
)
from tests.shim import Kernels, same

pytestmark = pytest.mark.skipif(shim.compiler() is None, reason="needs g++")

#: Single elements, odd and ragged ends, whole and split quads, several blocks.
SIZES = [1, 3, 16, 255, 1028]
#: Other orders of threads, other alignments.
SETTINGS = ({"descending": True}, {"shift": 1}, {"shift": 2, "descending": True})


# --- window_noise --------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("batch", "width"), [(1, 1), (1, 2), (5, 4), (9, 8)])
def test_noise_agrees_with_twin_and_cpu(
    kernels: Kernels, batch: int, width: int, size: int, rounds: bool
) -> None:
    given = random_draws(batch, width, size, rounds)
    drawn = kernels.window_noise(*given)
    expected = ops.window_noise(*given)
    assert torch.equal(drawn.uniforms, expected.uniforms)
    same(drawn, expected, 1e-6)
    same(drawn, reference.window_noise(*given), 3e-6)
    for setting in SETTINGS:
        with kernels.on(**setting):
            same(kernels.window_noise(*given), drawn)


@pytest.mark.parametrize("length", [-(2**31), -1, 0, 5, 2**31 - 1])
def test_a_length_out_of_range_reaches_no_other_memory(kernels: Kernels, length: int) -> None:
    seeds, k, rounds, _, *rest = random_draws(3, 4, 10)
    lengths = torch.tensor([2, length, 3], dtype=torch.int32)
    given = (seeds, k, rounds, lengths, *rest)
    same(kernels.window_noise(*given), ops.window_noise(*given), 1e-6)


# --- first_guesses -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("drafts", [0, 1, 7])
@pytest.mark.parametrize("batch", [1, 9])
def test_guesses_agree_with_twin_and_cpu(
    kernels: Kernels, batch: int, drafts: int, size: int
) -> None:
    given = random_guesses(batch, drafts, (size,))
    made = kernels.first_guesses(*given)
    kept = without_what_is_to_be_rolled(made)
    same(kept, without_what_is_to_be_rolled(reference.first_guesses(*given)))
    same(kept, without_what_is_to_be_rolled(ops.first_guesses(*given)))
    for rows in made[:3]:
        assert bool((rows[:, 1:] == -77).all())
    for setting in SETTINGS:
        with kernels.on(**setting):
            same(kernels.first_guesses(*given), made)


@pytest.mark.parametrize("row", [-(2**63), -1, 11, 2**63 - 1])
def test_a_row_that_is_not_there_is_not_read(kernels: Kernels, row: int) -> None:
    """But the nearest one: what lies beyond is NaN."""
    given = random_guesses(2, 3, (4,))
    given.row[1, :3] = row
    nearest = given._replace(row=given.row.clamp(0, 10))
    made = without_what_is_to_be_rolled(kernels.first_guesses(*given))
    same(made, without_what_is_to_be_rolled(reference.first_guesses(*nearest)))


@pytest.mark.parametrize("k", [-(2**63), 2**63 - 1])
def test_a_transition_far_beyond_the_schedule(kernels: Kernels, k: int) -> None:
    given = random_guesses(1, 2, (4,))
    ends = kernels.first_guesses(*given._replace(k=torch.tensor([k])))
    near = reference.first_guesses(*given._replace(k=torch.tensor([-5 if k < 0 else 99])))
    same(without_what_is_to_be_rolled(ends), without_what_is_to_be_rolled(near))


# --- roll_window_ --------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("drafts", "span"), [(0, (0, 0)), (1, (0, 1)), (7, (0, 7)), (7, (2, 6)), (7, (3, 3))]
)
@pytest.mark.parametrize("batch", [1, 5])
def test_rolling_agrees_with_twin_and_cpu(
    kernels: Kernels,
    batch: int,
    drafts: int,
    span: tuple[int, int],
    size: int,
    changes: str | None,
) -> None:
    window = random_roll(batch, drafts, (size,), changes, span)
    rolled = window.by(kernels.roll_window_)
    same(rolled, window.by(reference.roll_window_))
    same(rolled, window.by(ops.roll_window_))
    for setting in SETTINGS:
        with kernels.on(**setting):
            same(window.by(kernels.roll_window_), rolled)


# --- planted bugs --------------------------------------------------------------------------------


def draws(kernels: Kernels) -> None:
    test_noise_agrees_with_twin_and_cpu(kernels, 9, 8, 16, True)


def guesses(kernels: Kernels) -> None:
    test_guesses_agree_with_twin_and_cpu(kernels, 9, 7, 16)


def finds_rows(kernels: Kernels) -> None:
    test_a_row_that_is_not_there_is_not_read(kernels, 11)


def rolls(kernels: Kernels) -> None:
    for changes in CHANGES:
        test_rolling_agrees_with_twin_and_cpu(kernels, 5, 7, (2, 6), 16, changes)


#: What is wrong, in which kernel or header of it, the text, what stands there instead, and the test
#: that sees it.
BUGS: dict[str, tuple[str, str | None, str, str, Callable[[Kernels], None]]] = {
    "one noise for the whole window": ("philox.cu", None, "d.k[b] + j)", "d.k[b])", draws),
    "the decisions' purpose": (
        "philox.cu",
        None,
        "{block, transition, round, d.purpose}",
        "{block, transition, round, d.decision}",
        draws,
    ),
    "the normals' purpose": ("philox.cu", None, "round, d.decision}", "round, d.purpose}", draws),
    "the last row of a full window": (
        "philox.cu",
        None,
        "length > d.width ? d.width : length) - 1",
        "d.width) - 1",
        draws,
    ),
    "the first round, always": ("philox.cu", None, "d.rounds == nullptr", "true", draws),
    "the mean of the transition to come": (
        "first_guesses.cu",
        None,
        "nearest(g.k[b], -1, g.steps)",
        "nearest(g.k[b], 0, g.steps)",
        guesses,
    ),
    "the largest response of the next": (
        "first_guesses.cu",
        None,
        "nearest(g.k[b], j, g.steps)",
        "nearest(g.k[b], i, g.steps)",
        guesses,
    ),
    "reads rows that are not there": (
        "first_guesses.cu",
        None,
        "nearest(g.row[b * g.stride + i], 0, g.rows)",
        "g.row[b * g.stride + i]",
        finds_rows,
    ),
    "responses below 0": (
        "first_guesses.cu",
        "free/guess.h",
        "measured < 0.0f ? 0.0f : measured",
        "measured",
        guesses,
    ),
    "responses of any size": (
        "first_guesses.cu",
        "free/guess.h",
        "response > largest || largest != largest ? largest : response",
        "response",
        guesses,
    ),
    "settles one too many": (
        "first_guesses.cu",
        "free/guess.h",
        "? 0 : known - 1",
        "? 0 : known",
        guesses,
    ),
    "keeps one too many": (
        "roll_window.cu",
        "free/roll.h",
        "transition < settled",
        "transition <= settled",
        rolls,
    ),
    "changes that do not add up": (
        "roll_window.cu",
        None,
        "state.v[i], guess.v[i])",
        "state.v[i], 0.0f)",
        rolls,
    ),
    "forgets the guess before the span": (
        "roll_window.cu",
        None,
        "said_of(r.first, settled, r.adds) == Said::kChange",
        "false",
        rolls,
    ),
    "the first transition's noise for all": (
        "roll_window.cu",
        None,
        "r.noise + step * r.size",
        "r.noise + b * (r.width - 1) * r.size",
        rolls,
    ),
    "starts with the window": (
        "roll_window.cu",
        None,
        "(b * r.width + r.first) * r.size",
        "b * r.width * r.size",
        rolls,
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(kernels: Kernels, bug: str, tmp_path: Path) -> None:
    kernel, header, old, new, check = BUGS[bug]
    check(kernels)
    broken = shim.build_with_bug(kernels, kernel, old, new, tmp_path, header)
    with pytest.raises(AssertionError):
        check(broken)
