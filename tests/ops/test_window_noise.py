"""window_noise row by row, against its twin, and with bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from free import reference
from free.ops import WindowNoise, window_noise
from free.rounds import noise as random
from free.rounds.noise import Purpose
from tests.drafts import random_draws

BOTH = pytest.mark.parametrize("draw", [window_noise, reference.window_noise])
NAMES = ("seeds", "k", "rounds", "length", "width", "size", "purpose", "decision")


def assert_rows(drawn: Any, given: tuple[Any, ...], tolerance: float) -> None:
    """Each number is that of its sample, transition, round and purpose, drawn by itself."""
    seeds, k, rounds, length, width, size, purpose, decision = given
    noise, uniforms, last = drawn
    assert noise.shape == (len(seeds), width - 1, size)
    assert uniforms.shape == (len(seeds), width - 1)
    assert last.shape == (len(seeds), size)
    for b, seed in enumerate(seeds.tolist()):
        at, again = int(k[b]), 0 if rounds is None else int(rounds[b])
        for j in range(width - 1):
            row = random.normal(seed, at + j, again, purpose, (size,))
            torch.testing.assert_close(noise[b, j], row[0], rtol=tolerance, atol=tolerance)
            assert uniforms[b, j] == random.uniform(seed, at + j, again, decision, ())
        end = min(max(int(length[b]), 1), width) - 1
        row = random.normal(seed, at + end, again, purpose, (size,))
        torch.testing.assert_close(last[b], row[0], rtol=tolerance, atol=tolerance)


# --- what is drawn -----------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize("size", [1, 3, 4, 5, 64, 130])
@pytest.mark.parametrize(("batch", "width"), [(1, 1), (1, 2), (3, 5)])
def test_rows_are_those_of_their_transitions(
    batch: int, width: int, size: int, rounds: bool
) -> None:
    given = random_draws(batch, width, size, rounds)
    drawn = window_noise(*given)
    assert_rows(drawn, given, 0.0)
    twin = WindowNoise(*reference.window_noise(*given))
    assert_rows(twin, given, 3e-6)
    assert torch.equal(drawn.uniforms, twin.uniforms)


@BOTH
def test_the_first_round_is_that_of_none(draw: Any) -> None:
    given = random_draws(4, 3, 6, rounds=False)
    zero = (*given[:2], torch.zeros(4, dtype=torch.int64), *given[3:])
    for one, other in zip(draw(*given), draw(*zero), strict=True):
        assert torch.equal(one, other)


@BOTH
def test_a_length_out_of_range_counts_as_the_nearest(draw: Any) -> None:
    seeds, k, *_ = random_draws(5, 4, 6)
    length = torch.tensor([-(2**31), 0, 1, 4, 2**31 - 1], dtype=torch.int32)
    noise, _, last = draw(seeds, k, None, length, 4, 6, Purpose.TRANSITION, Purpose.DECISION)
    assert torch.equal(last[:3], noise[:3, 0])
    beyond = draw(seeds, k + 3, None, length, 1, 6, Purpose.TRANSITION, Purpose.DECISION)[2]
    assert torch.equal(last[3:], beyond[3:])


@BOTH
def test_windows_that_overlap_share_their_numbers(draw: Any) -> None:
    """Of a transition, whatever window it is in."""
    seeds, k, *_ = random_draws(3, 8, 7)
    length = torch.full((3,), 8, dtype=torch.int32)
    words = (Purpose.TRANSITION, Purpose.DECISION)
    noise, uniforms, _ = draw(seeds, k, None, length, 8, 7, *words)
    later = draw(seeds, k + 2, None, length, 4, 7, *words)
    assert torch.equal(later[0], noise[:, 2:5])
    assert torch.equal(later[1], uniforms[:, 2:5])
    assert len(noise.unique()) == noise.numel()


def test_result_does_not_depend_on_the_batch() -> None:
    seeds, k, rounds, length, *rest = random_draws(6, 4, 9)
    together = window_noise(seeds, k, rounds, length, *rest)
    for b in range(6):
        alone = (t[b : b + 1] for t in (seeds, k, rounds, length))
        for one, rows in zip(window_noise(*alone, *rest), together, strict=True):
            assert torch.equal(one, rows[b : b + 1])


# --- torch integration -------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize("width", [1, 3])
def test_is_a_well_formed_custom_op(width: int, rounds: bool) -> None:
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    given = random_draws(2, width, 4, rounds)
    torch.library.opcheck(torch.ops.free.window_noise, given, test_utils=checks)


def test_no_sample() -> None:
    given = random_draws(1, 3, 4)
    none = (t[:0] if isinstance(t, Tensor) else t for t in given)
    assert [tuple(t.shape) for t in window_noise(*none)] == [(0, 2, 4), (0, 2), (0, 4)]


# --- bad input ---------------------------------------------------------------------------------


def call(**changes: Any) -> WindowNoise:
    return window_noise(**(dict(zip(NAMES, random_draws(2, 3, 4), strict=True)) | changes))


@pytest.mark.parametrize("name", ["seeds", "k", "rounds", "length"])
def test_no_tensor_wrong_dtype_shape_device_or_gaps(name: str) -> None:
    kind = torch.int32 if name == "length" else torch.int64
    with pytest.raises(TypeError, match=f"^{name}: expected a tensor, got list$"):
        call(**{name: [1]})
    with pytest.raises(TypeError, match=rf"^{name}: expected int(32|64), got float32$"):
        call(**{name: torch.zeros(2)})
    expected = r"\[B\], got \[2, 1\]$" if name == "seeds" else r"\[2\], got \[2, 1\]$"
    with pytest.raises(ValueError, match=rf"^{name}: expected shape " + expected):
        call(**{name: torch.zeros(2, 1, dtype=kind)})
    with pytest.raises(ValueError, match=f"^{name}: expected a contiguous tensor, got strides"):
        call(**{name: torch.zeros(4, dtype=kind)[::2]})
    if name != "seeds":
        with pytest.raises(ValueError, match=f"^{name}: expected a tensor on cpu, got one on meta"):
            call(**{name: torch.zeros(2, dtype=kind, device="meta")})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "^width: expected at least 1, got 0$"),
        ({"size": 0}, "^size: expected at least 1, got 0$"),
        ({"purpose": -1}, r"^purpose: expected a value in 0\.\.4294967295, got -1$"),
        ({"decision": 2**32}, r"^decision: expected a value in 0\.\.4294967295, got 4294967296$"),
    ],
)
def test_bad_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(**changes)
