"""Each kernel beside its torch twin, eager and compiled, and a copy of as many bytes.

`called`: from the host, one after the other. `graph`: replayed, the device alone. The share of the
copy's bandwidth is that of the graphs. Bytes are the fewest that the op must move, every input
read and every result written once; where they fit into the L2 cache (`cached`), op and copy are
both faster than memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import kernels
from free import ops, reference
from free.rounds.noise import Purpose
from on_gpu.bench import Bench
from on_gpu.clock import Clock, Time, as_json, first_line

BATCHES, DIMS, WIDTH = (1, 8, 64, 256), (784, 4096, 16_384), 8
SMALL = ((1, 2), (16, 40), 3)
CFG_SCALE, CFG_CHANNELS = 4.0, 3
#: By how much an op and its twin may differ: roundings, but no decision.
ALIKE = 1e-3


def _several(result: Any) -> tuple[Tensor, ...]:
    results = (result,) if isinstance(result, Tensor) else tuple(result)
    return tuple(one for one in results if one.numel())  # none is one that was not asked for


class Case(NamedTuple):
    """An op with its twin, what both are given, and the bytes that must move."""

    op: Callable[..., Any]
    twin: Callable[..., Any]
    given: dict[str, Any]
    bytes: int


def _verify(batch: int, width: int, dim: int, device: torch.device) -> Case:
    given = kernels.window(batch, width, dim, device=device)
    # Drafts, their means, the target's of these; the noise and the state. The target's last row
    # only counts where every draft stands.
    moved = 4 * batch * dim * (3 * (width - 1) + 2)
    return Case(ops.verify_window, reference.verify_window, given, moved)


def _noise(batch: int, width: int, dim: int, device: torch.device) -> Case:
    given = kernels.draws(batch, width, dim, device)
    moved = 4 * batch * (width * dim + width - 1)
    return Case(ops.window_noise, reference.window_noise, given, moved)


def _guesses(batch: int, width: int, dim: int, device: torch.device) -> Case:
    """With a window that is rolled from them."""
    given = kernels.guesses(batch, width, dim, device)
    given["noise"] = torch.randn(batch, width - 1, dim, device=device)
    moved = 4 * batch * dim * (1 + 2 * width + 3 + 5 * (width - 1))
    return Case(ops.first_guesses, reference.first_guesses, given, moved)


def _in_place(op: Callable[..., None], given: dict[str, Any], *names: str) -> Callable[..., Any]:
    """The op on tensors of its own, which are its results."""
    own = {name: given[name].clone() for name in names}

    def call(**given: Any) -> tuple[Tensor, ...]:
        op(**(given | own))
        return tuple(own.values())

    return call


def _roll(batch: int, width: int, dim: int, device: torch.device) -> Case:
    given = kernels.roll(batch, width, dim, device)
    moved = 4 * batch * dim * (1 + 5 * (width - 1))
    both = (ops.roll_window_, reference.roll_window_)
    op, twin = (_in_place(each, given, "states", "means", "guesses") for each in both)
    return Case(op, twin, given, moved)


def _means(batch: int, width: int, dim: int, device: torch.device) -> Case:
    """A guided teacher in bf16, and the image that it tells."""
    rows = batch * width
    given = kernels.means(batch, width, dim, device) | {
        "x": torch.randn(rows, 4, dim // 4, device=device),
        "eps": torch.randn(2 * rows, 4, dim // 4, device=device).bfloat16(),
        "cfg_scale": CFG_SCALE,
        "cfg_channels": CFG_CHANNELS,
    }
    # Of unguided channels the rows without label are not needed.
    moved = rows * (dim // 4 * (4 * (4 + 2 + 4 + 4 + 4) + 2 * CFG_CHANNELS) + 4 * 4)
    return Case(ops.target_means, reference.target_means, given, moved)


def _note(batch: int, width: int, dim: int, device: torch.device) -> Case:
    """A teacher in bf16 that is asked about all rows, and wrong in one."""
    given = kernels.note(batch, width, dim, device)
    given["values"] = given["values"].bfloat16()
    given["values"][-1, -1] = torch.nan
    given["low"] = torch.zeros_like(given["high"])
    # k and what failed are read only where something is wrong.
    moved = batch * width * 2 * dim + batch * 3 * 8
    both = (ops.note_nonfinite_, reference.note_nonfinite_)
    op, twin = (_in_place(each, given, "failed") for each in both)
    return Case(op, twin, given, moved)


def _sums(batch: int, width: int, dim: int, device: torch.device) -> Case:
    given = kernels.sums(batch, width, dim, device)
    for name in ("states", "guess", "past_x", "past_guess"):
        given[name] /= dim**0.5  # sums of about W
    moved = batch * ((width - 1) * (4 * 4 * dim + 8) + 8 + 2 * 4 + 4 * 4)
    return Case(ops.response_sums, reference.response_sums, given, moved)


def _normal(batch: int, width: int, dim: int, device: torch.device) -> Case:
    rows = batch * width
    seeds = torch.arange(rows, device=device)
    columns = {"seeds": seeds, "transition": seeds % 250, "round": 0 * seeds}
    given = columns | {"purpose": int(Purpose.TRANSITION), "size": dim}
    return Case(ops.philox_normal, reference.philox_normal, given, rows * (4 * dim + 3 * 8))


def _asked(batch: int, width: int, dim: int, device: torch.device) -> Case:
    given = kernels.asked(batch, width, dim, device)
    moved = batch * width * (3 * 4 * dim + 6 * 8)
    return Case(ops.network_rows, reference.network_rows, given, moved)


def _told(batch: int, width: int, dim: int, device: torch.device) -> Case:
    given = kernels.told(batch, width, dim, device)
    moved = batch * (width - 1) * (6 * 4 * dim + 6 * 8)
    return Case(ops.drafter_rows, reference.drafter_rows, given, moved)


def _samples(batch: int, width: int, dim: int, device: torch.device) -> Case:
    """No state is moved, as nobody has finished."""
    given = kernels.samples(batch, width, dim, device)
    moved = batch * (3 * 4 + 3 * 8 + 8 * width + 3 * 8)
    return Case(ops.advance_samples_, reference.advance_samples_, given, moved)


OPS = {
    "verify_window": _verify,
    "window_noise": _noise,
    "first_guesses": _guesses,
    "roll_window_": _roll,
    "target_means": _means,
    "note_nonfinite_": _note,
    "response_sums": _sums,
    "philox_normal": _normal,
    "network_rows": _asked,
    "drafter_rows": _told,
    "advance_samples_": _samples,
}


def cases(small: bool) -> list[tuple[str, int, int, int]]:
    """Op, B, W, D."""
    batches, dims, width = SMALL if small else (BATCHES, DIMS, WIDTH)
    return [(name, batch, width, dim) for name in OPS for dim in dims for batch in batches]


@torch.no_grad()
def run(bench: Bench, record: dict[str, Any]) -> None:
    """Fill ``rows`` and say why twins are not compiled, if they are not."""
    clock = bench.clock()
    record["unit"], record["rows"] = "seconds a call", []
    print(f"{'us a call':<36}{'op':>9}{'called':>9}{'twin':>9}{'called':>9}{'copy':>9}  of copy")
    for name, batch, width, dim in cases(bench.small):
        label = labelled(name, batch, width, dim)
        if not bench.allows(label, reserve=0.35):  # for compiling
            continue
        with bench.attempt(label):
            case = OPS[name](batch, width, dim, bench.device)
            row = {"op": name, "B": batch, "W": width, "D": dim} | measured(case, clock)
            record["rows"].append(row)
            print(_line(label, row), flush=True)
    _compiled(bench, record, clock)


def measured(case: Case, clock: Clock) -> dict[str, Any]:
    """Times of an op, of its twin and of the copy."""
    op, twin = (lambda: case.op(**case.given)), (lambda: case.twin(**case.given))
    source = torch.empty(max(case.bytes // 2, 1), dtype=torch.uint8, device=clock.device)
    target = torch.empty_like(source)
    found = {
        "times": {"graph": clock.replayed(op), "called": clock.called(op)},
        "twin": {"graph": clock.replayed(twin), "called": clock.called(twin)},
        "copy": {
            "graph": clock.replayed(lambda: target.copy_(source)),
            "called": clock.called(lambda: target.copy_(source)),
        },
    }
    times = {how: {k: as_json(v) for k, v in both.items()} for how, both in found.items()}
    return {
        "bytes": case.bytes,
        "cached": cached(case.bytes, clock.device),
        "difference": difference(_several(op()), _several(twin())),
        **times,
        "of_copy": ratio(found["copy"]["graph"], found["times"]["graph"]),
        "speedup": {
            how: ratio(found["twin"][how], found["times"][how]) for how in ("graph", "called")
        },
    }


def difference(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> float:
    """The largest between results; decisions that differ count as what they are, at least 1."""
    pairs = zip(one, other, strict=True)
    return max(
        float((a.double().nan_to_num(9e9) - b.double().nan_to_num(9e9)).abs().max())
        for a, b in pairs
    )


def ratio(over: Time | str, under: Time | str) -> float | None:
    """Of medians; None where one is not known."""
    if isinstance(over, str) or isinstance(under, str):
        return None
    return over.median / under.median


def cached(size: int, device: torch.device) -> bool | None:
    """Whether so many bytes fit into the GPU's L2 cache; None where that is not known."""
    if device.type != "cuda":
        return None
    cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", None)
    return None if cache is None else size <= cache


