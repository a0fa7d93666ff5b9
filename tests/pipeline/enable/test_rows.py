"""How arguments of a network's call are read as rows, and written for others."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")

from free.pipeline.enable.rows import LatentsForm, Rows, leaves, packing_of, places

LATENTS = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).view(2, 3, 4, 5)
STATES = -torch.arange(4 * 3 * 4 * 5, dtype=torch.float32).view(4, 3, 4, 5)
OWNER = torch.tensor([0, 0, 0, 1])


def _twice(x: Tensor) -> Tensor:
    return torch.cat([x, x])


FORMS = {
    "as they are": lambda x: x,
    "guided, in one batch": _twice,
    "in half precision": lambda x: _twice(x).bfloat16(),
    "frames": lambda x: x.unsqueeze(2),
    "a list": lambda x: list(_twice(x).unsqueeze(2).unbind()),
}


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_what_becomes_of_latents_becomes_of_states(make: Any) -> None:
    form = LatentsForm.of(make(LATENTS), LATENTS)
    assert form is not None
    made, expected = form.make(STATES, make(LATENTS), 2, OWNER), make(STATES)
    assert type(made) is type(expected)
    assert all(torch.equal(row, other) for row, other in zip(made, expected, strict=True))
    assert form.holds(make(LATENTS), LATENTS)
    assert not form.holds(make(LATENTS), LATENTS + 1)


def test_channels_that_follow_the_latents_are_their_samples() -> None:
    mask = torch.randn(2, 2, 4, 5)
    argument = _twice(torch.cat([LATENTS, mask], dim=1))
    form = LatentsForm.of(argument, LATENTS)
    assert form is not None
    assert form.extended(LATENTS)
    made = form.make(STATES, argument, 2, OWNER)
    assert torch.equal(made, _twice(torch.cat([STATES, mask[OWNER]], dim=1)))


@pytest.mark.parametrize(
    "other",
    [
        LATENTS * 0.5,
        LATENTS.flip(0),
        LATENTS.repeat_interleave(2, 0),
        LATENTS.transpose(2, 3),
        LATENTS[:1],
        LATENTS.long(),
        [LATENTS[0], LATENTS[1, :, :2]],
        [],
        "latents",
        None,
    ],
)
def test_what_is_not_the_latents_is_none(other: Any) -> None:
    assert LatentsForm.of(other, LATENTS) is None


@dataclass
class Output(OrderedDict):  # type: ignore[type-arg]
    """As diffusers' outputs are: a dataclass, and a dict of what is not None."""

    sample: Any = None

    def __post_init__(self) -> None:
        self["sample"] = self.sample


def test_rows_are_taken_from_whatever_holds_them() -> None:
    rows = Rows(4, listed=False)
    x, other = torch.arange(8).view(4, 2), torch.arange(3)
    tree = {"a": (x, other), "b": [(1, 2)] * 3 + [(3, 4)], "c": None, "d": [x, x, x, x]}
    taken = rows.take(tree, torch.tensor([3, 0, 3]))
    assert torch.equal(taken["a"][0], x[[3, 0, 3]])
    assert taken["a"][1] is other
    assert taken["b"] == [(3, 4), (1, 2), (3, 4)]
    assert taken["c"] is None
    assert all(torch.equal(part, x[[3, 0, 3]]) for part in taken["d"])  # a container of tensors
    assert [path for path, _ in leaves(tree)][:2] == ["['a'][0]", "['a'][1]"]
    assert torch.equal(places(torch.tensor([1, 1, 0]), 2, 2), torch.tensor([1, 1, 0, 3, 3, 2]))


@pytest.mark.parametrize("listed", [False, True])
def test_a_row_is_put_behind_each_branch(listed: bool) -> None:
    x = torch.arange(6.0).view(6, 1)
    extra = torch.tensor([[-1.0], [-2.0]])
    output = Output(list(x) if listed else x)
    made = Rows(6, listed).append(output, 2, Output(list(extra) if listed else extra))
    values = torch.stack(made.sample) if listed else made.sample
    assert values.flatten().tolist() == [0, 1, 2, -1, 3, 4, 5, -2]
    assert made["sample"] is made.sample


def test_lists_are_packed_by_sample() -> None:
    owner = torch.tensor([0, 0, 2])
    packing = packing_of(owner, 3)
    assert packing.tolist() == [[0, 1, 3], [3, 3, 3], [2, 3, 3]]
    rows = [torch.full((2, 1), float(value)) for value in range(8)]  # 3 and 1, in two branches
    made = Rows(8, listed=True).pack(rows, 2, packing)
    assert [part[::2, 0].tolist() for part in made[:3]] == [[0, 1, 3], [3, 3, 3], [2, 3, 3]]
    assert [part[::2, 0].tolist() for part in made[3:]] == [[4, 5, 7], [7, 7, 7], [6, 7, 7]]
