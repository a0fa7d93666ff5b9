"""Whole runs with every transition they made, and the tests that these must pass.

A transition's innovation is ``r = (x' - m(x)) / sigma`` with the teacher's mean ``m``. In a run of
the plain sampler the innovations are independent N(0, I), whatever the teacher; so a speculative
run has the right law if, and only if, its innovations are. They say more than the samples do: a
run of 12 steps is eleven draws of a known law, and what is wrong with one transition is not
blurred by the later ones.
"""

from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor

from free import Report, SpeculativeSampler, TeacherOutput
from free.rounds.round import Rounds
from free.rounds.state import Outcome, Samples, Window
from tests.law.stats import correlation_p, ks_normal, ks_two_sample

DIRECTIONS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, -0.6]])


class Run(NamedTuple):
    """Attributes are the samples [B, D], the innovation of each transition with noise,
    [B, N - 1, D], and the state that each transition started from, [B, N, D].
    """

    samples: Tensor
    innovations: Tensor
    states: Tensor
    report: Report

    @property
    def acceptance(self) -> float:
        return self.report.accepted / sum(self.report.examined_by_step)

    @property
    def p(self) -> float:
        return innovations_p(self.innovations, self.states[:, :-1])


def run(sampler: SpeculativeSampler, labels: Tensor, seed: int) -> Run:
    """``sampler.sample`` under observation; what is monkeypatched in ``free.rounds`` stays so."""
    dim = sampler.teacher.sample_shape[0]  # type: ignore[attr-defined]
    found = torch.full((2, len(labels), len(sampler.schedule), dim), torch.nan)
    verify = Rounds.verify

    def observed(self: Rounds, samples: Samples, window: Window, output: TeacherOutput) -> Outcome:
        outcome = verify(self, samples, window, output)
        before, made = window.draft.states, outcome.advance.long()
        after = torch.cat([before[:, 1:], outcome.x[:, None]], dim=1)
        after[torch.arange(len(made)), made - 1] = outcome.x
        b, j = (torch.arange(before.shape[1]) < made[:, None]).nonzero(as_tuple=True)
        innovations = (after - outcome.means)[b, j] / outcome.sigma[b, j, None]
        found[:, samples.number[b], samples.k[b] + j] = torch.stack([innovations, before[b, j]])
        return outcome

    with mock.patch.object(Rounds, "verify", observed):
        samples, report = sampler.sample(labels, seed)
    innovations, states = found
    return Run(samples, innovations[:, :-1], states, report)


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
