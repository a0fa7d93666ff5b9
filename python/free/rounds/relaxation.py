"""Accepting more where the teacher is unsure, and what that costs the law.

A draft with log ratio ``r < 0`` is kept with probability ``a = exp(r)``; relaxed, with
``a' = exp(r')``, where ``r <= r' <= 0`` is the closer to 0 the less sure the teacher is. The sum of
``a' - a`` over the drafts that a sample examines is known when the decisions are made, and its mean
bounds the total-variation distance to the exact law; so is the likelihood ratio of what was drawn,
and its mean tells the distance itself, of whole trajectories (docs/relaxation.md).

The paper's own rule is in its main text, of which only the abstract was at hand. The rules here are
one small function each: ``RULES`` in :mod:`free.reference.decide`, and ``free/relaxation.h``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from free.arguments import as_number
from free.models.output import require_finite
from free.ops import verify_window_relaxed
from free.reference.decide import RULES
from free.rounds.state import Window
from free.rounds.target import Answer
from free.schedule.schedule import Schedule
from free.schedule.table import Table

#: Where an uncertainty comes from, by name; a table is given as itself.
UNCERTAINTIES = ("discrepancy", "learned_variance")


@dataclass(frozen=True)
class Relaxation:
    """How far a draft may be from the teacher's law, by how unsure the teacher is.

    Parameters
    ----------
    rule : {"temper", "allow"}
        ``r' = r / (1 + strength * u)``, or ``r' = min(0, r + strength * u)``. A draft that the
        target prefers, ``r >= 0``, is kept by either, as it is without.
    strength : float
        Finite and >= 0; 0 relaxes nothing. What 1 means depends on ``uncertainty``, see below.
    tv_budget : float or None
        In [0, 1]: no sample's sum of ``a' - a`` passes it; a draft that would make it do so is
        judged by the exact ratio. The law of a sample is then within this total variation of the
        exact one. 0 is the exact sampler, bit for bit; None sets no limit.
    uncertainty : {"discrepancy", "learned_variance"} or sequence of float, length N
        ``u`` of a transition. Negative ones count as 0: where the teacher is surer than the
        schedule, drafts are judged exactly.

        ``"discrepancy"`` is ``|m_hat - m| / sigma``, how far drafter and teacher are apart; any
        teacher will do. It is the standard deviation of ``r``: ``allow`` forgives ``strength`` of
        them.

        ``"learned_variance"`` is ``log(sigma_theta^2 / beta~)``, the teacher's own variance over
        the posterior's, averaged over the sample. ``temper`` at strength 1 judges, to first order
        in ``u``, as if the transition had the teacher's own variance.

        A table has one entry for each transition of the schedule, such as a learned variance that
        was averaged beforehand.

    Raises
    ------
    TypeError, ValueError
        If a number is none, or an argument is out of its range.
    """

    rule: str = "allow"
    strength: float = 1.0
    tv_budget: float | None = None
    uncertainty: str | Sequence[float] = "discrepancy"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(
                f"rule must be one of {', '.join(map(repr, RULES))}, got {self.rule!r}"
            )
        as_number(self.strength, "strength must be finite and >= 0", 0.0)
        if self.tv_budget is not None:
            as_number(self.tv_budget, "tv_budget must be in [0, 1] or None", 0.0, 1.0)
        if not isinstance(self.uncertainty, str):
            object.__setattr__(self, "uncertainty", _table(self.uncertainty))
        elif self.uncertainty not in UNCERTAINTIES:
            raise ValueError(
                f"uncertainty must be one of {', '.join(map(repr, UNCERTAINTIES))} or a table, "
                f"got {self.uncertainty!r}"
            )

    def by_step(self, schedule: Schedule, device: torch.device) -> Tensor | None:
        """What ``u`` takes from the schedule, [N] float32: the table, or ``log(beta / beta~)``, by
        which the teacher scales its variance; None for the discrepancy.
        """
        if self.uncertainty == "discrepancy":
            return None
        if isinstance(self.uncertainty, str):
            noise = 1.0 - schedule.signal**2
            span = np.zeros(len(schedule))  # the last transition is not drafted
            span[:-1] = np.log(noise[:-1] / noise[1:])
            return torch.tensor(span, dtype=torch.float32, device=device)
        return torch.tensor(self.uncertainty, dtype=torch.float32, device=device)


def check_relaxation(relaxation: Relaxation | None, schedule: Schedule, verifier: str) -> None:
    """Raise unless ``relaxation`` is None, or relaxes ``verifier`` over ``schedule``.

    TypeError if it is something else; ValueError for another verifier than reflection, a table of
    another length, or a learned variance where the schedule says nothing of the posterior's.
    """
    if relaxation is None:
        return
    if not isinstance(relaxation, Relaxation):
        raise TypeError(f"relaxation must be a Relaxation or None, got {relaxation!r}")
    if verifier != "reflection":
        raise ValueError(
            "relaxation must be None unless verifier is 'reflection', whose decisions are about "
            f"one draft each; got verifier {verifier!r}"
        )
    table = relaxation.uncertainty
    if not isinstance(table, str) and len(table) != len(schedule):
        raise ValueError(
            f"uncertainty must have one entry per transition ({len(schedule)}), got {len(table)}"
        )
    preserved = np.square(schedule.signal) + np.square(schedule.noise)
    image = Table.of(schedule, "cpu").images and np.allclose(preserved[:-1], 1.0)
    if isinstance(table, str) and table == "learned_variance" and not image:
        raise ValueError(
            "schedule must be variance-preserving for uncertainty 'learned_variance', which is "
            "relative to its posterior variance"
        )


class Spending:
    """A relaxation at work: what it has done to each of a run's B ``samples``.

    ``spent [B]``, float64, sums up ``a' - a`` over a sample's examined drafts, of finished samples
    too; ``log_likelihood [B]``, float64, is the log of the density of a sample's trajectory,
    relaxed over exact.
    """

    def __init__(
        self, relaxation: Relaxation, schedule: Schedule, samples: int, device: torch.device
    ) -> None:
        self.relaxation = relaxation
        self.spent = torch.zeros(samples, dtype=torch.float64, device=device)
        self.log_likelihood = torch.zeros_like(self.spent)
        self._by_step = relaxation.by_step(schedule, device)

    def clear(self) -> None:
        """Nothing has been spent yet."""
        self.spent.zero_()
        self.log_likelihood.zero_()

    def verify(
        self, window: Window, answer: Answer, means: Tensor, sigma: Tensor, samples: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``state``, ``advance``, ``accepted`` of a window as of :func:`free.ops.verify_window`.

        ``means [B, W, ...]`` are the target's, ``samples [B]`` says which of the run these are.
        Raises ValueError if the learned variance is asked for and there is none, FloatingPointError
        if it is not finite (naming the step and the samples).
        """
        budget, draft = self.relaxation.tv_budget, window.draft
        state, advance, accepted, _, bound, log_likelihood = verify_window_relaxed(
            draft.states,
            draft.means,
            target_means=means,
            sigma=sigma,
            length=window.length,
            uniforms=window.uniforms,
            noise=window.noise,
            uncertainty=self._uncertainty(window, answer.output.variance, samples),
            spent=self.spent[samples],
            rule=self.relaxation.rule,
            strength=float(self.relaxation.strength),
            budget=math.inf if budget is None else float(budget),
        )
        self.spent[samples] = bound
        self.log_likelihood[samples] += log_likelihood
        return state, advance, accepted

    def _uncertainty(
        self, window: Window, variance: Tensor | None, samples: Tensor
    ) -> Tensor | None:
        """``u`` of each draft, [B, W - 1]: of the state that its transition starts from. That state
        was there before the transition's noise and uniform, and so was what the teacher said of it.
        """
        if self._by_step is None:
            return None
        k = window.rows.take(window.draft.k)
        u = self._by_step[k]
        if self.relaxation.uncertainty == "learned_variance":
            if variance is None:
                raise ValueError(
                    "relaxation must not be by 'learned_variance' for a teacher without one: "
                    "its TeacherOutput has variance None"
                )
            # As the teacher has it: log-variance runs from the posterior's at -1 to beta's at 1.
            share = (variance.float().flatten(1).mean(1) + 1.0) / 2.0
            require_finite(share[:, None], "teacher", k, window.rows.each(samples), "variance")
            u = u * share
        return window.rows.windows(u, *window.draft.k.shape)[:, :-1].contiguous()


def _table(values: Sequence[float]) -> tuple[float, ...]:
    try:
        table = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"uncertainty must be a name or a vector, got {values!r}") from error
    if table.ndim != 1:
        raise ValueError(f"uncertainty must be a vector, got shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError(f"uncertainty must be finite, got {table[~np.isfinite(table)][0]}")
    return tuple(table.tolist())
