"""Time the compiled kernels beside their torch twins.

    python benchmarks/kernels.py [--json benchmarks/results/kernels.json]

Both are given the same arguments and called in turn. `course` says how many drafts of a verified
window stand: all of them (every row is read) or those of a typical round (delta = .3, i.e.
acceptance .88). A window of W states is rolled forward by P = W - 1 transitions. Where the twin's
temporaries are large (B * W * D beyond some 100,000) its time depends on whether the allocator
hands out fresh pages, and varies several-fold between runs: read the small cases. With so little
to compute as in the first of them (D = 32) the compiled op's time is that of a call.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

from free import ops, reference
from free.bench.timing import timed
from free.files import write_json
from free.machine import machine
from free.reference.draft import RESPONSE
from free.rounds import noise as random
from free.rounds.noise import Purpose

#: Batch, window, elements of a state (32: a call and little else; 784: MNIST; 4,096 and 16,384:
#: latents of 256^2 and 512^2).
CASES = [
    (1, 16, 32),
    (1, 8, 784),
    (1, 8, 4096),
    (1, 8, 16_384),
    (1, 16, 784),
    (8, 8, 784),
    (8, 8, 4096),
]
#: Verifier, what becomes of the window, and the delta that makes it so.
COURSES = [
    ("reflection", "all stand", 0.0),
    ("reflection", "typical", 0.3),
    ("block", "all stand", 0.0),
    ("block", "typical", 0.3),
]
SIGMA = 0.1
#: Draft means that are so many sigma from the target's: acceptance .88 each.
DELTA = 0.3
SAMPLE_SECONDS = 0.05


Device = torch.device | str
Arguments = dict[str, Any]


def _drawn_on(device: Device) -> dict[str, Any]:
    return {"device": device, "generator": torch.Generator(device).manual_seed(0)}


def window(
    batch: int, width: int, dim: int, delta: float = DELTA, device: Device = "cpu"
) -> Arguments:
    """Arguments of verify_window, with draft means ``delta`` sigma away from the target's."""
    there = _drawn_on(device)
    target_means = torch.randn(batch, width, dim, **there)
    shift = torch.randn(batch, width - 1, dim, **there) * delta / dim**0.5
    draft_means = target_means[:, :-1] + SIGMA * shift
    states = torch.empty(batch, width, dim, device=device)
    states[:, 0] = torch.randn(batch, dim, **there)
    z = torch.randn(batch, width - 1, dim, **there)
    states[:, 1:] = draft_means + SIGMA * z
    return {
        "states": states,
        "draft_means": draft_means,
        "target_means": target_means,
        "sigma": torch.full((batch, width), SIGMA, device=device),
        "length": torch.full((batch,), width, dtype=torch.int32, device=device),
        "uniforms": torch.rand(batch, width - 1, **there),
        "noise": torch.randn(batch, dim, **there),
    }


def relaxed(batch: int, width: int, dim: int, device: Device = "cpu") -> Arguments:
    """Arguments of verify_window_relaxed."""
    spent = torch.zeros(batch, dtype=torch.float64, device=device)
    given = window(batch, width, dim, DELTA, device)
    return given | {"uncertainty": None, "spent": spent, "budget": 1.0}


def draws(batch: int, width: int, dim: int, device: Device = "cpu") -> Arguments:
    """Arguments of window_noise."""
    seeds = torch.arange(batch, device=device)
    return {
        "seeds": seeds,
        "k": seeds % 250,
        "rounds": None,
        "widths": torch.full((batch,), width, device=device),
        "like": torch.empty(batch, dim, device=device),
        "width": width,
        "steps": 250 + width,
        "purpose": int(Purpose.TRANSITION),
        "decision": int(Purpose.DECISION),
    }


def guesses(batch: int, width: int, dim: int, device: Device = "cpu") -> Arguments:
    """Arguments of first_guesses: the teacher has seen every transition, and is followed. The
    window is not rolled.
    """
    there, rows = _drawn_on(device), batch * width
    return {
        "x": torch.randn(batch, dim, **there),
        "k": torch.arange(batch, device=device) % 250,
        "past_x": torch.randn(rows, dim, **there),
        "past_guess": torch.randn(rows, dim, **there),
        "row": torch.arange(rows, device=device).view(batch, width),
        "known": torch.full((batch,), width, device=device),
        "source": RESPONSE,
        "dot": torch.rand(batch, **there),
        "square": torch.ones(batch, device=device),
        "columns": torch.rand(8, 250, **there),
        "drafts": width - 1,
    }


