"""What a round made stays as it was: later rounds, and later runs, write to nothing of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import Tensor

import free.rounds.drafted_window
import free.rounds.noise
import free.rounds.round
from free import FrozenDrafter, Schedule, SpeculativeSampler
from tests.networks import MixtureTeacher

SCHEDULE = Schedule.ddpm(30)


def sampler() -> SpeculativeSampler:
    return SpeculativeSampler(
        MixtureTeacher(), FrozenDrafter("image"), SCHEDULE, 6, sweeps=1, recycle=True
    )


def tensors(record: Any) -> Iterator[Tensor]:
    if isinstance(record, Tensor):
        yield record
    elif isinstance(record, tuple):
        for part in record:
            yield from tensors(part)


def content(tensor: Tensor) -> bytes:
    """Its bytes, as some entries mean nothing and may be NaN."""
    return tensor.numpy().tobytes()


def overwritten() -> list[tuple[int, ...]]:
    """Shapes of what an own loop's records hold and some later round has written to."""
    rounds, samples = sampler().begin([0, 1, 2], seed=5)
    kept: list[tuple[Tensor, bytes]] = []
    while (samples.k < len(SCHEDULE)).any():
        window = rounds.draft(samples, 6)
        outcome = rounds.verify(samples, window, rounds.teach(window))
        samples = rounds.advance(samples, outcome)
        kept += [(part, content(part)) for part in tensors((window, outcome, samples))]
        samples = samples.keep(samples.k < len(SCHEDULE))
    return [tuple(part.shape) for part, before in kept if content(part) != before]


def test_records_of_earlier_rounds_are_never_written_to() -> None:
    assert overwritten() == []


def in_buffers_made_once(op: Callable[..., Any]) -> Callable[..., Any]:
    """The bug: results of a call lie where those of the one before of these shapes lay."""
    places: dict[Any, Any] = {}

    def reused(*args: Any, **kwargs: Any) -> Any:
        results = op(*args, **kwargs)
        place = places.setdefault(tuple(part.shape for part in results), results)
        for to, part in zip(place, results, strict=True):
            to.copy_(part)
        return place

    return reused


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (free.rounds.round, "verify_window"),
        (free.rounds.round, "advance_samples_"),
        (free.rounds.drafted_window, "first_guesses"),
        (free.rounds.noise.ops, "window_noise"),
    ],
)
def test_a_result_whose_memory_is_used_again_is_noticed(monkeypatch, module, name) -> None:
    monkeypatch.setattr(module, name, in_buffers_made_once(getattr(module, name)))
    assert overwritten()


def test_samples_and_trajectories_outlive_later_runs() -> None:
    speculative = sampler()
    result = speculative.sample([0, 1, 2], seed=5, trajectory=True)
    kept = [(part, content(part)) for part in tensors((result.samples, result.trajectory))]
    speculative.sample([0, 1, 2], seed=6, trajectory=True)
    assert all(content(part) == before for part, before in kept)
