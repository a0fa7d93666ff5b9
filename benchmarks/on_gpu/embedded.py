"""The embedded model: the plain sampler against speculation, wall-clock, both graph-captured.

All samplers draw the same seeds, one after the other; each was called once before. The speed-up is
over the fastest plain sampler of the batch size, also for samplers without graphs. The best one's
round is taken apart; and, if time is left, the best and the plain sampler are compiled too.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from free import DiT, Schedule, load_pretrained
from free.drafters import FeatureDrafter
from free.sampling.cuda_graphs import Graphing
from on_gpu.bench import Bench
from on_gpu.parts import PARTS, breakdown, parts
from on_gpu.samplers import Draws, interleaved, sampler_of

STEPS, GUIDANCE = 250, (1.5, None)
BATCHES = (1, 8)
#: Window and sweeps; None is autoregression, the paper's way.
WAYS = [*((window, sweeps) for window in (4, 8, 16, 32) for sweeps in (1, 2)), (8, None)]
#: For tiny runs.
SMALL_STEPS, SMALL_WAYS, SMALL_BATCHES = 4, [(3, 1), (3, None)], (1,)
REPEATS = (3, 20)
_NAMES: dict[Graphing, str] = {
    None: "graphs where they can be had",
    False: "eager",
    "compiled": "compiled, then graphs",
}


def run(bench: Bench, record: dict[str, Any]) -> None:
    """Fill ``rows`` and, by batch, ``best`` with its breakdown."""
    teacher, drafter = load_pretrained("mnist", device=bench.device)
    assert isinstance(drafter, FeatureDrafter)
    schedule = Schedule.ddpm(SMALL_STEPS if bench.small else STEPS)
    record |= {"unit": "seconds a batch", "steps": len(schedule), "cfg_scale": GUIDANCE[0]}
    record |= {"rows": [], "best": {}}
    batches = SMALL_BATCHES if bench.small else BATCHES
    every = SMALL_WAYS if bench.small else WAYS
    pairs: list[tuple[int, Graphing]] = [
        (batch, graph) for graph in (None, False) for batch in batches
    ]
    if bench.device.type == "cuda":
        pairs += [(batch, "compiled") for batch in batches]
    for index, (batch, graph) in enumerate(pairs):
        title = f"batch {batch}, {_NAMES[graph]}"
        if not bench.allows(title):
            continue
        with bench.attempt(title):
            share = bench.left / (len(pairs) - index)
            ways = every
            if graph == "compiled":  # each takes a minute to compile
                best = best_of(record["rows"], batch)
                ways = [(best["window"], best["sweeps"])]
            rows = _group(bench, (teacher, drafter, schedule), batch, graph, share, ways)
            record["rows"] += rows
            with_speedups(record["rows"], batch)
            if str(batch) in record["best"]:
                record["best"][str(batch)]["speedup"] = best_speedup(record["rows"], batch)
            _print(title, rows)
        if graph is None:
            with bench.attempt(f"best of {title}"):
                best = best_of(record["rows"], batch)
                record["best"][str(batch)] = _apart(bench, (teacher, drafter, schedule), best)


def _group(
    bench: Bench,
    networks: tuple[DiT, FeatureDrafter, Schedule],
    batch: int,
    graph: Graphing,
    seconds: float,
    speculative: list[tuple[int, int | None]],
) -> list[dict[str, Any]]:
    """The samplers of one batch size, interleaved for about so long."""
    ways: dict[str, tuple[int, int | None]] = {"plain": (1, None)}
    for window, sweeps in speculative:
        ways[_name(window, sweeps)] = (window, sweeps)
    clock, draws, once = bench.clock(), {}, 0.0
    for name, (window, sweeps) in ways.items():
        with bench.attempt(f"{name}, batch {batch}, graph={graph}"):
            sampler = sampler_of(*networks, GUIDANCE, window, sweeps, graph)
            draw = Draws(sampler, batch, networks[0].num_classes, clock)
            for _ in range(1 if batch == 1 else 3):
                draw()  # captures, also for the smaller batches that remain at the end
            began = time.perf_counter()
            draw()
            once += time.perf_counter() - began
            draws[name] = draw
    fewest, most = REPEATS
    repeats = 2 if bench.small else max(fewest, min(most, int(0.8 * seconds / once)))
    rows = []
    for name, (timing, report) in interleaved(draws, repeats).items():
        window, sweeps = ways[name]
        rounds = report.rounds / (report.samples / batch)
        rows.append(
            {"name": name, "batch": batch, "graph": graph, "window": window, "sweeps": sweeps}
            | timing._asdict()
            | {
                "rounds": rounds,
                "seconds_a_round": timing.median / rounds,
                "steps_a_round": report.parallel_efficiency,
                "acceptance": report.acceptance if report.proposed else None,
                "execution": report.execution,
            }
        )
    return rows


def _name(window: int, sweeps: int | None) -> str:
    way = "autoregression" if sweeps is None else f"{sweeps} sweep" + "s" * (sweeps > 1)
    return f"W = {window}, {way}"


def with_speedups(rows: list[dict[str, Any]], batch: int) -> None:
    """Over the fastest plain sampler of the batch size; None without one that may have graphs."""
    same = [row for row in rows if row["batch"] == batch]
    plain = [row["median"] for row in same if row["window"] == 1 and row["graph"] is not False]
    for row in same:
        row["speedup"] = min(plain) / row["median"] if plain else None


def best_speedup(rows: list[dict[str, Any]], batch: int) -> float:
    """The fastest speculative sampler's, compiled or not, over the fastest plain sampler's."""
    same = [row for row in rows if row["batch"] == batch and row["graph"] is not False]
    plain, speculative = (
        min(row["median"] for row in same if (row["window"] > 1) == drafts)
        for drafts in (False, True)
    )
    return float(plain / speculative)


def best_of(rows: list[dict[str, Any]], batch: int) -> dict[str, Any]:
    """The fastest speculative sampler at this batch size, with graphs where they can be had."""
    speculative = [row for row in rows if row["window"] > 1 and row["batch"] == batch]
    return min((row for row in speculative if row["graph"] is None), key=lambda row: row["median"])


@torch.no_grad()
def _apart(
    bench: Bench, networks: tuple[DiT, FeatureDrafter, Schedule], best: dict[str, Any]
) -> dict[str, Any]:
    work = parts(*networks, GUIDANCE, best["batch"], best["window"], best["sweeps"])
    found = breakdown(bench.clock(), work, best["seconds_a_round"])
    pieces = ", ".join(
        f"{name} {1e6 * found['seconds'][name]:.0f} us ({found['share'][name]:.0%})"
        for name in (*PARTS, "rest")
    )
    print(f"best: {best['name']}, a round {1e6 * found['round']:.0f} us: {pieces}", flush=True)
    return {name: best[name] for name in ("name", "window", "sweeps", "speedup")} | found


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title:<26}{'ms':>10}{'iqr':>8}{'rounds':>8}{'us/round':>10}{'speed-up':>10}")
    for row in rows:
        ms = f"{1e3 * row['median']:10.2f}{1e3 * row['iqr']:8.2f}"
        round_ = f"{row['rounds']:8.1f}{1e6 * row['seconds_a_round']:10.1f}"
        note = "" if row["clean"] else "  busy machine"
        speedup = f"{'-':>10}" if row["speedup"] is None else f"{row['speedup']:10.2f}"
        how = row["execution"].partition(":")[0]
        print(f"{row['name']:<26}{ms}{round_}{speedup}  {how}{note}", flush=True)
    for reason in dict.fromkeys(row["execution"] for row in rows if row["execution"] != "graph"):
        print(reason)