def roll(batch: int, width: int, dim: int, device: Device = "cpu") -> Arguments:
    """Arguments of roll_window_: a window of guesses that follow their states, with the
    coefficients of a late transition.
    """
    there, drafts = _drawn_on(device), width - 1
    rows = {"states": width, "means": drafts, "guesses": width}
    late = (1.01, -0.05, 0.0, SIGMA, 1.0, 0.01)
    return {
        **{name: torch.randn(batch, count, dim, **there) for name, count in rows.items()},
        **{name: torch.randn(batch, drafts, dim, **there) for name in ("noise", "intercept")},
        "slope": torch.full((batch, drafts), 0.1, device=device),
        "change": None,
        "settled": None,
        "says": "guess",
        "coefficients": torch.stack([torch.full((batch, width), c, device=device) for c in late]),
        "first": 0,
        "end": drafts,
    }


def means(batch: int, width: int, dim: int, device: Device = "cpu") -> Arguments:
    """Arguments of target_means: without guidance."""
    there, rows = _drawn_on(device), batch * width
    return {
        **{name: torch.randn(rows, 1, dim, **there) for name in ("x", "eps")},
        "k": torch.arange(rows, device=device) % 250,
        "columns": 0.5 + torch.rand(8, 250, **there),
    }


def note(batch: int, width: int, dim: int, device: Device = "cpu") -> Arguments:
    """Arguments of note_nonfinite_: all rows are asked about, and finite."""
    there, samples = _drawn_on(device), torch.arange(batch, device=device)
    return {
        "failed": torch.full_like(samples, torch.iinfo(torch.int64).max),
        "samples": samples,
        "values": torch.randn(batch * width, dim, **there),
        "k": torch.arange(batch * width, device=device),
        "first": 0,
        "low": None,
        "high": torch.full_like(samples, width),
    }


def sums(batch: int, width: int, dim: int, device: Device = "cpu") -> Arguments:
    """Arguments of response_sums: windows that were seen before and made as a whole."""
    there, rows = _drawn_on(device), batch * width
    steps = torch.full((batch,), width, dtype=torch.int32, device=device)
    return {
        **{name: torch.randn(batch, width, dim, **there) for name in ("states", "guess")},
        **{name: torch.randn(rows, dim, **there) for name in ("past_x", "past_guess")},
        "row": torch.arange(rows, device=device).view(batch, width),
        "known": torch.full((batch,), width, device=device),
        "length": steps,
        "advance": steps,
        **{name: torch.rand(batch, **there) for name in ("dot", "square")},
        "memory": 0.9,
    }


def samples(batch: int, width: int, dim: int, device: Device = "cpu") -> Arguments:
    """Arguments of advance_samples_: nobody has finished."""
    zero = torch.zeros(batch, dtype=torch.int64, device=device)
    length = torch.full((batch,), width, dtype=torch.int32, device=device)
    advance = (1 + torch.arange(batch, device=device) % width).int()
    return {
        **{name: torch.empty(batch, dim, device=device) for name in ("after", "x")},
        **dict.fromkeys(("k", "rounds"), zero),
        "wanted": zero + width,
        "length": length,
        "advance": advance,
        "accepted": advance - 1,
        "width": width,
        "discarded": True,
    }


def asked(batch: int, width: int, dim: int, device: Device = "cpu") -> Arguments:
    """Arguments of network_rows: all of every window, with and without label."""
    k = torch.arange(batch * width, device=device).view(batch, width) % 250
    return {
        "states": torch.randn(batch, width, dim, **_drawn_on(device)),
        "at": k,
        "y": k[:, 0].contiguous(),
        "timesteps": torch.arange(250, device=device),
        "rows": batch * width,
        "first": 0,
        "end": width,
        "null_label": 1000,
    }


def told(batch: int, width: int, dim: int, device: Device = "cpu") -> Arguments:
    """Arguments of drafter_rows: all drafts of every window, with and without label."""
    rows, there = batch * (width - 1), _drawn_on(device)
    k = torch.arange(rows, device=device) % 250
    return {
        **{name: torch.randn(rows, dim, **there) for name in ("x", "mean")},
        "k": k,
        "y": k,
        "timesteps": torch.arange(250, device=device),
        "sigma": 0.1 + torch.rand(250, **there),
        "null_label": 1000,
    }


