"""Grids of settings, their rows, and what rows say beside each other."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from free import Relaxation, Schedule, SequentialSampler, SpeculativeSampler
from free.bench.grid import (
    Setting,
    compared,
    difference,
    grid,
    read_rows,
    row_of,
    sweep,
    write_rows,
)
from free.bench.grid_plot import draw
from free.bench.grid_table import describe, label, varied
from free.evaluation.quality import Figure, Quality
from free.images.autoencoder import PixelCoder
from tests.networks import MixtureTeacher

ONE = {"window": 1, "sweeps": 1, "recycle": "response", "verifier": "reflection"}
FOUR = ONE | {"window": 4}
LABELS = [0, 1] * 10


def _sampler(setting: Setting) -> Any:
    teacher = MixtureTeacher()
    schedule = Schedule.ddpm(setting.steps, stochasticity=setting.stochasticity)
    if setting.window == 1:
        return SequentialSampler(teacher, schedule)
    relaxation = None if setting.relax == "none" else Relaxation("allow", 1.0)
    settings = {name: getattr(setting, name) for name in ("window", "sweeps", "recycle")}
    return SpeculativeSampler(teacher, "frozen", schedule, relaxation=relaxation, **settings)


def _quality(samples: Tensor) -> Quality:
    """The first coordinate's mean, with an interval of its own."""
    value = float(samples[:, 0].mean())
    figures = {"frechet": Figure(value, value - 1.0, value + 2.0), "accuracy": Figure(0.9, 0.8, 1)}
    return Quality(len(samples), 0, "points", False, False, 3, 0, figures)


_GRID: dict[str, Any] = {"steps": [12], "variances": ["posterior"], "sde": False}


@pytest.fixture(scope="module")
def settings() -> list[Setting]:
    return grid(
        **_GRID, stochasticities=[1.0, 0.5], drafting=[FOUR, ONE], relaxations=["none", "allow:1"]
    )


@pytest.fixture(scope="module")
def rows(settings: list[Setting]) -> list[dict[str, Any]]:
    samplers = {setting: _sampler(setting) for setting in settings}
    return sweep(samplers, LABELS, PixelCoder(), _quality, seed=3, batch_size=7)


def test_a_grid_has_each_combination_once_and_the_sequential_sampler_first(settings) -> None:
    assert [(s.stochasticity, s.window, s.relax) for s in settings] == [
        (1.0, 1, "none"), (1.0, 4, "none"), (1.0, 4, "allow:1"),
        (0.5, 1, "none"), (0.5, 4, "none"), (0.5, 4, "allow:1"),
    ]  # fmt: skip
    assert settings[0] == Setting(steps=12, window=1) == settings[2].plain()
    assert settings[2].exact() == settings[1]
    # A source of uncertainty says nothing without relaxation.
    exact = {"drafting": [FOUR], "relaxations": ["none"], "uncertainty": "learned_variance"}
    assert grid(**_GRID, stochasticities=[1.0], **exact) == [settings[1]]


def test_rows_are_what_the_samplers_do(settings: list[Setting], rows: list[dict[str, Any]]) -> None:
    assert [Setting(**row["setting"]) for row in rows] == settings
    report = _sampler(settings[2]).sample(LABELS, seed=3).report
    row = rows[2]
    assert row["images"] == 20
    assert row["rounds"]["value"] == pytest.approx(sum(report.rounds_by_sample) / 20)
    assert row["rounds"]["low"] < row["rounds"]["value"] < row["rounds"]["high"]
    assert row["steps_a_round"] == pytest.approx(12 / row["rounds"]["value"])
    assert row["acceptance"] == pytest.approx(report.acceptance)
    examined, accepted = sum(report.examined_by_step), sum(report.accepted_by_step)
    assert row["examined_acceptance"] == pytest.approx(accepted / examined)
    assert row["rejections"] == pytest.approx((examined - accepted) / 20)
    assert row["tv_bound"]["value"] == pytest.approx(report.tv_bound) != 0
    assert row["tv_estimate"]["value"] == pytest.approx(report.tv_estimate)
    plain = rows[0]
    assert plain["rounds"] == {"value": 12, "low": 12, "high": 12}
    assert plain["acceptance"] is plain["examined_acceptance"] is None
    assert plain["tv_bound"]["value"] == 0
    json.dumps(rows, allow_nan=False)


