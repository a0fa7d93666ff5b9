"""Whole runs with every transition they made, and the tests that these must pass.

A transition's innovation is ``r = (x' - m(x)) / sigma`` with the teacher's mean ``m``. In a run of
the plain sampler the innovations are independent N(0, I), whatever the teacher; so a speculative
run has the right law if, and only if, its innovations are. They say more than the samples do: a
run of 12 steps is eleven draws of a known law, and what is wrong with one transition is not
blurred by the later ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

import free.rounds.round
from free import Report, SpeculativeSampler
from free.rounds.report import Recorder
from tests.law.stats import correlation_p, ks_normal, ks_two_sample

DIRECTIONS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, -0.6]])


class Run(NamedTuple):
    """Attributes are the samples [B, D], and for each transition with noise [B, N - 1, D] its
    innovation and the state it started from.
    """

    samples: Tensor
    innovations: Tensor
    states: Tensor
    report: Report

    @property
    def acceptance(self) -> float:
        return self.report.accepted / sum(self.report.examined_by_step)


def run(sampler: SpeculativeSampler, labels: Tensor, seed: int) -> Run:
    """``sampler.sample`` under observation; what is monkeypatched in ``free.rounds`` stays so."""
    dim = sampler.teacher.sample_shape[0]  # type: ignore[attr-defined]
    made = torch.full((2, len(labels), len(sampler.schedule), dim), torch.nan)
    verify_window, step = free.rounds.round.verify_window, free.rounds.round.plain_step
    count = Recorder.round
    seen: list[Tensor] = []

    def verify(*arguments: Any) -> Any:
        states, _, means, sigma, *_ = arguments
        out = verify_window(*arguments)
        after = torch.cat([states[:, 1:], out.state[:, None]], dim=1)
        after[torch.arange(len(after)), out.advance.long() - 1] = out.state
        seen[:] = [out.advance, (after - means) / sigma[..., None], states]
        return out

    def make_step(target: Any, table: Any, x: Tensor, k: Tensor, *rest: Any) -> Any:
        seen.clear()  # no draft is judged
        after, out, guess = step(target, table, x, k, *rest)
        innovations = (after - table.mean(k, x, out.eps)) / table.sigma_at(k, x)[:, None]
        made[:, rest[3], k] = torch.stack([innovations, x])
        return after, out, guess

    def count_round(self: Recorder, samples: Tensor, k: Tensor, *rest: Any) -> None:
        if not seen:
            return count(self, samples, k, *rest)
        advance, innovations, states = seen
        b, j = (torch.arange(states.shape[1]) < advance[:, None]).nonzero(as_tuple=True)
        made[:, samples[b], k[b] + j] = torch.stack([innovations[b, j], states[b, j]])
        return count(self, samples, k, *rest)

    with (
        mock.patch.object(free.rounds, "verify_window", verify),
        mock.patch.object(free.rounds, "plain_step", make_step),
        mock.patch.object(Recorder, "round", count_round),
    ):
        samples, report = sampler.sample(labels, seed)
    innovations, states = made[:, :, :-1]
    return Run(samples, innovations, states, report)


def innovations_p(innovations: Tensor, states: Tensor) -> float:
    """Smallest p of the tests that innovations are independent N(0, I), corrected for their number.

    KS of each transition's in each coordinate; in four directions KS of all together, and the
    correlation of each innovation with the one before and with the state it was added to.
    """
    tests = [ks_normal(r) for r in innovations.flatten(1).T]
    for v in DIRECTIONS[:, : states.shape[2]]:
        r, x = innovations @ v, states @ v
        x = (x - x.mean(0)) / x.std(0)
        tests.append(ks_normal(r.flatten()))
        tests.append(correlation_p(r[:, 1:].flatten(), r[:, :-1].flatten()))
        tests.append(correlation_p(r.flatten(), x.flatten()))
    return min(1.0, len(tests) * min(tests))


def margins_p(samples: Tensor, reference: Tensor) -> float:
    """Smallest p of KS in four directions, corrected for their number."""
    return min(1.0, 4 * min(ks_two_sample(samples @ v, reference @ v) for v in DIRECTIONS))
