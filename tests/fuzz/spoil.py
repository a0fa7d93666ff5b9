"""Calls that do not fit: what a careless or hostile caller passes to the compiled core."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from free import ops
from free.ops import _C
from free.ops.contract import CONTRACTS
from tests.fuzz.draw import Case, draw


class Subclass(Tensor):
    """Nothing but another type."""


#: What is refused, and how; anything else that is raised is a fault.
REFUSALS = (TypeError, ValueError, RuntimeError)

#: No integer that is valid and large: it would ask for all memory.
JUNK = (None, True, "", "block", b"\0", 0, -1, 2**63 - 1, 2**63, -(2**63), 2**70, -(2**200), 0.5)
JUNK += (math.nan, -math.inf, 1j, [1.0], {}, object(), np.float32(1), np.int64(3), np.zeros(3))

DTYPES = [t for t in vars(torch).values() if isinstance(t, torch.dtype)]


def _misaligned(tensor: Tensor) -> Tensor:
    """The same values from an odd address."""
    memory = torch.empty(tensor.nbytes + 1, dtype=torch.uint8)
    memory[1:] = tensor.contiguous().view(-1).view(torch.uint8)
    return torch.frombuffer(memory.numpy(), dtype=tensor.dtype, offset=1).view(tensor.shape)


def _permuted(tensor: Tensor) -> Tensor:
    return tensor.permute(*reversed(range(tensor.dim())))


#: Other tensors that are made of one.
TENSORS: tuple[Callable[[Tensor], Any], ...] = (
    _misaligned,
    _permuted,
    lambda t: t[:0],
    lambda t: t[1:],
    lambda t: t[None],
    lambda t: t.flatten(),
    lambda t: torch.cat([t, t]),
    lambda t: torch.stack((t, t), -1)[..., 0],
    lambda t: t.flatten()[:1].expand(t.shape) if t.numel() else t,
    lambda t: torch.zeros((), dtype=t.dtype),
    lambda t: t.to("meta"),
    lambda t: t.to_sparse(),
    lambda t: t.as_subclass(Subclass),
    lambda t: torch.nn.Parameter(t, requires_grad=t.is_floating_point()),
    lambda t: torch.view_as_complex(torch.stack((t, t), -1)).imag,
    lambda t: t.numpy(),
    lambda t: t.tolist(),
)


def spoiled(rng: random.Random) -> Case:
    """Arguments of which some do not fit, or hold nonsense, or lie in each other's memory."""
    case = draw(rng)
    given = dict(case.given)
    for _ in range(rng.randint(1, 3)):
        key = rng.choice(list(given))
        value = given[key]
        others = [t for t in given.values() if isinstance(t, Tensor) and t is not value]
        way = rng.randrange(6)
        if way == 0:
            given.pop(key)
            if not given:
                break
        elif way == 1 or not isinstance(value, Tensor):
            given[rng.choice((key, key, key, "nothing"))] = rng.choice(JUNK)
        elif way == 2 and others:
            given[key] = rng.choice(others)
        elif way == 3 and value.dtype in (torch.int32, torch.int64):
            info = torch.iinfo(value.dtype)
            extreme = rng.choice((info.min, -1, 99, info.max))
            given[key] = _changed(value, torch.full_like, extreme)
        elif way == 4:
            given[key] = _changed(value, Tensor.to, rng.choice(DTYPES))
        else:
            given[key] = _changed(value, rng.choice(TENSORS))
    return case._replace(given=given)


def _changed(tensor: Tensor, change: Callable[..., Any], *options: Any) -> Any:
    """What is made of a tensor, or itself where there is no such thing of one like it."""
    try:
        return change(tensor, *options)
    except (*REFUSALS, IndexError):
        return tensor


def call(rng: random.Random, case: Case) -> None:
    """Call an op in one of the ways there are; raises what is no refusal."""
    number, given = CONTRACTS[case.name].number, case.given
    ways: tuple[Callable[[], Any], ...] = (
        lambda: getattr(ops, case.name)(**given),
        lambda: getattr(ops, case.name)(*given.values()),
        lambda: getattr(torch.ops.free, case.name)(*given.values()),
        lambda: _C.run(number, (), given, {}, rng.choice((None, 6))),
        lambda: _C.run(rng.choice((number, -1, 99, "0")), tuple(given.values()), {}, {}, None),
        lambda: _C.run(*rng.choice(((), (number,), (number, (), ()), (number, [], {}, None)))),
        lambda: _C.record(number, given, tuple(rng.choices([*given.values()], k=4))),
        lambda: _C.record(number, given, rng.choice((None, (), (None,), 3))),
        lambda: _C.check(number, tuple(given.values()), rng.random() < 0.5),
    )
    with suppress(*REFUSALS):
        rng.choice((*ways[:1] * 4, *ways))()
