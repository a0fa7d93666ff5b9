"""The regression guard: what has become worse is found, and nothing else."""

import importlib
import json
import shutil
from pathlib import Path

import pytest

with pytest.MonkeyPatch.context() as patch:  # benchmarks import each other as scripts do
    patch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    check = importlib.import_module("check")

Figure, compare, main = check.Figure, check.compare, check.main

COMMITTED = {
    "paper: rounds": Figure(68, "rounds"),
    "paper: acceptance": Figure(0.386, "acceptance"),
    "verify_window": Figure(50.0, "times faster than the twin"),
    "a round": Figure(18.0, "of a plain step's"),
    "core, roll": Figure(8149, "instructions"),
}


def _words(changes: dict[str, float]) -> dict[str, tuple[str, bool]]:
    now = {
        name: figure._replace(value=changes.get(name, figure.value))
        for name, figure in COMMITTED.items()
    }
    return {v.name: (v.word, v.failed) for v in compare(COMMITTED, now, {})}


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("paper: rounds", 72, "CHANGED"),
        # fewer rounds of one request are another law's, or luck
        ("paper: acceptance", 0.35, "CHANGED"),
        ("verify_window", 29.0, "WORSE"),
        ("a round", 28.0, "WORSE"),
        ("core, roll", 8400, "WORSE"),
        ("paper: rounds", 68, "as before"),
        ("paper: rounds", 70, "as before"),
        ("verify_window", 90.0, "better"),
        ("core, roll", 7000, "better"),
    ],
)
def test_planted_regressions_are_found(name: str, value: float, word: str) -> None:
    """And what is as before, better or within the tolerance passes."""
    words = _words({name: value})
    assert words.pop(name) == (word, word.isupper())
    assert set(words.values()) == {("as before", False)}


def test_figures_that_are_gone_skipped_or_new() -> None:
    now = {"other": Figure(1.0, "rounds")}
    skipped = {"instructions": "skipped: valgrind is not installed"}
    words = {v.name: (v.word, v.failed) for v in compare(COMMITTED, now, skipped)}
    assert words["core, roll"] == ("skipped: valgrind is not installed", False)
    assert words["paper: rounds"] == ("GONE", True)
    assert words["other"] == ("new: --update", False)


def test_ratios_are_taken() -> None:
    found = check.ratios(repeats=2)
    assert {"first_guesses", "roll_window", "a round of W = 8"} < found.keys()
    assert all(figure.value > 0 for figure in found.values())


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """What the command finds, instead of measuring."""
    found = {"paper: rounds": Figure(68, "rounds")}
    counted = {"core, roll": Figure(8149, "instructions")}
    monkeypatch.setattr(check, "counts", lambda: found)
    monkeypatch.setattr(check, "ratios", dict)
    monkeypatch.setattr(check, "instructions", lambda: (counted, "gcc 12.2.0, avx2"))
    return found


def test_the_command(tmp_path, figures, capsys) -> None:
    path = tmp_path / "check.json"
    to = ["--committed", str(path)]
    assert main([*to, "--update"]) == 0
    assert json.loads(path.read_text())["figures"]["core, roll"] == [8149, "instructions"]
    assert main(to) == 0
    figures["paper: rounds"] = Figure(80, "rounds")
    assert main(to) == 1
    assert "CHANGED" in capsys.readouterr().out
    assert main([*to, "--only", "instructions"]) == 0
    # An update of one part leaves the others as they were.
    assert main([*to, "--update", "--only", "instructions"]) == 0
    assert json.loads(path.read_text())["figures"]["paper: rounds"] == [68, "rounds"]


def test_another_compiler_is_not_compared(tmp_path, figures, monkeypatch, capsys) -> None:
    to = ["--committed", str(tmp_path / "check.json")]
    main([*to, "--update"])
    slower = {"core, roll": Figure(9999, "instructions")}
    monkeypatch.setattr(check, "instructions", lambda: (slower, "gcc 14.1.0, avx2"))
    assert main(to) == 0
    text = capsys.readouterr().out
    assert "skipped: gcc 14.1.0, avx2 here, committed gcc 12.2.0, avx2" in text

    def without() -> None:
        raise RuntimeError("valgrind is not installed")

    monkeypatch.setattr(check, "instructions", without)
    assert main(to) == 0
    assert "skipped: valgrind is not installed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "speed"], "--only must be of rounds, ratios, instructions, got speed"),
        (["--committed", "nowhere.json"], "--committed must be a file of --update, got nowhere"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_the_committed_figures_are_of_kinds_that_are_compared() -> None:
    record = json.loads(check.COMMITTED.read_text())
    assert {kind for _, kind in record["figures"].values()} == set(check.KINDS)


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("valgrind") and shutil.which("g++")), reason="needs valgrind and g++"
)
def test_instructions_are_counted_alike_each_time() -> None:
    first, compiled = check.instructions()
    assert compiled.startswith("gcc ")
    assert first == check.instructions()[0]
    # Of 8 windows of 784: some instructions an element, none a thousand.
    assert all(784 < figure.value < 784_000 for figure in first.values())
