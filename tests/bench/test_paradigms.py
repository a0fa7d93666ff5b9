"""ParaDiGMS, to compare with: what it is without a tolerance, and against ours at equal rows."""

from typing import Any

import pytest
import torch

from free import FrozenDrafter, Schedule, SequentialSampler, SpeculativeSampler
from free.bench.paradigms import paradigms
from tests.networks import MixtureTeacher

TEACHER = MixtureTeacher(16, spread=0.8)
SILENT = Schedule.sde("vp", 50, 0.0)
LABELS = torch.arange(300) % 2


def test_without_a_tolerance_it_is_the_plain_sampler() -> None:
    expected = SequentialSampler(TEACHER, SILENT, 1.5).sample([0, 1], 3).samples
    result = paradigms(TEACHER, SILENT, [0, 1], 3, window=8, tolerance=0.0, cfg_scale=1.5)
    torch.testing.assert_close(result.samples, expected, rtol=1e-5, atol=1e-5)
    assert max(result.rounds_by_sample) <= 50
    one = paradigms(TEACHER, SILENT, [0, 1], 3, window=1, tolerance=0.1)
    assert (one.rounds_by_sample, one.rows) == ([50, 50], 100)


def test_ours_takes_fewer_rounds_and_rows_and_is_nearer() -> None:
    """At 16 rows a round and one tolerance; by more than 3 decibels, but for the few runs that pass
    by a ridge between two modes.
    """
    serial = SequentialSampler(TEACHER, SILENT).sample(LABELS).samples
    theirs = paradigms(TEACHER, SILENT, LABELS, window=16, tolerance=0.003)
    settings = FrozenDrafter().sampling
    sampler = SpeculativeSampler(
        TEACHER, "frozen", SILENT, verifier="tolerance", tolerance=0.003, **settings
    )
    samples, report = sampler.sample(LABELS)
    for share in (0.5, 0.9):
        ours, off = (
            (each - serial).square().mean(1).quantile(share) for each in (samples, theirs.samples)
        )
        assert ours < off / 2
    assert sum(report.rounds_by_sample) <= sum(theirs.rounds_by_sample)
    assert report.teacher_rows < theirs.rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be an integer >= 1, got 0"),
        ({"tolerance": -1.0}, "tolerance must be a finite number >= 0, got -1.0"),
        ({"schedule": Schedule.ddpm(10)}, "schedule must have sigma = 0 everywhere, got 0."),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    settings = {"schedule": SILENT, "window": 4, "tolerance": 0.1, **options}
    with pytest.raises(ValueError, match=message):
        paradigms(TEACHER, labels=[0], **settings)
