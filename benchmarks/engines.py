"""Engines: what a call costs on each, and the plain sampler against speculation on each.

    python benchmarks/engines.py --json benchmarks/results/engines.json

The embedded model, exported for this. Rows are guided states, two rows of the network each. All
engines are timed in turn, and so are all samplers, one image at a time; dirty samples are thrown
away. ``compiled`` is torch.compile, ``graphed`` (on a GPU) CUDA graphs.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from free import FrozenDrafter, Schedule, SequentialSampler, SpeculativeSampler, load_pretrained
from free.bench.samplers import StepByStep
from free.bench.timing import Timing, timed
from free.drafters.protocol import Drafter
from free.engines.interface import Session
from free.engines.load import load_engine
from free.engines.networks import EngineDrafter, EngineTeacher
from free.export.package import export_model, torch_engine
from free.files import write_json
from free.machine import machine
from free.rounds.report import Report

Engine = tuple[EngineTeacher, EngineDrafter]
ROWS = (1, 2, 4, 8, 16)


def open_engines(arguments: argparse.Namespace, folder: Path) -> dict[str, dict[Any, Engine]]:
    """Every engine with a graph for each way of drafting: ``engines[name][window, sweeps]``."""
    teacher, drafter = load_pretrained("mnist", device="cpu")
    ways = {(window, 1) for window in arguments.windows} | {(8, None)}
    engines: dict[str, dict[Any, Engine]] = {}
    for name in arguments.engines:
        engine, _, precision = name.partition(":")
        precision = precision or "fp32"
        engines[name] = {}
        for window, sweeps in sorted(ways, key=str):
            settings = {
                "window": window,
                "sweeps": sweeps,
                "precision": precision,
                "max_batch": 4,
                "guidance": (True,),
            }
            if engine.startswith("torch"):
                mode = engine.removeprefix("torch").removeprefix("-") or "eager"
                opened = torch_engine(
                    teacher, drafter, **settings, mode=mode, device=arguments.device
                )
            else:
                path = folder / f"{precision}-{window}-{sweeps}"
                if not path.exists():
                    export_model(teacher, drafter, path, **settings)
                opened = load_engine(path, engine, arguments.device)
            assert isinstance(opened[1], EngineDrafter)
            engines[name][window, sweeps] = (opened[0], opened[1])
            print(f"  {name} W = {window}, sweeps {sweeps}", flush=True)
    return engines


def call_costs(
    engines: dict[str, dict[Any, Engine]], sessions: str, rows: tuple[int, ...], repeats: int
) -> dict[str, dict[int, Timing]]:
    """Seconds of a call of the graph ``sessions``, by engine and rows."""
    functions: dict[str, Callable[[], Any]] = {}
    for name, ways in engines.items():
        teacher, drafter = ways[max(key for key in ways if key[1] is not None)]
        session: Session = (teacher.sessions | drafter.sessions)[sessions]
        for count in rows:
            inputs = session.contract.sample_inputs({"rows": count})
            inputs = {key: value.to(session.device) for key, value in inputs.items()}
            functions[f"{name}/{count}"] = partial(_synchronized, session, inputs)
    timings = timed(functions, repeats, calls=10)
    return {name: {count: timings[f"{name}/{count}"] for count in rows} for name in engines}


def window_costs(
    engines: dict[str, dict[Any, Engine]], schedule: Schedule, cfg: float, images: int
) -> dict[str, dict[str, float]]:
    """Milliseconds that drafting 7 transitions by autoregression takes of a round (median over
    images): the drafter called one by one, and the same calls as one graph.
    """
    samplers = {
        f"{name}/{way}": SpeculativeSampler(ways[8, None][0], used, schedule, cfg_scale=cfg)
        for name, ways in engines.items()
        for way, used in (
            ("one by one", StepByStep(ways[8, None][1])),
            ("one graph", ways[8, None][1]),
        )
    }
    reports: dict[str, list[Report]] = {name: [] for name in samplers}
    draws = {name: _draws(sampler, reports[name]) for name, sampler in samplers.items()}
    timed(draws, images, warmup=1, attempts=1)
    costs = {
        name: 1e3 * statistics.median(r.seconds_by_phase["draft"] / r.rounds for r in kept[1:])
        for name, kept in reports.items()
    }
    return {
        name: {way: costs[f"{name}/{way}"] for way in ("one by one", "one graph")}
        for name in engines
    }


def samplers_of(
    engines: dict[str, dict[Any, Engine]], schedule: Schedule, cfg: float
) -> dict[str, SequentialSampler | SpeculativeSampler]:
    """For each engine the plain sampler, the paper's way, and ours with and without training."""
    samplers: dict[str, SequentialSampler | SpeculativeSampler] = {}
    for name, ways in engines.items():
        for (window, sweeps), (teacher, drafter) in ways.items():
            samplers.setdefault(f"{name}/plain", SequentialSampler(teacher, schedule, cfg))
            settings: dict[str, Any] = {"window": window, "sweeps": sweeps, "cfg_scale": cfg}
            if sweeps is None:
                key = f"{name}/autoregression, W = {window}"
                samplers[key] = SpeculativeSampler(teacher, drafter, schedule, **settings)
                continue
            both: dict[str, Drafter] = {"1 sweep": drafter, "no training": FrozenDrafter()}
            for way, used in both.items():
                samplers[f"{name}/{way}, recycled, W = {window}"] = SpeculativeSampler(
                    teacher, used, schedule, recycle="response", **settings
                )
    return samplers


