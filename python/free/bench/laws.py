"""Which law to sample with so many steps: the best of those that were measured."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple


class Law(NamedTuple):
    """A law in the words of the command line, as ``free sample`` takes them."""

    law: str | None = None
    stochasticity: float | None = None
    sde: bool = False

    @property
    def label(self) -> str:
        """What tables call it."""
        if self.law is not None:
            given = "" if self.stochasticity is None else f", {self.stochasticity:g}"
            return self.law + given
        amount = 1.0 if self.stochasticity is None else self.stochasticity
        if self.sde:
            return f"SDE, {amount:g}"
        return "DDPM" if amount == 1.0 else f"DDIM, eta {amount:g}"


DDPM = Law()
#: Of a network that predicts the noise, in fewer steps than :data:`_MANY`; diffusers' scheduler.
_FEW = Law("sde-dpmsolver++")
_MANY = 100
#: Of a network that predicts flow matching's velocity.
_FLOW = Law("flow-sde")


def best_law(steps: int, prediction: str) -> Law:
    """The law of the best images in so many steps, then of the fewest rounds (docs/bench.md).

    ``prediction`` is the network's, "epsilon" or "velocity". Without diffusers it is DDPM for the
    first of them, whatever the number of steps.
    """
    if prediction == "velocity":
        return _FLOW
    few = steps < _MANY and importlib.util.find_spec("diffusers") is not None
    return _FEW if few else DDPM
