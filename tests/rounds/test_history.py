"""The image before, kept for each sample: who joins, leaves or waits draws what it draws alone.

After every round the image is, bit for bit, what the teacher says where the sample's last
transition started; states are those of the sample alone but for rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from free import Schedule, SpeculativeSampler, TeacherOutput
from free.rounds.round import Rounds
from free.rounds.state import Outcome, Samples, Window
from free.schedule.clipping import Clipping

N, REQUESTS = 12, 6
LABELS, SEEDS = torch.arange(REQUESTS) % 3, torch.arange(REQUESTS) + 70


def schedule() -> Schedule:
    """Of a network that predicts the image: it is limited, and the one before counts."""
    plain = Schedule.ddpm(N)
    noise, after = np.append(plain.noise[1:], 0.0), np.append(plain.signal[1:], 1.0)
    a = 0.5 * noise / plain.noise
    c = -0.4 * after
    c[[0, -1]] = 0.0
    return Schedule(
        plain.timesteps,
        a,
        after - a * plain.signal - c,
        np.sqrt(0.75) * noise,
        plain.signal,
        plain.noise,
        image=np.stack([np.zeros(N), np.ones(N)]),
        c=c,
        clipping=Clipping(0.9),
    )


def teacher(x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
    """Sums and products alone, element by element: its rounding does not depend on the batch."""
    x = x.clamp(-2, 2)
    return TeacherOutput(x - 0.1 * x * x * x + (y - 1)[:, None] * 0.25)


teacher.sample_shape = (4,)  # type: ignore[attr-defined]


class Visited:
    """Of every sample, by its number and the transitions behind it: the state and the image before.

    They must stay as they are while it waits.
    """

    def __init__(self) -> None:
        self.at: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def note(self, samples: Samples) -> None:
        assert samples.before is not None
        places = zip(samples.number.tolist(), samples.k.tolist(), strict=True)
        for place, x, before in zip(places, samples.x, samples.before, strict=True):
            old = self.at.setdefault(place, (x.clone(), before.clone()))
            assert torch.equal(old[0], x)
            assert torch.equal(old[1], before)

    def same(self, other: Visited) -> None:
        """The same transitions made in the same rounds, but for rounding."""
        assert self.at.keys() == other.at.keys()
        for place, parts in self.at.items():
            torch.testing.assert_close(parts, other.at[place], rtol=0, atol=1e-5)


def sampler(verifier: str, recycle: bool | str) -> SpeculativeSampler:
    return SpeculativeSampler(
        teacher, "frozen", schedule(), 4, sweeps=1, verifier=verifier, recycle=recycle
    )


def serve(made: SpeculativeSampler, arrivals: dict[int, int], waits: float = 0.0) -> Visited:
    """Draw samples ``i`` that join before round ``arrivals[i]``, in a loop of one's own.

    With probability ``waits`` each has no row in a round. Who has finished leaves.
    """
    chance, visited = torch.Generator().manual_seed(3), Visited()
    samples: Samples | None = None
    for number in range(100):
        for i in (i for i, arrival in arrivals.items() if arrival == number):
            rounds, new = made.begin(LABELS[i : i + 1], SEEDS[i : i + 1])
            new = new._replace(number=new.number + i)
            samples = new if samples is None else samples.join(new)
        if samples is None or not len(samples.k):
            continue
        resting = torch.rand(len(samples.k), generator=chance) < waits
        widths = torch.where(resting, 0, (N - samples.k).clamp(max=4))
        window = rounds.draft(samples, widths)
        outcome = rounds.verify(samples, window, teacher(window.x, window.t, window.y))
        told = expected_images(rounds, samples, window, outcome)
        after = rounds.advance(samples, outcome)
        assert after.before is not None
        assert samples.before is not None
        resting = resting[:, None]
        assert torch.equal(after.before, torch.where(resting, samples.before, told))
        visited.note(after)
        samples = after.keep(after.k < N)
    assert samples is not None
    assert not len(samples.k)
    return visited


def expected_images(rounds: Rounds, samples: Samples, window: Window, outcome: Outcome) -> Tensor:
    """What the teacher says, asked again, where each sample's last transition started: [B, D]."""
    told = []
    for b, made in enumerate(outcome.advance.tolist()):
        x, k = window.draft.states[b, made - 1, None], window.draft.k[b, made - 1, None]
        told.append(rounds.target(x, k, samples.y[b, None]).guess)
    return torch.cat(told)


WAYS = pytest.mark.parametrize(
    ("verifier", "recycle"), [("reflection", "response"), ("reflection", "reuse"), ("block", False)]
)


@WAYS
def test_who_joins_and_leaves_draws_what_it_draws_alone(verifier: str, recycle: Any) -> None:
    made = sampler(verifier, recycle)
    alone = Visited()
    for i in range(REQUESTS):
        alone.at |= serve(made, {i: 0}).at
    for arrivals in ([0] * 6, [0, 0, 1, 2, 2, 5], [9, 0, 4, 0, 2, 1]):
        serve(made, dict(enumerate(arrivals))).same(alone)
    # There are windows of several transitions, and rejections.
    assert REQUESTS * 3 < len(alone.at) < REQUESTS * N


@WAYS
def test_who_waits_keeps_its_image(verifier: str, recycle: Any) -> None:
    serve(sampler(verifier, recycle), dict.fromkeys(range(REQUESTS), 0), waits=0.4)
