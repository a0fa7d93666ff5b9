"""Never slower than the plain sampler by more than 3 %, and never far from the best width.

Played without networks, so that no clock decides; :mod:`benchmarks.auto` measures it with one.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from free.window.acceptance import RECYCLED, AcceptanceRecord
from free.window.auto import AutoWindows, Basis
from free.window.costs import CostCurve
from tests.window.play import STEPS, Delta, Machine, automatic, fixed, measured_delta, play, record

WIDTHS = (1, 2, 4, 8, 16, 32)


def _seconds(windows: object, machine: Machine, delta: Delta, samples: int, noise: float) -> float:
    runs = range(6 if samples == 1 else 2)
    make = windows if callable(windows) else lambda: windows
    return float(np.mean([play(make(), machine, delta, samples, i, noise).seconds for i in runs]))


@pytest.mark.parametrize(
    ("fixed_share", "samples", "noise"),
    [(0, 1, 0), (0.3, 1, 0.2), (0.6, 1, 0), (0.9, 1, 0.2), (1, 4, 0), (0.6, 16, 0), (0, 64, 0)],
)
def test_close_to_the_best_width(fixed_share: float, samples: int, noise: float) -> None:
    machine, delta = Machine(fixed_share), measured_delta()
    times = {w: _seconds(lambda w=w: fixed(w), machine, delta, samples, noise) for w in WIDTHS}
    auto = _seconds(lambda: automatic(machine, samples=samples), machine, delta, samples, noise)
    assert auto < 1.03 * times[1]
    assert auto < (1.05 if noise == 0 else 1.08) * min(times.values())


@pytest.mark.parametrize(("fixed_share", "samples"), [(0.0, 16), (0.5, 1), (0.9, 16)])
def test_a_useless_drafter_with_a_good_record(fixed_share: float, samples: int) -> None:
    machine, delta = Machine(fixed_share), measured_delta(200.0)
    plain = _seconds(lambda: fixed(1), machine, delta, samples, 0.0)
    auto = _seconds(lambda: automatic(machine, samples=samples), machine, delta, samples, 0.0)
    assert auto < 1.03 * plain


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_a_drafter_without_a_record(scale: float) -> None:
    machine, delta = Machine(0.8), measured_delta(scale)
    best = min(_seconds(lambda w=w: fixed(w), machine, delta, 1, 0.0) for w in WIDTHS)
    auto = _seconds(lambda: automatic(machine, AcceptanceRecord()), machine, delta, 1, 0.0)
    assert auto < 1.08 * best


@pytest.mark.parametrize(
    ("fixed_share", "change"), [(0.0, 4.0), (0.5, 4.0), (0.5, -0.8), (0.9, -0.8)]
)
def test_a_teacher_whose_speed_changes_midway(fixed_share: float, change: float) -> None:
    machine, delta = Machine(fixed_share, lambda p: 1 + change * (p > 0.5)), measured_delta()
    times = {w: _seconds(lambda w=w: fixed(w), machine, delta, 1, 0.0) for w in WIDTHS}
    auto = _seconds(lambda: automatic(machine), machine, delta, 1, 0.0)
    assert auto < 1.03 * times[1]
    assert auto < 1.12 * min(times.values())


def test_a_machine_that_is_not_as_measured() -> None:
    """Rows cost nothing more, it was thought; they cost as much as calls."""
    believed, true, delta = Machine(1.0), Machine(0.0), measured_delta()
    plain = _seconds(lambda: fixed(1), true, delta, 1, 0.0)
    auto = _seconds(lambda: automatic(believed), true, delta, 1, 0.0)
    assert auto < 2.0 * plain
    basis = Basis(32, believed.costs(1), {1: record()})

    def one_more() -> AutoWindows:
        return AutoWindows(STEPS, 1, basis)

    _seconds(one_more, true, delta, 1, 0.0)
    assert _seconds(one_more, true, delta, 1, 0.0) < 1.3 * plain


def test_a_machine_that_has_become_better() -> None:
    """Rows cost as much as calls, it was thought; they cost nothing more. Probes find out, if not
    at once, and not how wide a window would be best: ``free tune`` does.
    """
    costs, true = Machine(0.0).costs(1), Machine(1.0)
    runs = [
        play(AutoWindows(STEPS, 1, Basis(32, costs, {1: record()})), true, measured_delta(), seed=i)
        for i in range(12)
    ]
    plain = play(fixed(1), true, measured_delta()).seconds
    assert runs[-1].seconds < 0.7 * plain


@pytest.mark.parametrize("samples", [4, 16])
def test_a_plain_sampler_that_is_faster_than_was_measured(samples: int) -> None:
    """Only plain transitions tell: they are tried now and then while drafts seem to pay."""
    machine, delta = Machine(0.0), measured_delta()
    costs = machine.costs(samples)
    costs.teacher = CostCurve(
        costs.teacher.to_dict()["rows"],
        [
            machine.teacher(rows) * (1.6 if rows <= samples else 1.0)
            for rows in (1, 2, 4, 8, 16, 32)
        ],
    )
    basis = Basis(32, costs, {1: record()})
    runs = [
        play(AutoWindows(STEPS, samples, basis), machine, delta, samples, i).seconds
        for i in range(4)
    ]
    plain = play(fixed(1), machine, delta, samples).seconds
    assert runs[0] < 1.15 * plain
    assert max(runs[1:]) < 1.03 * plain


@pytest.mark.parametrize(
    ("fixed_share", "samples", "bad"),
    [(0.6, 1, 50.0), (0.9, 4, 50.0), (1.0, 16, 50.0), (0.6, 16, 1.0), (1.0, 1, 1.0)],
)
def test_rows_that_pay_in_the_next_window_only(fixed_share, samples, bad) -> None:
    """Where drafts fail that the teacher has not seen, and those stand that it has."""

    def delta(kind: NDArray[np.int64], distance: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.where(kind == RECYCLED, 0.1, bad) * distance**0.7

    machine = Machine(fixed_share)
    times = {w: _seconds(lambda w=w: fixed(w), machine, delta, samples, 0.1) for w in WIDTHS}
    auto = _seconds(lambda: automatic(machine, samples=samples), machine, delta, samples, 0.1)
    assert auto < 1.03 * times[1]
    assert auto < 1.1 * min(times.values())
