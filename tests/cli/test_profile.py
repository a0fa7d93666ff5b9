"""``free profile`` as users run it, on few steps."""

import json
from pathlib import Path

from tests.cli.commands import succeed


def test_phases_operators_and_a_trace(digits: Path, tmp_path: Path) -> None:
    trace, path = tmp_path / "trace.json", tmp_path / "x.json"
    text = succeed("profile", "--model", digits, "--steps", 8, "--batches", 2, "--trace", trace,
                   "--json", path)  # fmt: skip
    for word in ("teacher", "draft", "verify", "bookkeeping", "elsewhere", "aten::addmm"):
        assert word in text
    record = json.loads(path.read_text())
    assert record["report"]["samples"] == 2
    assert set(record["seconds_a_round"]) == {
        "teacher", "draft", "verify", "bookkeeping", "elsewhere"
    }  # fmt: skip
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert "free::teacher" in names