def _synchronized(session: Session, inputs: dict[str, torch.Tensor]) -> None:
    session.run(inputs)
    if session.device.type == "cuda":
        torch.cuda.synchronize()


def _draws(sampler: Any, reports: list[Report]) -> Callable[[], Any]:
    counter = itertools.count()

    def draw() -> None:
        index = next(counter)
        reports.append(sampler.sample([index % 10], seed=1000 + index).report)

    return draw


def _milliseconds(timing: Timing) -> dict[str, Any]:
    return {
        **timing._asdict(),
        **{name: 1e3 * getattr(timing, name) for name in ("median", "iqr", "minimum")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engines", nargs="+", default=["torch", "torch-compiled", "onnxruntime"])
    parser.add_argument("--windows", nargs="+", type=int, default=[4, 8, 16])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--cfg", type=float, default=1.5)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    with tempfile.TemporaryDirectory() as scratch:
        print("opening ...")
        engines = open_engines(arguments, Path(scratch))
        record: dict[str, Any] = {"machine": machine(), "arguments": vars(arguments)}
        for title, graph, rows in (
            ("teacher", "teacher_guided", ROWS),
            ("drafter", "drafter_guided", ROWS),
        ):
            costs = call_costs(engines, graph, rows, arguments.repeats)
            record[title] = {
                name: {count: _milliseconds(t) for count, t in line.items()}
                for name, line in costs.items()
            }
            print(f"\n{title}, ms a call" + "".join(f"{count:>9d}" for count in rows) + "  rows")
            for name, line in costs.items():
                print(f"{name:20s}" + "".join(f"{1e3 * t.median:9.2f}" for t in line.values()))
        schedule = Schedule.ddpm(arguments.steps)
        windows = window_costs(engines, schedule, arguments.cfg, arguments.images)
        record["draft"] = windows
        print("\n7 drafts by autoregression, ms a round  one by one  one graph  saved")
        for name, line in windows.items():
            slow, fast = line["one by one"], line["one graph"]
            print(f"{name:32s}{slow:12.2f}{fast:11.2f}{1 - fast / slow:8.0%}")

        samplers = samplers_of(engines, schedule, arguments.cfg)
        reports: dict[str, list[Report]] = {name: [] for name in samplers}
        draws = {name: _draws(sampler, reports[name]) for name, sampler in samplers.items()}
        timings = timed(draws, arguments.images, warmup=1)
        print(
            "\none image                                        s      iqr   steps a round   "
            "x own plain   x torch plain   clean"
        )
        record["samplers"] = {}
        for name, timing in timings.items():
            engine = name.split("/")[0]
            own = timings[f"{engine}/plain"].median
            torch_plain = timings.get("torch/plain", timing).median
            efficiency = statistics.mean(r.parallel_efficiency for r in reports[name])
            print(
                f"{name:44s}{timing.median:8.3f}{timing.iqr:8.3f}{efficiency:13.2f}"
                f"{own / timing.median:14.2f}{torch_plain / timing.median:15.2f}"
                f"{timing.samples:9d}/{timing.samples + timing.discarded}"
                + ("" if timing.clean else " DIRTY")
            )
            record["samplers"][name] = {**timing._asdict(), "parallel_efficiency": efficiency}
    if arguments.json:
        write_json(arguments.json, record)


if __name__ == "__main__":
    main()
