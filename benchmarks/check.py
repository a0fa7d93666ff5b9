"""Has anything become worse? Figures that do not depend on the machine, beside the committed ones.

    make bench-check
    python benchmarks/check.py --only rounds,instructions
    python benchmarks/check.py --update      # what is measured now becomes what is committed

Rounds and acceptance of fixed requests, which only another rounding can change; ratios of times
taken in turn in one run; instructions of the C++ core, counted by callgrind where valgrind is
installed. Exits with 1 if a figure is worse than its tolerance allows.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

import kernels
from free import (
    FrozenDrafter,
    Schedule,
    SpeculativeSampler,
    TeacherOutput,
    load_pretrained,
    ops,
    reference,
)
from free.bench.timing import timed
from free.files import write_json
from free.machine import machine
from free.rounds import noise as random
from free.rounds.noise import Purpose
from free.rounds.report import Report
from free.sampling.sequential import SequentialSampler

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = ROOT / "benchmarks" / "results" / "check.json"
WIDTH, SIZE = 8, 784


class Kind(NamedTuple):
    """How figures of a kind are compared.

    Attributes
    ----------
    allowed : float
        How far they may be off, relative to the committed one, or absolutely.
    relative : bool
    worse : int
        1 if more is worse, -1 if less is, 0 if any change is.
    """

    allowed: float
    relative: bool
    worse: int


#: Another processor rounds otherwise, and one decision that falls otherwise changes what follows:
#: hence a tolerance even for counts.
KINDS = {
    "rounds": Kind(0.05, True, 0),
    "acceptance": Kind(0.03, False, 0),
    "times faster than the twin": Kind(0.4, True, -1),
    "of a plain step's": Kind(0.5, True, 1),
    "instructions": Kind(0.02, True, 1),
}


class Figure(NamedTuple):
    """A number, and what it is."""

    value: float
    kind: str


class Verdict(NamedTuple):
    """A line of the table."""

    name: str
    kind: str
    committed: float | None
    now: float | None
    word: str
    failed: bool


def compare(
    committed: dict[str, Figure], now: dict[str, Figure], skipped: dict[str, str]
) -> list[Verdict]:
    """Verdicts on all figures; ``skipped`` says why a kind was not measured."""
    verdicts = []
    for name in {**committed, **now}:
        before, after = committed.get(name), now.get(name)
        kind = (before or after).kind
        old, new = (None if figure is None else figure.value for figure in (before, after))
        word, failed = "as before", False
        if before is None:
            word = "new: --update"
        elif after is None:
            word, failed = skipped.get(kind, "GONE"), kind not in skipped
        else:
            allowed, relative, worse = KINDS[kind]
            change = (new - old) / (abs(old) if relative else 1.0)
            if abs(change) > allowed:
                failed = change * worse > 0 or worse == 0
                word = ("WORSE" if worse else "CHANGED") if failed else "better"
        verdicts.append(Verdict(name, kind, old, new, word, failed))
    return verdicts


# --- counts -----------------------------------------------------------------------------------


def counts() -> dict[str, Figure]:
    """Rounds and acceptance of 4 images of 50 steps, by way of drafting and verifying."""
    teacher, trained = load_pretrained("mnist")
    ways: dict[str, tuple[Any, dict[str, Any]]] = {
        "autoregression": (trained, {}),
        "one sweep, recycled": (trained, {"sweeps": 1, "recycle": "response"}),
        "no training, recycled": (FrozenDrafter(), {"sweeps": 1, "recycle": "response"}),
        "one sweep, block": (trained, {"sweeps": 1, "verifier": "block"}),
    }
    found = {}
    for name, (drafter, settings) in ways.items():
        sampler = SpeculativeSampler(
            teacher, drafter, Schedule.ddpm(50), WIDTH, cfg_scale=1.5, **settings
        )
        # One at a time: what a batch rounds otherwise plays no part.
        report = Report.merge([sampler.sample([3 * i % 10], seed=i).report for i in range(4)])
        found[f"{name}: rounds"] = Figure(report.rounds, "rounds")
        found[f"{name}: acceptance"] = Figure(report.acceptance, "acceptance")
    return found


# --- ratios -----------------------------------------------------------------------------------


def _window() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(1, WIDTH, SIZE, generator=generator)
    drafts = target[:, :-1].clone()  # all stand: every row is read
    z = torch.randn(1, WIDTH - 1, SIZE, generator=generator)
    states = torch.cat([target[:, :1], drafts + 0.1 * z], dim=1)
    length, sigma = torch.tensor([WIDTH], dtype=torch.int32), torch.full((1, WIDTH), 0.1)
    return states, drafts, target, sigma, length, torch.rand(1, WIDTH - 1), torch.randn(1, SIZE)


def ratios(repeats: int = 15) -> dict[str, Figure]:
    """The compiled kernels beside their twins, and what a round does besides its networks.

    Of the shortest of ``repeats`` times: what others do on the machine only adds to them.
    """
    window = _window()
    guesses, roll = (given(1, WIDTH, SIZE) for given in (kernels.guesses, kernels.roll))
    seeds, k = torch.arange(8), torch.full((8,), 3)
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        f"verify_window, {verifier}": (
            lambda v=verifier: ops.verify_window(*window, v),
            lambda v=verifier: reference.verify_window(*window, v),
        )
        for verifier in ("reflection", "block")
    }
    pairs["first_guesses"] = (
        lambda: ops.first_guesses(**guesses),
        lambda: reference.first_guesses(**guesses),
    )
    pairs["roll_window"] = (
        lambda: ops.roll_window_(**roll),
        lambda: reference.roll_window_(**roll),
    )
    pairs["normal"] = (
        lambda: random.normal(seeds, k, k, Purpose.TRANSITION, (SIZE,)),
        lambda: reference.philox_normal(seeds, k, k, Purpose.TRANSITION, SIZE),
    )
    found = {}
    for name, (compiled, twin) in pairs.items():
        times = timed(
            {"compiled": compiled, "twin": twin}, repeats, calls={"compiled": 60, "twin": 20}
        )
        ratio = times["twin"].minimum / times["compiled"].minimum
        found[name] = Figure(ratio, "times faster than the twin")
    return found | overhead()


def _null_teacher(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> TeacherOutput:
    return TeacherOutput(0.1 * x)


def overhead() -> dict[str, Figure]:
    """A speculative round's drafting, verification and bookkeeping, in a plain step's bookkeeping.

    Of the training-free drafter at W = 8, and a teacher that is one product.
    """
    _null_teacher.num_classes = 10  # type: ignore[attr-defined]
    schedule = Schedule.ddpm(100)
    samplers = {
        "plain": SequentialSampler(_null_teacher, schedule),
        "round": SpeculativeSampler(
            _null_teacher, "frozen", schedule, WIDTH, sweeps=1, recycle="response"
        ),
    }
    least: dict[str, float] = {}
    for seed in range(12):
        for name, sampler in samplers.items():
            report = sampler.sample([0], seed, shape=(1, 28, 28)).report
            spent = sum(s for phase, s in report.seconds_by_phase.items() if phase != "teacher")
            least[name] = min(least.get(name, float("inf")), spent / report.rounds)
    return {"a round of W = 8": Figure(least["round"] / least["plain"], "of a plain step's")}


# --- instructions -----------------------------------------------------------------------------

KERNELS = ("reflection", "block", "relaxed", "guess", "roll", "normal")
#: Calls that are counted, and those before: the difference is without start-up.
CALLS = (10, 30)


def instructions() -> tuple[dict[str, Figure], str]:
    """Instructions of one call of each kernel, and what compiled them.

    Raises
    ------
    RuntimeError
        If they cannot be counted here; says why.
    """
    compiler = shutil.which("g++")
    for tool in ("valgrind", "g++"):
        if shutil.which(tool) is None:
            raise RuntimeError(f"{tool} is not installed")
    assert compiler is not None
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / "core"
        # As CMakeLists.txt compiles the core, without threads.
        flags = ("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
        sources = [ROOT / "benchmarks" / "core.cpp", *sorted((ROOT / "csrc" / "cpu").glob("*.cpp"))]
        include = ["-I", ROOT / "csrc", "-I", ROOT / "csrc" / "include"]
        _run(compiler, *flags, *include, *sources, "-o", program)
        found, simd = {}, ""
        for kernel in KERNELS:
            few, many = (_counted(program, kernel, calls) for calls in CALLS)
            count = (many[0] - few[0]) / (CALLS[1] - CALLS[0])
            found[f"core, {kernel}"] = Figure(round(count), "instructions")
            simd = many[1]
    return found, f"gcc {_run(compiler, '-dumpfullversion').strip()}, {simd}"


def _counted(program: Path, kernel: str, calls: int) -> tuple[int, str]:
    """Instructions of a whole run, and the instruction set that it chose."""
    out = program.with_suffix(f".{kernel}.{calls}")
    command = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}"]
    printed = _run(*command, program, kernel, str(calls))
    summary = next(line for line in out.read_text().splitlines() if line.startswith("totals:"))
    return int(summary.split()[1]), printed.split()[0]


def _run(*command: Any) -> str:
    try:
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=True
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(f"{Path(str(command[0])).name} failed: {last[0]}") from error
    return done.stdout


# --- the command ------------------------------------------------------------------------------

PARTS = {
    "rounds": ("rounds", "acceptance"),
    "ratios": ("times faster than the twin", "of a plain step's"),
    "instructions": ("instructions",),
}


def measure(
    parts: list[str], counted_with: str | None
) -> tuple[dict[str, Figure], dict[str, str], str]:
    """The figures, why kinds were left out, and what the counted core was compiled with."""
    now: dict[str, Figure] = {}
    skipped = {
        kind: "not asked for"
        for part, kinds in PARTS.items()
        if part not in parts
        for kind in kinds
    }
    compiled = counted_with or ""
    if "rounds" in parts:
        now |= counts()
    if "ratios" in parts:
        now |= ratios()
    if "instructions" in parts:
        try:
            found, compiled = instructions()
        except RuntimeError as error:
            skipped["instructions"] = f"skipped: {error}"
        else:
            if counted_with in (None, compiled):
                now |= found
            else:
                skipped["instructions"] = f"skipped: {compiled} here, committed {counted_with}"
    return now, skipped, compiled


def describe(verdict: Verdict) -> str:
    old, new = ("" if v is None else f"{v:12.4g}" for v in (verdict.committed, verdict.now))
    if verdict.kind == "instructions":
        old, new = ("" if v is None else f"{v:12.0f}" for v in (verdict.committed, verdict.now))
    allowed, relative, worse = KINDS[verdict.kind]
    sign = {1: "+", -1: "-", 0: "+-"}[worse]
    limit = f"{sign}{100 * allowed:.0f} %" if relative else f"{sign}{allowed:g}"
    named = (
        verdict.name if verdict.name.endswith(verdict.kind) else f"{verdict.name}, {verdict.kind}"
    )
    return f"{named:58s}{old:>12s}{new:>12s}{limit:>9s}  {verdict.word}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PARTS), help="of: " + ", ".join(PARTS))
    parser.add_argument("--update", action="store_true", help="commit to what is measured now")
    parser.add_argument("--committed", type=Path, default=COMMITTED, help="(%(default)s)")
    options = parser.parse_args(arguments)
    parts = options.only.split(",")
    if unknown := sorted(set(parts) - PARTS.keys()):
        parser.error(f"--only must be of {', '.join(PARTS)}, got {', '.join(unknown)}")
    torch.set_num_threads(1)

    before: dict[str, Any] = {"figures": {}, "counted_with": None}
    if options.committed.exists():
        before = json.loads(options.committed.read_text(encoding="utf-8"))
    elif not options.update:
        parser.error(f"--committed must be a file of --update, got {options.committed}")
    committed = {name: Figure(*entry) for name, entry in before["figures"].items()}
    known = None if options.update else before["counted_with"]
    now, skipped, compiled = measure(parts, known)
    verdicts = compare(committed, now, skipped)
    print(f"{'':58s}{'committed':>12s}{'now':>12s}{'allowed':>9s}")
    for verdict in verdicts:
        print(describe(verdict))
    if options.update:
        kept = {name: f for name, f in committed.items() if f.kind in skipped}
        figures = {name: list(figure) for name, figure in (kept | now).items()}
        record = {"machine": machine(), "counted_with": compiled or before["counted_with"]}
        write_json(options.committed, record | {"figures": figures})
        print(f"written to {options.committed}")
        return 0
    failed = sum(verdict.failed for verdict in verdicts)
    print(
        f"\n{failed} of {len(verdicts)} figures are worse or changed."
        if failed
        else "\nNone is worse."
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
