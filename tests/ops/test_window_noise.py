"""window_noise row by row, and against its twin."""

from typing import Any

import pytest
import torch

from free import reference
from free.ops import window_noise
from free.rounds import noise as random
from tests.drafts import Draws, random_draws

BOTH = pytest.mark.parametrize("draw", [window_noise, reference.window_noise])


def assert_rows(drawn: Any, given: Draws, tolerance: float) -> None:
    """Each number is that of its sample, transition, round and purpose, drawn by itself."""
    seeds, k, rounds, widths, like, width, purpose, decision = given
    noise, uniforms, last, length = drawn
    size = like.shape[1]
    assert noise.shape == (len(seeds), width - 1, size)
    assert uniforms.shape == (len(seeds), width - 1)
    assert last.shape == (len(seeds), size)
    assert length.tolist() == widths.clamp(1, width).tolist()
    for b, seed in enumerate(seeds.tolist()):
        at, again = int(k[b]), 0 if rounds is None else int(rounds[b])
        for j in range(width - 1):
            row = random.normal(seed, at + j, again, purpose, (size,))
            torch.testing.assert_close(noise[b, j], row[0], rtol=tolerance, atol=tolerance)
            assert uniforms[b, j] == random.uniform(seed, at + j, again, decision, ())
        end = int(length[b]) - 1
        row = random.normal(seed, at + end, again, purpose, (size,))
        torch.testing.assert_close(last[b], row[0], rtol=tolerance, atol=tolerance)


# --- what is drawn -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "width", "size", "rounds"),
    [
        (1, 1, 1, False),
        (1, 2, 3, True),
        (3, 5, 4, False),
        (3, 5, 5, True),
        (3, 5, 64, True),
        (1, 2, 130, False),
    ],
)
def test_rows_are_those_of_their_transitions(batch, width, size, rounds) -> None:
    given = random_draws(batch, width, size, rounds)
    drawn = window_noise(**given._asdict())
    assert_rows(drawn, given, 0.0)
    twin = reference.window_noise(**given._asdict())
    assert_rows(twin, given, 3e-6)
    assert torch.equal(drawn.uniforms, twin.uniforms)


@BOTH
def test_the_first_round_is_that_of_none(draw: Any) -> None:
    given = random_draws(4, 3, 6, rounds=False)
    zero = given._replace(rounds=torch.zeros(4, dtype=torch.int64))
    for one, other in zip(draw(**given._asdict()), draw(**zero._asdict()), strict=True):
        assert torch.equal(one, other)


@BOTH
def test_a_width_out_of_range_counts_as_the_nearest(draw: Any) -> None:
    widths = torch.tensor([-(2**63), 0, 1, 4, 2**63 - 1])
    given = random_draws(5, 4, 6)._replace(widths=widths)
    noise, _, last, length = draw(**given._asdict())
    assert length.tolist() == [1, 1, 1, 4, 4]
    assert torch.equal(last[:3], noise[:3, 0])
    beyond = draw(**given._replace(k=given.k + 3, width=1)._asdict())[2]
    assert torch.equal(last[3:], beyond[3:])


@BOTH
def test_windows_that_overlap_share_their_numbers(draw: Any) -> None:
    """Of a transition, whatever window it is in."""
    given = random_draws(3, 8, 7)
    noise, uniforms, *_ = draw(**given._asdict())
    later = draw(**given._replace(k=given.k + 2, width=4)._asdict())
    assert torch.equal(later[0], noise[:, 2:5])
    assert torch.equal(later[1], uniforms[:, 2:5])
    assert len(noise.unique()) == noise.numel()


def test_no_sample() -> None:
    given = random_draws(1, 3, 4)
    none = {k: t[:0] if isinstance(t, torch.Tensor) else t for k, t in given._asdict().items()}
    assert [tuple(t.shape) for t in window_noise(**none)] == [(0, 2, 4), (0, 2), (0, 4), (0,)]


@pytest.mark.parametrize(
    ("name", "value", "most"),
    [("k", -1, 2**32 - 3), ("k", 2**32 - 2, 2**32 - 3), ("rounds", 2**32, 2**32 - 1)],
)
def test_counters_out_of_range(name: str, value: int, most: int) -> None:
    given = random_draws(2, 3, 4)._asdict()
    given[name] = torch.tensor([0, value])
    expected = rf"^{name}: expected values in 0\.\.{most}, got {value} for sample 1$"
    with pytest.raises(ValueError, match=expected):
        window_noise(**given)