def test_rows_are_compared_with_the_sequential_sampler_of_their_own_law(rows) -> None:
    for plain in (0, 3):
        assert rows[plain]["against_plain"] is rows[plain]["fewer_rounds"] is None
        for drafted in (plain + 1, plain + 2):
            own, theirs = (rows[i]["quality"]["frechet"]["value"] for i in (drafted, plain))
            found = rows[drafted]["against_plain"]["frechet"]
            assert found["value"] == pytest.approx(own - theirs)
            assert found["value"] - found["low"] == pytest.approx(5**0.5)  # of 1 and 2
            assert found["high"] - found["value"] == pytest.approx(5**0.5)
    exact, relaxed = (rows[i]["rounds"]["value"] for i in (1, 2))
    assert rows[2]["fewer_rounds"] == pytest.approx(exact / relaxed)
    assert rows[1]["fewer_rounds"] is None
    alone = compared(rows[1:2])
    assert alone[0]["against_plain"] is alone[0]["fewer_rounds"] is None


def test_a_difference_of_shares_has_newcombes_interval() -> None:
    # His table II, case (a), method 10: 56 of 70 and 48 of 80.
    ours, theirs = Figure(0.8, 0.6917, 0.8769), Figure(0.6, 0.4904, 0.7002)
    found = difference(ours, theirs)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=3e-4)
    assert difference(Figure(3.0), theirs) == Figure(2.4)


def test_other_files_are_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    write_rows(path, {"model": "mnist", "seed": 0}, [])
    with pytest.raises(ValueError, match=r"same settings to be continued, got .* with seed 0, not"):
        read_rows(path, {"model": "mnist", "seed": 1})
    for text in ("[]", "{", '{"rows": []}', "[" * 100_000, '{"shared": 1, "rows": []}',
                 '{"shared": {}, "rows": [{"setting": {"wings": 2}}]}'):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ValueError, match="--json must be a file of free sweep to be continued"):
            read_rows(path, {})


def test_one_image_has_no_intervals() -> None:
    setting = Setting(steps=12, window=1)
    row = row_of(setting, _sampler(setting).sample([0]).report, None)
    assert row["rounds"] == {"value": 12, "low": None, "high": None}
    assert row["quality"] is None
    assert describe([row])[1].startswith("sequential")
    draw([row])


def test_words(rows: list[dict[str, Any]]) -> None:
    settings = [row["setting"] for row in rows]
    assert varied(settings) == ["stochasticity", "relax"]
    assert label(settings[0], varied(settings)) == "sequential, stochasticity 1.0"
    assert label(settings[2], varied(settings)) == "stochasticity 1.0, allow:1"
    lines = describe(rows)
    assert len(lines) == 7
    assert lines[0].split() == ["rounds", "steps/round", "accepted", "s/image", "Frechet", "named",
                                "right", "tv_bound", "tv_estimate"]  # fmt: skip
    assert "exact" in lines[2]
    assert "0.900 [0.800, 1.000]" in lines[2]
    other = settings[1] | {"sde": True, "recycle": False, "sweeps": None, "steps": 5}
    assert label(other, ["steps", "sde", "sweeps", "recycle"]) == (
        "5 steps, SDE, autoregression, nothing recycled"
    )


def test_a_frontier_has_a_line_for_each_rule_from_the_exact_sampler_on(rows) -> None:
    panels = draw(rows[:3]).axes
    assert [axes.get_xlabel() for axes in panels] == [
        "tv_bound", "tv_estimate", "Frechet distance", "named as asked for"
    ]  # fmt: skip
    for axes in panels:
        (line,) = (box for box in axes.containers if box.get_label() == "allow")
        assert list(line[0].get_ydata()) == [rows[i]["rounds"]["value"] for i in (1, 2)]
