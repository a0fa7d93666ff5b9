"""Which law to sample with so many steps: the best of those that were measured."""

from __future__ import annotations

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
#: From so many steps on, of a network that predicts the noise.
_BEST = ((0, DDPM), (100, Law(stochasticity=0.5, sde=True)))
#: Of a network that predicts flow matching's velocity.
_FLOW = Law("flow-sde")


def best_law(steps: int, prediction: str) -> Law:
    """By quality, then by the rounds that speculation takes (docs/bench.md has the figures).

    ``prediction`` is the network's, "epsilon" or "velocity".
    """
    if prediction == "velocity":
        return _FLOW
    return next(law for least, law in reversed(_BEST) if steps >= least)
