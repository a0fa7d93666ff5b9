"""How a pipeline tells its network the time is recognised, bit for bit."""

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")

from free.pipeline.enable.timestep import TimestepForm

TIMES = torch.tensor([1000.0, 973.4375, 601.3, 12.25])
TOLD = {
    "t": lambda t: t,
    "t, cast": lambda t: t.bfloat16(),
    "t / 1000": lambda t: t / 1000,
    "t / 1000, cast before": lambda t: t.bfloat16() / 1000,
    "t / 1000, cast after": lambda t: (t / 1000).bfloat16(),
    "1 - t / 1000": lambda t: 1 - t / 1000,
    "(1000 - t) / 1000": lambda t: (1000 - t) / 1000,
}


@pytest.mark.parametrize("tell", TOLD.values(), ids=TOLD)
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_rows_are_told_as_the_pipeline_tells(tell: Any, rows: int) -> None:
    form = TimestepForm(1000.0)

    def argument(t: Tensor) -> Tensor:
        return tell(t) if not rows else tell(t.expand(rows))

    for t in TIMES:
        form.recognise(argument(t), t, "timestep")
    made = form.make(argument(TIMES[0]), TIMES[[2, 1, 1]], 2)
    assert made.dtype == argument(TIMES[0]).dtype
    assert torch.equal(made, tell(TIMES[[2, 1, 1, 2, 1, 1]]))


def test_numbers_scales_and_a_time_for_each_token() -> None:
    whole = torch.tensor([999, 500])
    form = TimestepForm(1000.0)
    form.recognise(999, whole[0], "t")
    assert form.make(999, whole, 1).tolist() == [999, 500]
    scaled = TimestepForm(1000.0, 0.001)
    scaled.recognise(TIMES[1:2] * 0.001, TIMES[1], "timestep")
    assert torch.equal(scaled.make(TIMES[1:2], TIMES[2:], 1), TIMES[2:] * 0.001)
    tokens = TimestepForm(1000.0)
    tokens.recognise(TIMES[1].expand(2, 5), TIMES[1], "timestep")
    made = tokens.make(TIMES[1].expand(2, 5), TIMES[1:], 2)
    assert torch.equal(made, TIMES[[1, 2, 3, 1, 2, 3], None].expand(-1, 5))


@pytest.mark.parametrize(
    "told", [TIMES[1] + 1, TIMES[1].sqrt(), torch.tensor([973.4375, 12.25]), 1 / TIMES[1]]
)
def test_another_time_is_refused(told: Tensor) -> None:
    form = TimestepForm(1000.0)
    with pytest.raises(ValueError, match=r"timestep must be the scheduler's timestep.*at t = 973"):
        form.recognise(told, TIMES[1], "timestep")


def test_what_fits_once_must_fit_again() -> None:
    form = TimestepForm(1000.0)
    half = torch.tensor(500.0)
    form.recognise(torch.tensor(0.5), half, "t")  # t / 1000 or 1 - t / 1000
    form.recognise(torch.tensor(0.75), torch.tensor(250.0), "t")
    assert form.make(torch.tensor(0.5), torch.tensor([100.0]), 1) == 0.9
    with pytest.raises(ValueError, match="t must be the scheduler's timestep"):
        form.recognise(torch.tensor(0.25), torch.tensor(250.0), "t")
