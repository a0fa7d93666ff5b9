"""``free sample --relax``."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from free import Relaxation
from free.cli import app
from free.cli.options import parse_relaxation


def test_it_is_reported(tmp_path: Path) -> None:
    arguments = ["sample", "--labels", "0-2", "--steps", "20", "--out", str(tmp_path / "x.png"),
                 "--json", str(tmp_path / "x.json"), "--compare", "--relax"]  # fmt: skip
    result = CliRunner().invoke(app, [*arguments, "allow:1:0.2"])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["relaxation"] == {
        "rule": "allow", "strength": 1.0, "tv_budget": 0.2, "uncertainty": "discrepancy"
    }  # fmt: skip
    free = record["free"]
    assert 0 < free["tv_bound"] <= max(free["tv_bound_by_sample"]) <= 0.2
    assert f"at most {free['tv_bound']:.2g}, no image above" in result.output
    assert f"about {free['tv_estimate']:.2g}, from 3 images" in result.output
    assert "the law of the images is within that distance" in result.output
    assert record["plain"]["tv_bound"] == 0.0

    exact = CliRunner().invoke(app, arguments[:-1])
    assert json.loads((tmp_path / "x.json").read_text())["relaxation"] is None
    assert "relaxed" not in exact.output
    assert "the law of the images is the same" in exact.output


def test_parsing() -> None:
    assert parse_relaxation(None, "discrepancy") is None
    assert parse_relaxation("temper:1", "discrepancy") == Relaxation("temper", 1.0)
    given = parse_relaxation("allow:.3:5e-2", "learned_variance")
    assert given == Relaxation("allow", 0.3, 0.05, "learned_variance")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temper", "--relax must look like temper:1 or allow:0.3:0.05, got 'temper'"),
        ("temper:x", "--relax must look like"),
        ("temper:1:2:3", "--relax must look like"),
        ("temper:-1", "strength must be finite and >= 0, got -1.0"),
        ("temper:1:2", "tv_budget must be in"),
        ("soft:1", "rule must be one of 'temper', 'allow', got 'soft'"),
    ],
)
def test_bad_options(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_relaxation(text, "discrepancy")


def test_an_uncertainty_of_nothing() -> None:
    with pytest.raises(ValueError, match="--uncertainty must come with --relax, got 'learned_var"):
        parse_relaxation(None, "learned_variance")
