"""The evaluations of a run, and the best that is kept whenever the run is killed."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from free import DrafterNet
from free.training.evaluations import Evaluations
from free.training.run_folder import RunFolder
from tests.training.runs import SHAPE, drafter_loss, run, state


def _train(folder: Path, steps: int, evaluate: Any = None, every: int = 2) -> dict[str, Any]:
    torch.manual_seed(0)
    settings = {"ema_decay": 0.5, "evaluate_every": every, "evaluate": evaluate}
    return run(folder, steps, DrafterNet(SHAPE), drafter_loss, **settings)[1]


def _figures(folder: Path, *figures: float, stop: int = 0) -> Callable[..., dict[str, Any]]:
    """Evaluations of a run that is to be stopped at one of them, counted from its first."""
    calls = len(_results(folder))

    def evaluate(model, ranks) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise KeyboardInterrupt
        return {"parallel_efficiency": figures[calls - 1], "delta_by_position": [0.5, None]}

    return evaluate


def _results(folder: Path) -> dict[int, dict[str, Any]]:
    """By step."""
    path = folder / "evaluations.json"
    results = json.loads(path.read_text()) if path.exists() else []
    return {result["step"]: result for result in results}


def _best_step(folder: Path) -> int:
    """The step whose network is kept."""
    config = json.loads((folder / "best" / "config.json").read_text())
    return config["training"]["evaluation"]["step"]


def test_the_best_is_kept(tmp_path: Path) -> None:
    record = _train(tmp_path, 7, _figures(tmp_path, 1.5, 2.5, 2.5, 2.0))
    assert [*_results(tmp_path)] == [2, 4, 6, 7]
    assert (record["best"]["step"], record["best"]["parallel_efficiency"]) == (4, 2.5)
    assert _best_step(tmp_path) == 4
    best = DrafterNet.from_pretrained(tmp_path / "best").state_dict()
    last = state(tmp_path)["weights"]["average"]
    assert any(not torch.equal(best[name], last[name]) for name in best.keys() & last.keys())
    with (tmp_path / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["parallel_efficiency"] for row in rows] == ["1.5", "2.5", "2.5", "2.0"]
    assert rows[0]["delta_by_position_1"] == "0.5"


@pytest.mark.parametrize("stop", [1, 2])
def test_an_evaluation_that_is_stopped_costs_no_steps(tmp_path: Path, stop: int) -> None:
    """The same command evaluates at its checkpoint and goes on; none is evaluated twice."""
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, 6, _figures(tmp_path, 2.0, 9.0, stop=stop))
    assert state(tmp_path)["step"] == 2 * stop
    record = _train(tmp_path, 6, _figures(tmp_path, 2.0, 1.0, 1.5))
    assert [*_results(tmp_path)] == [2, 4, 6]
    assert record["best"]["step"] == _best_step(tmp_path) == 2


def test_only_evaluations_of_the_last_settings_are_compared(tmp_path: Path) -> None:
    """A wider window is not a better drafter; nor is an older one of settings given up since."""
    for step, window, figure in ((1, 16, 5.0), (2, 4, 1.5), (3, 16, 4.0), (4, 16, 3.0)):
        result = {"parallel_efficiency": figure, "window": window}
        record = _train(tmp_path, step, lambda *_, result=result: result, every=1)
        assert record["best"]["step"] == _best_step(tmp_path) == min(step, 3)


@pytest.mark.parametrize("written", [False, True])
def test_the_best_is_one_that_the_checkpoint_knows(tmp_path, monkeypatch, written) -> None:
    """Killed before or after the checkpoint behind an evaluation; it goes on without any."""
    real, calls = RunFolder.write_checkpoint, 0

    def killed(folder: RunFolder, state: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls == 4 and not written:  # before and after each evaluation: this is the second's
            raise KeyboardInterrupt
        real(folder, state)
        if calls == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "write_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, 6, _figures(tmp_path, 1.0, 2.0, 1.5))
    monkeypatch.undo()
    record = _train(tmp_path, 5)
    assert record["best"]["step"] == _best_step(tmp_path) == (4 if written else 2)
    assert [*_results(tmp_path)] == [2, 4][: 1 + written]
    assert not list(tmp_path.glob(".best*"))


def test_the_best_is_whole_whenever_it_is_killed(tmp_path: Path) -> None:
    def write(text: str, then: type[BaseException] | None = None) -> Callable[[Path], None]:
        def save(path: Path) -> None:
            path.mkdir()
            (path / "x").write_text(text)
            if then is not None:
                raise then

        return save

    def best(known: list[dict[str, Any]]) -> str:
        Evaluations(tmp_path, known).publish()  # what the next process does
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["best"]
        return (tmp_path / "best" / "x").read_text()

    first, second = ({"step": step, "parallel_efficiency": float(step)} for step in (1, 2))
    Evaluations(tmp_path, []).add(first, write("first"))
    assert best([first]) == "first"
    with pytest.raises(KeyboardInterrupt):
        Evaluations(tmp_path, [first]).add(second, write("half", KeyboardInterrupt))
    assert best([first]) == "first"
    Evaluations(tmp_path, [first]).add(second, write("second"))
    (tmp_path / "best").rename(tmp_path / ".best-old")  # between the two renames
    assert best([first, second]) == "second"
