"""Arguments of every op, by the name of what is special about them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from free import ops, reference
from free.reference.draft import DRAFTER
from tests.drafts import CHANGES, random_counters, random_draws, random_guesses, random_roll
from tests.rows import (
    random_asking,
    random_innovations,
    random_means,
    random_note,
    random_recycling,
    random_response,
)
from tests.windows import random_relaxation, random_window


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


def large() -> dict[str, Example]:
    """One of each op that has samples, above the size where threads start."""
    B, W, D = 40, 9, 3001
    window = random_window(B, W, (D,), delta=0.5, ragged=True)._asdict()
    relaxed = window | {"uncertainty": None, "spent": torch.rand(B).double(), "budget": 1.5}
    note = random_note(B, W, (D,))
    given = {
        "verify_window": window | {"verifier": "block"},
        "verify_window_relaxed": relaxed,
        "window_noise": random_draws(B, W, D)._asdict(),
        "first_guesses": random_guesses(B, W - 1, (D,))._asdict(),
        "roll_window_": random_roll(B, W - 1, (D,), "change")._asdict(),
        "target_means": random_means(B * W, (1, D), torch.float16, (1.5, None)),
        "drafter_rows": random_innovations(B * W, (D,), True, 7),
        "note_nonfinite_": note._replace(samples=torch.arange(B))._asdict(),
        "response_sums": random_response(B, W, (D,))._asdict(),
    }
    return {name: Example(name, arguments) for name, arguments in given.items()}


torch.manual_seed(0)

EXAMPLES = {
    "reflection": Example("verify_window", random_window(2, 4, (3, 5))._asdict()),
    "block": Example("verify_window", random_window(2, 1, (4,))._asdict() | {"verifier": "block"}),
    "relaxed": Example(
        "verify_window_relaxed", random_relaxation(2, 4, (3, 5), uncertainty=torch.rand(2, 3))
    ),
    "relaxed, discrepancy": Example("verify_window_relaxed", random_relaxation(2, 4, (3, 5))),
    "noise": Example("window_noise", random_draws(2, 3, 4)._asdict()),
    "noise, one row": Example("window_noise", random_draws(2, 1, 4, rounds=False)._asdict()),
    "guesses": Example("first_guesses", random_guesses(2, 3, (4, 5))._asdict()),
    "guesses, none": Example("first_guesses", random_guesses(2, 0, (4,), source=DRAFTER)._asdict()),
    "guesses, not rolled": Example(
        "first_guesses", random_guesses(2, 3, (4,), rolled=False)._asdict()
    ),
    **{
        f"roll, {change}": Example("roll_window_", random_roll(2, 3, (4, 5), change)._asdict())
        for change in CHANGES
    },
    "roll, none": Example("roll_window_", random_roll(2, 0, (4,))._asdict()),
    "means": Example("target_means", random_means(3, (4, 5), clip=None)),
    "means, guided": Example(
        "target_means", random_means(3, (4, 5), torch.float16, (1.5, 3), None)
    ),
    "means, clipped": Example("target_means", random_means(3, (4, 5), torch.bfloat16, (1.5, 3))),
    "note": Example("note_nonfinite_", random_note(3, 2, (4, 2))._asdict()),
    "note, no low": Example(
        "note_nonfinite_", random_note(3, 2, (4,), dtype=torch.float16, low=False)._asdict()
    ),
    "response": Example("response_sums", random_response(3, 4, (2, 3))._asdict()),
    "response, one row": Example("response_sums", random_response(3, 1, (2,))._asdict()),
    "advance": Example("advance_samples_", random_recycling(2, 4)),
    "advance, gaps": Example("advance_samples_", random_recycling(2, 4, entries=3) | {"stride": 4}),
    "asked": Example("network_rows", random_asking(2, 4, (3, 2))),
    "asked, listed": Example("network_rows", random_asking(2, 4, (3,), True, 7, True)),
    "asked, with means": Example("network_rows", random_asking(2, 4, (3,), means=True)),
    "told": Example("drafter_rows", random_innovations(3, (4, 2))),
    "told, guided": Example("drafter_rows", random_innovations(4, (5,), True, 7)),
    "normal": Example("philox_normal", random_counters(3, 5)),
    "uniform": Example("philox_uniform", random_counters(3, 5)),
}

#: One of each op, with all that it can be given.
_FULL = ["reflection", "relaxed", "noise", "guesses", "roll, change", "means, clipped"]
_FULL += ["note", "response", "advance, gaps", "asked, listed", "told, guided", "normal", "uniform"]
FULL = {EXAMPLES[key].name: EXAMPLES[key] for key in _FULL}