# --- compiled twins ------------------------------------------------------------------------------


def compiler_fails(bench: Bench) -> str | None:
    """Why torch.compile does not work here; None if it does."""
    if bench.device.type != "cuda":
        return f"not compared on {bench.device.type}"
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=bench.device))
    except Exception as error:  # of dynamo, inductor, triton, a compiler ...
        return f"torch.compile fails: {first_line(error)}"
    return None


def _compiled(bench: Bench, record: dict[str, Any], clock: Clock) -> None:
    """Compile twins as long as there is time; the shapes of the targets first."""
    reason = compiler_fails(bench)
    record["compiled"] = reason or "torch.compile(dynamic=False)"
    if reason is not None:
        print(f"compiled twins: {reason}")
        return
    first = [(1, 4096), (256, 16_384)]
    rows = sorted(record["rows"], key=lambda row: (row["B"], row["D"]) not in first)
    for row in rows:
        label = labelled(row["op"], row["B"], row["W"], row["D"])
        if not bench.allows(f"compiled twin of {label}"):
            continue
        with bench.attempt(f"compiled twin of {label}"):
            torch.compiler.reset()  # or a function is not compiled for more than some shapes
            case = OPS[row["op"]](row["B"], row["W"], row["D"], bench.device)
            function = torch.compile(case.twin, dynamic=False)
            work = lambda: function(**case.given)  # noqa: B023, E731
            graph, called = clock.replayed(work), clock.called(work)
            row["compiled"] = {"graph": as_json(graph), "called": as_json(called)}
            print(f"compiled twin of {label:<36}{_us(graph)}{_us(called)}", flush=True)


# --- the table -----------------------------------------------------------------------------------


def labelled(name: str, batch: int, width: int, dim: int) -> str:
    return f"{name} B={batch} W={width} D={dim}"


def _line(label: str, row: dict[str, Any]) -> str:
    times = [row[of][how] for of in ("times", "twin") for how in ("graph", "called")]
    share = "" if row["of_copy"] is None else f"{row['of_copy']:8.0%}"
    note = "" if row["difference"] < ALIKE else f"  DIFFERS from the twin by {row['difference']:g}"
    return f"{label:<36}{''.join(map(_us, [*times, row['copy']['graph']]))}{share}{note}"


def _us(found: Any) -> str:
    if isinstance(found, str):
        return f"{'-':>9}"
    median = found["median"] if isinstance(found, dict) else found.median
    return f"{1e6 * median:9.1f}"
