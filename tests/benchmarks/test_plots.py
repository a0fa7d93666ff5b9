"""Pictures of committed figures: few lines, each labelled, one colour a method."""

import sys
from pathlib import Path
from typing import Any

import pytest

from free.bench.style import COLOURS
from free.files import read_json

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture
def drawn(load: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``drawn(benchmark)`` is the figure of its ``--draw``, which must measure nothing."""

    def draw(name: str, result: str) -> Any:
        figures: list[Any] = []
        module = load(name)
        monkeypatch.setattr(module, "save", lambda figure, path: figures.append(figure))
        arguments = ["--draw", str(RESULTS / result), "--plot", "x.png"]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        module.main()
        return figures[0]

    return draw


def test_rounds(drawn: Any) -> None:
    left, right = drawn("rounds", "rounds.json").axes
    shown = {text.get_text(): text.get_color() for text in left.texts}
    assert shown == {
        "recycled": COLOURS["trained"],
        "recycled, no training": COLOURS["recycled"],
        "autoregression (the paper)": COLOURS["paper"],
        "last image kept": COLOURS["image"],
        "last noise kept": COLOURS["eps"],
    }
    assert {text.get_text() for text in right.texts} == shown.keys() - {"last noise kept"}
    rows = read_json(RESULTS / "rounds.json", "results")["rows"]
    autoregression = [r for r in rows if (r["sweeps"], r["window"]) == (None, 32)]
    (end,) = (text.xy for text in left.texts if text.get_text() == "autoregression (the paper)")
    assert end == (32, autoregression[0]["parallel_efficiency"])


def test_recipes(drawn: Any) -> None:
    figure = drawn("ablation", "recipes.json")
    paper, ours, places = figure.axes
    names = [label.get_text() for label in paper.get_yticklabels()]
    assert names[0] == "log(1 + delta), gated, times"  # the best
    assert len(names) == len(read_json(RESULTS / "recipes.json", "results")["rows"])
    assert list(ours.get_ylim()) == list(paper.get_ylim())
    assert {text.get_text() for text in places.texts} == {names[0], "the paper's", "none"}