#: The ops of a round besides verify_window, and what they are given.
OF_WINDOWS = {
    "verify_window_relaxed": relaxed,
    "window_noise": draws,
    "first_guesses": guesses,
    "roll_window_": roll,
    "target_means": means,
    "note_nonfinite_": note,
    "response_sums": sums,
    "network_rows": asked,
    "drafter_rows": told,
    "advance_samples_": samples,
}


def calls_for(function: Callable[[], Any]) -> int:
    """Calls that fill a sample."""
    seconds = timed({"": function}, repeats=5, calls=20)[""].minimum
    return max(1, round(SAMPLE_SECONDS / seconds))


def compare(compiled: Callable[[], Any], twin: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Timings of both, and how many times faster the compiled one is."""
    functions = {"compiled": compiled, "twin": twin}
    calls = {name: calls_for(function) for name, function in functions.items()}
    timing = timed(functions, repeats, calls=calls)
    return {name: t._asdict() for name, t in timing.items()} | {
        "speedup": timing["twin"].median / timing["compiled"].median,
        "speedup_of_minima": timing["twin"].minimum / timing["compiled"].minimum,
    }


def row(label: str, result: dict[str, Any]) -> str:
    us = {
        name: f"{1e6 * result[name]['median']:8.1f} ± {1e6 * result[name]['iqr']:5.1f}"
        for name in ("compiled", "twin")
    }
    discarded = result["compiled"]["discarded"] + result["twin"]["discarded"]
    note = f"{discarded} discarded"
    if not (result["compiled"]["clean"] and result["twin"]["clean"]):
        note = "busy machine"
    return f"{label:<40}{us['compiled']} {us['twin']} {result['speedup']:8.1f}   {note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", metavar="PATH", help="write the results here")
    parser.add_argument("--repeats", type=int, default=30, help="samples of each (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads (%(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    results = []
    print(f"{'':<40}{'compiled (us)':>16} {'twin (us)':>16} {'times':>8}")
    for batch, width, dim in CASES:
        for verifier, course, delta in COURSES:
            given = window(batch, width, dim, delta) | {"verifier": verifier}
            accepted = ops.verify_window(**given).accepted.float().mean().item()
            result = compare(
                lambda given=given: ops.verify_window(**given),
                lambda given=given: reference.verify_window(**given),
                arguments.repeats,
            )
            case = {"op": "verify_window", "verifier": verifier, "course": course}
            case |= {"B": batch, "W": width, "D": dim, "mean_accepted": accepted}
            results.append(case | result)
            print(row(f"{verifier} B={batch} W={width} D={dim} {course}", result), flush=True)

    for name, arguments_of in OF_WINDOWS.items():
        op, twin = getattr(ops, name), getattr(reference, name)
        for batch, width, dim in CASES:
            given = arguments_of(batch, width, dim)
            result = compare(
                lambda op=op, given=given: op(**given),
                lambda twin=twin, given=given: twin(**given),
                arguments.repeats,
            )
            results.append({"op": name, "B": batch, "W": width, "D": dim} | result)
            print(row(f"{name} B={batch} W={width} D={dim}", result), flush=True)

    seeds, k = torch.arange(8), torch.full((8,), 3)
    for name, shape, purpose in (
        ("normal", (1, 28, 28), Purpose.TRANSITION),
        ("uniform", (), Purpose.DECISION),
    ):
        draw, twin = getattr(random, name), getattr(reference, f"philox_{name}")
        size = torch.Size(shape).numel()
        result = compare(
            lambda draw=draw, shape=shape, purpose=purpose: draw(seeds, k, k, purpose, shape),
            lambda twin=twin, size=size, purpose=purpose: twin(seeds, k, k, purpose, size),
            arguments.repeats,
        )
        results.append({"op": name, "R": 8, "D": size} | result)
        print(row(f"{name} R=8 D={size}", result), flush=True)

    if arguments.json:
        write_json(
            arguments.json, {"machine": machine(), "unit": "seconds a call", "results": results}
        )


if __name__ == "__main__":
    main()
