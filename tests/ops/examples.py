"""Arguments of every op, by the name of what is special about them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from free import ops, reference
from free.reference.draft import DRAFTER
from tests.drafts import CHANGES, random_draws, random_guesses, random_roll
from tests.rows import random_note, random_response
from tests.windows import random_window


class Example(NamedTuple):
    """An op, and arguments of it by name."""

    name: str
    given: dict[str, Any]

    def call(self, function: Any) -> tuple[Tensor, ...]:
        """Results of a function on copies, and what it leaves of tensors that it was given."""
        given = {k: v.clone() if isinstance(v, Tensor) else v for k, v in self.given.items()}
        results = function(**given)
        several = () if results is None else results
        several = (several,) if isinstance(several, Tensor) else tuple(several)
        return (*several, *(value for value in given.values() if isinstance(value, Tensor)))

    def by_op(self) -> tuple[Tensor, ...]:
        return self.call(getattr(ops, self.name))

    def by_twin(self) -> tuple[Tensor, ...]:
        return self.call(getattr(reference, self.name))


def _relaxed(uncertainty: bool) -> dict[str, Any]:
    window = random_window(2, 4, (3, 5))._asdict()
    spent = torch.full((2,), 0.1, dtype=torch.float64)
    unsure = torch.rand(2, 3) if uncertainty else None
    relaxation = {"rule": "allow", "strength": 0.5, "budget": 0.4}
    return window | {"uncertainty": unsure, "spent": spent} | relaxation


def _means(guided: bool, image: bool, dtype: torch.dtype) -> dict[str, Any]:
    given: dict[str, Any] = {"x": torch.randn(3, 4, 5), "a": torch.rand(3), "b": torch.rand(3)}
    given["eps"] = torch.randn(6 if guided else 3, 4, 5).to(dtype)
    if guided:
        given |= {"cfg_scale": 1.5, "cfg_channels": 3}
    if image:
        given |= {"signal": 0.5 + torch.rand(3), "noise": torch.rand(3)}
    return given


def _rows(stride: int | None) -> dict[str, Any]:
    length, advance = torch.tensor([[4, 3], [2, 3]], dtype=torch.int32).unbind(0)
    given = {"length": length.clone(), "advance": advance.clone(), "width": 4, "discarded": True}
    return given | {"stride": stride}


def _draws() -> dict[str, Any]:
    seeds, transition, round_ = torch.randint(0, 2**32, (3, 3)).unbind(0)
    columns = {"seeds": seeds, "transition": transition, "round": round_}
    return {k: v.clone() for k, v in columns.items()} | {"purpose": 1, "size": 5}


def large() -> dict[str, Example]:
    """One of each op that has samples, above the size where threads start."""
    B, W, D = 40, 9, 3001
    window = random_window(B, W, (D,), delta=0.5, ragged=True)._asdict()
    spent = torch.rand(B, dtype=torch.float64)
    relaxed = window | {"uncertainty": None, "spent": spent, "budget": 1.5}
    rows = torch.rand(4, B * W).unbind(0)
    means = dict(zip(("a", "b", "signal", "noise"), (row.clone() for row in rows), strict=True))
    means |= {"x": torch.randn(B * W, 1, D), "eps": torch.randn(2 * B * W, 1, D).half()}
    note = random_note(B, W, (D,))
    given = {
        "verify_window": window | {"verifier": "block"},
        "verify_window_relaxed": relaxed,
        "window_noise": random_draws(B, W, D)._asdict(),
        "first_guesses": random_guesses(B, W - 1, (D,))._asdict(),
        "roll_window_": random_roll(B, W - 1, (D,), "adds")._asdict(),
        "target_means": means | {"cfg_scale": 1.5},
        "note_nonfinite_": note._replace(samples=torch.arange(B))._asdict(),
        "response_sums": random_response(B, W, (D,))._asdict(),
    }
    return {name: Example(name, arguments) for name, arguments in given.items()}


torch.manual_seed(0)

EXAMPLES = {
    "reflection": Example("verify_window", random_window(2, 4, (3, 5))._asdict()),
    "block": Example("verify_window", random_window(2, 1, (4,))._asdict() | {"verifier": "block"}),
    "relaxed": Example("verify_window_relaxed", _relaxed(True)),
    "relaxed, discrepancy": Example("verify_window_relaxed", _relaxed(False)),
    "noise": Example("window_noise", random_draws(2, 3, 4)._asdict()),
    "noise, one row": Example("window_noise", random_draws(2, 1, 4, rounds=False)._asdict()),
    "guesses": Example("first_guesses", random_guesses(2, 3, (4, 5))._asdict()),
    "guesses, none": Example("first_guesses", random_guesses(2, 0, (4,), source=DRAFTER)._asdict()),
    **{
        f"roll, {change}": Example("roll_window_", random_roll(2, 3, (4, 5), change)._asdict())
        for change in CHANGES
    },
    "roll, none": Example("roll_window_", random_roll(2, 0, (4,))._asdict()),
    "means": Example("target_means", _means(False, False, torch.float32)),
    "means, guided": Example("target_means", _means(True, False, torch.float16)),
    "means, image": Example("target_means", _means(True, True, torch.bfloat16)),
    "note": Example("note_nonfinite_", random_note(3, 2, (4, 2))._asdict()),
    "note, no low": Example(
        "note_nonfinite_", random_note(3, 2, (4,), dtype=torch.float16, low=False)._asdict()
    ),
    "response": Example("response_sums", random_response(3, 4, (2, 3))._asdict()),
    "response, one row": Example("response_sums", random_response(3, 1, (2,))._asdict()),
    "rows": Example("recycled_rows", _rows(None)),
    "rows, gaps": Example("recycled_rows", _rows(4)),
    "normal": Example("philox_normal", _draws()),
    "uniform": Example("philox_uniform", _draws()),
}

#: One of each op, with all that it can be given.
FULL = {
    EXAMPLES[key].name: EXAMPLES[key]
    for key in (
        "reflection",
        "relaxed",
        "noise",
        "guesses",
        "roll, adds",
        "means, image",
        "note",
        "response",
        "rows, gaps",
        "normal",
        "uniform",
    )
}
