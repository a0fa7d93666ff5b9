"""Numbers that ops are given beside tensors: integers, in range, or an error of one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from free import ops
from tests.drafts import random_guesses, random_roll

ONE, ROUND = torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.int32)


def noise(**changes: Any) -> None:
    given = {"width": 3, "size": 4, "purpose": 1, "decision": 2} | changes
    ops.window_noise(ONE, ONE, None, ROUND, **given)


def guesses(**changes: Any) -> None:
    given = random_guesses(2, 3, (4,))._asdict() | changes
    ops.first_guesses(**given)


def roll(**changes: Any) -> None:
    ops.roll_window_(**(random_roll(2, 3, (4,))._asdict() | changes))


def means(**changes: Any) -> None:
    x = torch.zeros(2, 3)
    ops.target_means(x, x.repeat(2, 1), x[:, 0].clone(), x[:, 0].clone(), 1.5, **changes)


def rows(**changes: Any) -> None:
    ops.recycled_rows(ROUND, ROUND, **({"width": 2, "discarded": True} | changes))


def note(**changes: Any) -> None:
    ops.note_nonfinite_(ONE.clone(), torch.zeros(2, 3), ONE, ONE, low=None, high=ONE, **changes)


def normal(**changes: Any) -> None:
    ops.philox_normal(ONE, ONE, ONE, **({"purpose": 1, "size": 3} | changes))


INTEGERS: list[tuple[Callable[..., None], str]] = [
    *((noise, name) for name in ("width", "size", "purpose", "decision")),
    (guesses, "drafts"),
    (roll, "first"),
    (roll, "end"),
    (means, "cfg_channels"),
    (rows, "width"),
    (rows, "stride"),
    (note, "first"),
    (normal, "purpose"),
    (normal, "size"),
]


@pytest.mark.parametrize(("call", "name"), INTEGERS)
def test_what_is_no_integer(call: Callable[..., None], name: str) -> None:
    for value, got in ((2.0, "float"), ("2", "str"), (True, "bool")):
        with pytest.raises(TypeError, match=f"^{name}: expected an integer, got {got}$"):
            call(**{name: value})


@pytest.mark.parametrize(("call", "name"), INTEGERS)
def test_integers_that_do_not_fit(call: Callable[..., None], name: str) -> None:
    for value in (-1, 2**63):
        with pytest.raises(ValueError, match=f"{name}.*: expected .*, got .*{value}"):
            call(**{name: value})
