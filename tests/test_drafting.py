"""Drafting by autoregression, and the rule that makes it exact."""

import pytest
import torch

from free import Schedule
from free.drafters import DraftingBatch
from free.drafting import draft_window
from free.schedule import Table
from tests.networks import CallableDrafter, Carry, MixtureTeacher

TABLE = Table.of(Schedule.ddpm(20), "cpu")
K = torch.tensor([0, 4, 17])
Y = torch.tensor([0, 1, 2])


def _drafter() -> CallableDrafter:
    drafter = CallableDrafter(MixtureTeacher(3), strength=0.9)
    drafter.begin(DraftingBatch(TABLE, None))
    return drafter


def _draft(noise: torch.Tensor, length: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1, 1, 9).view(3, 3)
    carry = Carry(K - 1)
    lengths = torch.tensor(length, dtype=torch.int32)
    return draft_window(_drafter().predict, TABLE, x, K, Y, carry, noise, lengths)


def test_window_is_the_drafters_own_trajectory() -> None:
    noise = torch.randn(3, 2, 3)
    states, means = _draft(noise, [3, 3, 3])
    assert states.shape == (3, 3, 3)
    assert means.shape == (3, 2, 3)
    drafter = _drafter()
    for j in range(2):
        eps, _ = drafter.predict(states[:, j], K + j, Y, Carry(K + j - 1))
        torch.testing.assert_close(means[:, j], TABLE.mean(K + j, states[:, j], eps))
        expected = means[:, j] + TABLE.sigma[K + j, None] * noise[:, j]
        torch.testing.assert_close(states[:, j + 1], expected)


def test_a_mean_never_sees_its_own_or_later_noise() -> None:
    noise = torch.randn(3, 3, 3)
    _, means = _draft(noise, [4, 4, 3])
    for j in range(3):
        other = noise.clone()
        other[:, j:] = torch.randn(3, 3 - j, 3)
        _, changed = _draft(other, [4, 4, 3])
        torch.testing.assert_close(changed[:2, : j + 1], means[:2, : j + 1], rtol=0, atol=0)
        if j < 2:
            assert (changed[:2, j + 1] - means[:2, j + 1]).abs().max() > 1e-3


def test_lengths_change_nothing_within_them() -> None:
    """A sample near its end drafts less; what it does draft is the same."""
    noise = torch.randn(3, 3, 3)
    states, means = _draft(noise, [4, 4, 3])
    shorter_states, shorter_means = _draft(noise, [1, 4, 2])
    for sample, rows in enumerate([1, 4, 2]):
        torch.testing.assert_close(shorter_states[sample, :rows], states[sample, :rows])
        torch.testing.assert_close(shorter_means[sample, : rows - 1], means[sample, : rows - 1])


def test_one_row_needs_no_drafter() -> None:
    x = torch.randn(3, 3)
    lengths = torch.ones(3, dtype=torch.int32)
    states, means = draft_window(
        lambda *_: pytest.fail("called"), TABLE, x, K, Y, None, torch.empty(3, 0, 3), lengths
    )
    torch.testing.assert_close(states, x[:, None])
    assert means.shape == (3, 0, 3)


def test_tuple_carries_follow_their_rows() -> None:
    seen = []

    def predict(x, k, y, carry):
        seen.append((y.tolist(), carry[0].tolist(), carry[1]))
        return torch.zeros_like(x), carry

    carry = (torch.tensor([10, 20, 30]), None)
    lengths = torch.tensor([2, 1, 3], dtype=torch.int32)
    draft_window(predict, TABLE, torch.zeros(3, 2), K, Y, carry, torch.zeros(3, 2, 2), lengths)
    assert seen == [([0, 2], [10, 30], None), ([2], [30], None)]


def test_non_finite_drafts_are_refused() -> None:
    def predict(x, k, y, carry):
        eps = torch.zeros_like(x)
        eps[1] = torch.nan
        return eps, carry

    lengths = torch.full((3,), 2, dtype=torch.int32)
    with pytest.raises(
        FloatingPointError,
        match=r"drafter returned a non-finite eps at step \[4\] for sample \[1\]",
    ):
        draft_window(predict, TABLE, torch.zeros(3, 2), K, Y, None, torch.zeros(3, 1, 2), lengths)


def test_a_draft_of_another_shape_is_refused() -> None:
    lengths = torch.full((3,), 2, dtype=torch.int32)
    arguments = (TABLE, torch.zeros(3, 2), K, Y, None, torch.zeros(3, 1, 2), lengths)
    with pytest.raises(
        ValueError, match=r"drafter must return an eps of shape \[3, 2\], got \[1, 2\]"
    ):
        draft_window(lambda x, k, y, carry: (x[:1], carry), *arguments)


def test_other_carries_are_refused() -> None:
    lengths = torch.tensor([2, 1, 2], dtype=torch.int32)
    arguments = (TABLE, torch.zeros(3, 2), K, Y, {"a": K}, torch.zeros(3, 1, 2), lengths)
    with pytest.raises(
        TypeError, match="carry must be a tensor, a tuple of tensors or None, got dict"
    ):
        draft_window(lambda x, k, y, carry: (x, carry), *arguments)
