"""The benchmark of a GPU, tried out without one: tiny shapes on the CPU, and a made-up device."""

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from free.sampling.cuda_graphs import Graphs
from tests.sampling.cuda_graphs.test_runs import repeated

#: What a section's rows have.
KEYS = {
    "kernels": "op B W D bytes difference times twin copy of_copy speedup",
    "rows": "model image guided W teacher r",
    "embedded": "batch graph window sweeps median iqr rounds steps_a_round execution speedup",
    "policies": "policy trained window median steps_a_round execution speedup",
    "largest": "model W round seconds share not_networks execution how",
    "predicted": "model image guided W drafter steps_a_round speedup",
}


def trial(gpu: ModuleType, path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = gpu.main(["--device", "cpu", "--small", "--json", str(path), *arguments])
    return code, json.loads(path.read_text())


@pytest.fixture(scope="module")
def whole(gpu: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of every section."""
    code, document = trial(gpu, tmp_path_factory.mktemp("gpu") / "gpu.json")
    assert code == 0
    return document


# --- the command ---------------------------------------------------------------------------------


def test_every_section_runs_without_a_gpu(gpu: ModuleType, whole: dict[str, Any]) -> None:
    assert list(whole["sections"]) == list(gpu.SECTIONS)
    for name, section in whole["sections"].items():
        assert section["errors"] == []
        assert section["left_out"] == []
        assert section["seconds"] > 0
        for row in section.get("rows", []):
            assert set(KEYS[name].split()) <= set(row)
        assert section.get("rows") or name == "steady"
    assert {"torch", "commit", "driver", "gpu"} <= set(whole["machine"])
    verdicts = {(target["met"], target["why"]) for target in whole["targets"]}
    assert verdicts == {(None, "not a full run on a GPU")}
    assert whole["command"].startswith("python benchmarks/gpu.py --device cpu --small")


def test_what_the_sections_find(whole: dict[str, Any]) -> None:
    found = whole["sections"]
    assert {row["op"] for row in found["kernels"]["rows"]} == {
        "verify_window", "window_noise", "first_guesses", "roll_window_", "target_means",
        "note_nonfinite_", "response_sums",
        "philox_normal", "network_rows", "drafter_rows", "advance_samples_",
    }  # fmt: skip
    for row in found["kernels"]["rows"]:
        assert row["difference"] < 1e-4
    assert [row["r"]["eager"] for row in found["rows"]["rows"] if row["W"] == 1] == [1.0, 1.0]
    assert {row["graph"] for row in found["embedded"]["rows"]} == {None, False}
    assert set(found["embedded"]["best"]) == {"1"}
    for row in (*found["embedded"]["best"].values(), *found["largest"]["rows"]):
        assert sum(row["seconds"].values()) == pytest.approx(row["round"])
    assert found["steady"]["memory"]["rounds"] >= 6
    assert {"waits_a_round", "execution"} <= set(found["steady"]["plain"])
    assert found["predicted"]["predicted"] is True


def test_with_graphs_every_figure_is_there(gpu, room, tmp_path, monkeypatch) -> None:
    """What is only reached on a GPU: times of graphs, graphed rounds, compiled twins."""
    monkeypatch.setattr(Graphs.__init__, "__defaults__", (None, repeated))
    clock = room("clock").Clock
    monkeypatch.setattr(clock, "replayed", clock.called)
    monkeypatch.setattr(room("kernels"), "compiler_fails", lambda bench: None)
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    code, document = trial(gpu, tmp_path / "gpu.json", "--steps-a-round", "2:1.5,4:3")
    assert code == 0
    found = document["sections"]
    for row in found["kernels"]["rows"]:
        assert row["of_copy"] == row["copy"]["graph"]["median"] / row["times"]["graph"]["median"]
        assert row["compiled"]["graph"]["median"] > 0
    for row in found["largest"]["rows"]:
        assert set(row["how"].values()) == {row["execution"]} == {"graph"}
    for row in found["embedded"]["rows"]:
        assert row["execution"] == ("graph" if row["graph"] is None else "eager: as asked")
        assert row["rounds"] == pytest.approx(4 / row["steps_a_round"], rel=0.5)
    assert {found["steady"][name]["execution"] for name in ("plain", "speculative")} == {"graph"}
    assert [(row["W"], row["steps_a_round"]) for row in found["predicted"]["rows"]] == [
        (2, 1.5), (4, 3.0), (2, 1.5), (4, 3.0)
    ]  # fmt: skip
    for cost, row in zip(found["rows"]["rows"][1:3], found["predicted"]["rows"], strict=False):
        whole = cost["r"]["graph"] + cost["d"]["graph"]
        assert row["speedup"]["graph"] == row["steps_a_round"] / whole


def test_what_there_is_no_time_for_is_named(gpu, tmp_path, capsys) -> None:
    sections = ("--sections", "kernels,rows,embedded,largest,steady")
    code, document = trial(gpu, tmp_path / "gpu.json", *sections, "--minutes", "1e-9")
    assert code == 0
    steady = document["sections"].pop("steady")
    assert steady["memory"]["rounds"] == 0
    assert steady["left_out"][-1] == "rounds 0 to 6 of memory"
    assert all(section["rows"] == [] for section in document["sections"].values())
    assert "verify_window B=1 W=3 D=16" in document["sections"]["kernels"]["left_out"]
    assert "left out: batch 1, eager" in capsys.readouterr().out


def test_a_failure_is_recorded_and_the_rest_goes_on(gpu, room, tmp_path, monkeypatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("an illegal memory access\nand more")

    monkeypatch.setitem(room("kernels").OPS, "roll_window_", fails)
    code, document = trial(gpu, tmp_path / "gpu.json", "--sections", "kernels")
    section = document["sections"]["kernels"]
    assert code == 1
    assert section["errors"][0] == (
        "roll_window_ B=1 W=3 D=16: RuntimeError: an illegal memory access"
    )
    assert len(section["errors"]) == 4
    assert len(section["rows"]) == len(room("kernels").cases(small=True)) - 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sections", "soup"], "--sections must be of kernels, rows, .*, got soup"),
        (["--sections", "predicted"], "--sections must have rows where it has predicted"),
        (["--minutes", "0"], "--minutes must be positive, got 0.0"),
        (["--device", "nowhere"], "--device must be one that this machine has, got 'nowhere'"),
        (["--steps-a-round", "8"], r"--steps-a-round must be like 4:3.6,8:6.2 \(W:1..W\), got '8'"),
        (["--steps-a-round", "4:5"], r"--steps-a-round must be like .*, got '4:5'"),
        (["--json", "/"], "--json must be a file that can be written, got /"),
    ],
)
def test_bad_input(gpu, arguments, message, capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        gpu.main(["--device", "cpu", *arguments])
    assert exit_.value.code == 2
    assert re.search(message, capsys.readouterr().err)


# --- time and memory -----------------------------------------------------------------------------


def test_sections_share_the_time_that_is_left(room: Any) -> None:
    now = [0.0]
    options = argparse.Namespace(small=True, minutes=1.0)
    bench = room("bench").Bench(torch.device("cpu"), options, lambda: now[0])
    first = bench.section("first", 0.25)
    now[0] = 10.0
    assert bench.left == 5.0
    assert bench.allows("this", reserve=0.3)
    assert not bench.allows("that", reserve=0.4)
    now[0] = 30.0  # what the first takes too much, the others lack alike
    assert not bench.allows("more")
    assert first["left_out"] == ["that", "more"]
    second = bench.section("second", 0.5)
    assert bench.left == 15.0
    assert second["left_out"] == []


def test_what_does_not_fit_in_memory(room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, real = room("rows"), room("rows").network_calls

    def calls(teacher: Any, drafter: Any, scale: float, width: int) -> Any:
        if width > 2:
            raise torch.OutOfMemoryError("Tried to allocate 99 GiB.\nmore")
        return real(teacher, drafter, scale, width)

    monkeypatch.setattr(rows, "network_calls", calls)
    options = argparse.Namespace(small=True, minutes=1.0)
    bench = room("bench").Bench(torch.device("cpu"), options)
    record = bench.section("rows", 1.0)
    rows.run(bench, record)
    assert [row["W"] for row in record["rows"]] == [1, 2, 1, 2]
    assert record["errors"] == []
    assert record["left_out"][0] == (
        "tiny at 256, W = 4: does not fit in memory: Tried to allocate 99 GiB."
    )


# --- what follows from what was measured ---------------------------------------------------------


def test_predictions(room: Any) -> None:
    predicted = room("predicted")
    of = {"model": "DiT-XL/2", "image": 256, "guided": True}
    costs = {"r": {"graph": 2.0, "eager": 1.5}, "d": {"graph": 0.5, "eager": None}}
    rows = [of | {"W": 1, "r": {"graph": 1.0}}, of | {"W": 8} | costs, of | {"W": 12} | costs]
    steps = {"trained": ({1: 1.0, 8: 5.0}, True), "none": ({8: 4.0}, False)}
    found = predicted.predictions(rows, steps)
    assert [(row["W"], row["drafter"]) for row in found] == [(8, "trained"), (8, "none")]
    assert found[0]["speedup"] == {"graph": 5.0 / 2.5, "eager": None}
    assert found[1]["speedup"] == {"graph": 4.0 / 2.0, "eager": pytest.approx(4.0 / 1.5)}


def test_speedups_are_over_the_plain_sampler_with_graphs(room: Any) -> None:
    embedded = room("embedded")

    def row(window: int, graph: Any, median: float) -> dict[str, Any]:
        return {"batch": 1, "window": window, "graph": graph, "median": median}

    eager = [row(1, False, 9.0), row(8, False, 1.0)]
    rows = [row(1, None, 6.0), row(4, None, 3.0), row(8, None, 2.0), *eager]
    embedded.with_speedups(rows, 1)
    assert [each["speedup"] for each in rows] == [1.0, 2.0, 3.0, 6 / 9, 6.0]
    assert embedded.best_of(rows, 1)["window"] == 8
    compiled = [row(1, "compiled", 4.0), row(8, "compiled", 1.6)]
    embedded.with_speedups(rows + compiled, 1)
    assert [each["speedup"] for each in compiled] == [1.0, 2.5]
    assert rows[2]["speedup"] == 2.0
    assert embedded.best_speedup(rows + compiled, 1) == 2.5
    embedded.with_speedups(eager, 1)
    assert [each["speedup"] for each in eager] == [None, None]


def test_calls_of_a_round(room: Any) -> None:
    steady = room("steady")
    names = ["cudaStreamSynchronize", "cudaGraphLaunch_v10000", "aten::add", "cudaMemcpyAsync"]
    assert steady.calls_of([SimpleNamespace(name=name) for name in names]) == Counter(
        ["cudaStreamSynchronize", "cudaGraphLaunch", "cudaMemcpyAsync"]
    )
    short = Counter(cudaStreamSynchronize=5, cudaGraphLaunch=10), 10
    long = Counter(cudaStreamSynchronize=5, cudaGraphLaunch=30), 30
    found = steady.waits(short, long)
    assert found["calls_a_round"] == {"cudaStreamSynchronize": 0, "cudaGraphLaunch": 1}
    assert found["waits_a_round"] == 0
    polling = Counter(cudaStreamSynchronize=15, cudaEventSynchronize=10, cudaGraphLaunch=30), 30
    assert steady.waits(short, polling)["waits_a_round"] == 1.0


def test_other_decisions_show_as_a_difference(room: Any) -> None:
    difference, nan = room("kernels").difference, float("nan")
    one = (torch.tensor([1.0, nan]), torch.tensor([3]))
    assert difference(one, one) == 0
    assert difference(one, (one[0], torch.tensor([4]))) == 1
    assert difference(one, (torch.tensor([1.0, 0.0]), one[1])) > 1e9


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        (lambda r: r["kernels"]["rows"][2].update(of_copy=0.79), "share of the copy's bandwidth"),
        (lambda r: r["kernels"]["rows"][1]["times"]["graph"].update(median=1.1e-5), "us a launch"),
        (lambda r: r["kernels"]["rows"][0]["speedup"].update(called=9.0), "than the eager twin"),
        (lambda r: r["kernels"]["rows"][0]["speedup"].update(graph=9.0), "than the twin, both"),
        (lambda r: r["embedded"]["best"]["1"].update(speedup=2.4), "batch 1: speed-up"),
        (lambda r: r["largest"]["rows"][1].update(not_networks=0.04), "share that is no network"),
        (lambda r: r["steady"]["plain"].update(waits_a_round=0.1), "plain sampler: waits"),
        (lambda r: r["steady"]["speculative"].update(waits_a_round=0.3), "speculative sampler: w"),
        (lambda r: r["steady"]["memory"].update(flat=False), "memory stays flat"),
    ],
)
def test_missed_targets(room: Any, change: Any, missed: str) -> None:
    record = _reached()
    change(record)
    words = {v["target"]: v["met"] for v in room("targets").judge(record, True)}
    assert False in {met for name, met in words.items() if missed in name}
    assert sum(met is False for met in words.values()) == 2  # and what was aimed for


def _reached() -> dict[str, Any]:
    """A record that reaches all targets but what was aimed for."""
    kernels = [
        {"op": "verify_window", "B": B, "W": 8, "D": D, "of_copy": 0.85, "difference": 1e-6}
        | {"times": {"graph": {"median": 9e-6}}, "speedup": {"graph": 20.0, "called": 11.0}}
        for B, D in ((1, 784), (1, 4096), (256, 16_384))
    ]
    plain = {"window": 1, "batch": 1, "graph": None, "execution": "graph"}
    round_ = {"execution": "graph", "not_networks": 0.02}
    graphs = {"execution": "graph", "calls_a_round": {"cudaGraphLaunch": 1.0}}
    return {
        "kernels": {"rows": kernels},
        "embedded": {"rows": [plain], "best": {"1": {"speedup": 3.0}}},
        "largest": {"rows": [dict(round_), dict(round_)]},
        "steady": {
            "plain": {"waits_a_round": 0.0} | graphs,
            "speculative": {"waits_a_round": 0.1} | graphs,
            "memory": {"flat": True},
        },
    }


def test_what_means_nothing_meets_no_target(room: Any) -> None:
    record = _reached()
    record["embedded"]["rows"][0]["execution"] = "eager: no room"
    record["largest"]["rows"][0]["execution"] = "eager: no room"
    record["steady"]["plain"]["execution"] = "eager: no room"
    record["steady"]["speculative"]["calls_a_round"] = {}
    record["kernels"]["rows"][2]["of_copy"] = None
    record["kernels"]["rows"][1]["difference"] = 1.0
    whys = {v["why"] for v in room("targets").judge(record, True) if v["met"] is None}
    assert whys == {
        "the plain sampler ran eager: no room",
        "the round ran eager: no room",
        "the rounds ran eager: no room",
        "the profiler saw no graph being launched",
        "the op differs from its twin by 1",
        "not measured",
    }
