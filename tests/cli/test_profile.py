"""``free profile`` as users run it, on few steps."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from free.cli import app

RUN = CliRunner()


def _profile(*arguments: object) -> tuple[int, str]:
    result = RUN.invoke(app, ["profile", "--steps", "8", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def test_phases_operators_and_a_trace(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace.json", tmp_path / "x.json"
    code, text = _profile("--batches", 2, "--trace", trace, "--json", path)
    assert code == 0, text
    for word in ("teacher", "draft", "verify", "bookkeeping", "elsewhere", "aten::addmm"):
        assert word in text
    record = json.loads(path.read_text())
    assert record["report"]["samples"] == 2
    assert max(record["seconds_a_round"], key=record["seconds_a_round"].get) == "teacher"
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert "free::teacher" in names


def test_the_plain_sampler_has_neither_drafts_nor_decisions() -> None:
    code, text = _profile("--window", 1, "--batches", 1, "--operators", 0)
    assert code == 0, text
    assert "8.0 rounds" in text
    assert "verify" not in text
    assert "aten::" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trace", "x.txt"], "--trace must end in .json or .json.gz, got 'x.txt'"),
        (["--trace", "x.json", "--json", "x.json"], "--json must be another file than --trace"),
        (["--window", "0"], "--window must be an integer >= 1 or auto"),
        (["--batches", "0"], "Invalid value for '--batches'"),
        (["--paper", "--sweeps", "1"], "--paper must come without --sweeps"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = _profile(*arguments)
    assert code == 2, text
    assert message in text.replace("│ ", "")
    assert "Traceback" not in text
