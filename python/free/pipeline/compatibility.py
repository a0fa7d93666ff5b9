"""What ``free.enable`` makes of the pipelines of the diffusers that is installed.

    python -m free.pipeline.compatibility
    python -m free.pipeline.compatibility --only FluxPipeline --steps 28 --window 6
    python -m free.pipeline.compatibility --json - 2>/dev/null
    python -m free.pipeline.compatibility --stochasticity 0.01

Each of :data:`free.pipeline.tiny.TINY`, with its tiny random network, draws two samples by its own
loop and, enabled without training, by a stochastic law of the same network; with a stochasticity by
that which is near its own deterministic scheduler (DDIM's where there is none), and how far its
samples are from its own is a column, too. Calls that reach the
network are counted by a hook on it, not taken from a report. Random networks say how often a
pipeline calls its network, nothing of how many drafts stand with trained ones.

The exit code is 1 if a pipeline that should work does not, or one that should be refused is not.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from free.arguments import as_integer, as_number
from free.files import check_writable, write_json
from free.images.deviation import Deviation
from free.machine import machine
from free.pipeline.enable import enabled, summary
from free.pipeline.laws import dynamic_shift, law_of
from free.pipeline.tiny import REFUSED, TINY, Tiny

#: Laws that are tried, in turn: one for velocities, one for noise, the scheduler's own.
LAWS = ("flow-sde", "ddpm", None)
#: Samples of a call.
SAMPLES = 2
#: Headings of the table.
_COLUMNS = ("pipeline", "law", "result", "network calls", "step by step", "what is special")


@dataclass(frozen=True)
class Result:
    """What became of a pipeline.

    Attributes
    ----------
    pipeline : str
        Its name in :data:`free.pipeline.tiny.TINY`.
    result : {"works", "refused", "fails", "absent"}
        ``"fails"`` is an error that is no refusal, or samples that are not finite; ``"absent"`` is
        a class that this diffusers lacks.
    expected : bool
        Whether that is as it should be.
    why : str
        Why it does not work; empty if it does.
    law : str
        What was speculated; empty for the scheduler's own.
    first, calls : int
        Calls of the network in the first call of the pipeline, with the checks and measurements
        that are made once for its shapes, and in a second one, without; 0 if it does not work.
    plain : int
        The same of its own loop, with its own scheduler.
    rounds : int
        ``calls``, by how many of them a step makes.
    note : str
        What is special about the pipeline's loop.
    psnr : float or None
        With a stochasticity: how far its samples are from those of its own loop, in decibels, of
        the range of the latter.
    """

    pipeline: str
    result: str
    expected: bool
    why: str = ""
    law: str = ""
    first: int = 0
    calls: int = 0
    plain: int = 0
    rounds: int = 0
    note: str = ""
    psnr: float | None = None


def examine(
    name: str, steps: int = 50, window: int = 8, stochasticity: float | None = None
) -> Result:
    """Enable a tiny pipeline, call it, and count what its network is asked.

    Parameters
    ----------
    name : str
        One of :data:`free.pipeline.tiny.TINY`.
    steps, window : int
        ``num_inference_steps``, and that of :func:`free.enable`.
    stochasticity : float, optional
        Of a law near the pipeline's own deterministic scheduler; by default one of :data:`LAWS`.
    """
    refused = name in REFUSED
    try:
        tiny = TINY[name](SAMPLES)
    except ImportError as error:
        return Result(name, "absent", True, str(error))
    if stochasticity is not None:
        _make_deterministic(tiny.pipe)
    with _counted(tiny.pipe) as plain:
        own = _draw(tiny, steps, seed=2)
    found: dict[str, Any] = {"plain": plain[0], "note": tiny.note}
    try:
        if stochasticity is None:
            found |= _speculate(tiny, steps, window, law=_law(tiny.pipe, window))[0]
        else:
            figures, samples = _speculate(tiny, steps, window, stochasticity=stochasticity)
            found |= {
                **figures,
                "psnr": Deviation.of(samples, torch.as_tensor(own, device="cpu")).psnr,
            }
    except ValueError as error:
        return Result(name, "refused", refused, str(error), **found)
    except Exception as error:  # whatever goes wrong is a row of the table
        return Result(name, "fails", False, f"{type(error).__name__}: {error}", **found)
    return Result(name, "works", not refused, **found)


def _speculate(
    tiny: Tiny, steps: int, window: int, **law: Any
) -> tuple[dict[str, Any], torch.Tensor]:
    """Figures, and the samples of the seeds of the pipeline's own."""
    with enabled(tiny.pipe, window, **law):
        with _counted(tiny.pipe) as first:
            _draw(tiny, steps, seed=1)
        with _counted(tiny.pipe) as calls:
            samples = torch.as_tensor(_draw(tiny, steps, seed=2), device="cpu")
        rounds = summary(tiny.pipe).rounds
    if not samples.isfinite().all():
        raise FloatingPointError("samples that are not finite")
    if calls[0] % rounds:
        raise AssertionError(f"{calls[0]} calls of the network in {rounds} rounds")
    figures = {
        "law": law.get("law") or "",
        "first": first[0],
        "calls": calls[0],
        "rounds": rounds,
    }
    return figures, samples


def _make_deterministic(pipe: Any) -> None:
    """Give a pipeline DDIM where no law is known near its own scheduler."""
    from diffusers import DDIMScheduler

    try:
        law_of(pipe.scheduler, None, 10, 0.0, **dynamic_shift(pipe))
    except ValueError:
        if "beta_schedule" in pipe.scheduler.config:
            pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)


def _law(pipe: Any, window: int) -> str | None:
    """The first of :data:`LAWS` that is not refused.

    Raises the ValueError of the last one if there is none.
    """
    refusal: ValueError | None = None
    for law in LAWS:
        try:
            with enabled(pipe, window, law):
                return law
        except ValueError as error:
            refusal = error
    assert refusal is not None
    raise refusal


def _draw(tiny: Tiny, steps: int, seed: int = 0) -> Any:
    generators = [torch.Generator().manual_seed(SAMPLES * seed + place) for place in range(SAMPLES)]
    return tiny.pipe(**tiny.arguments | {"num_inference_steps": steps}, generator=generators)[0]


def _networks(pipe: Any) -> list[Any]:
    """What a pipeline denoises with."""
    found = (getattr(pipe, name, None) for name in ("transformer", "transformer_2", "unet"))
    return [network for network in found if network is not None]


@contextmanager
def _counted(pipe: Any) -> Iterator[list[int]]:
    """How often a pipeline's networks are called, in a list of one number."""
    calls = [0]

    def count(*_: Any) -> None:
        calls[0] += 1

    hooks = [network.register_forward_hook(count) for network in _networks(pipe)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def table(results: Sequence[Result]) -> str:
    """Results as a table in Markdown, and why what does not work does not."""
    rows = [_COLUMNS, *map(_row, results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    lines.insert(1, "|".join(["", *("-" * (width + 2) for width in widths), ""]))
    whys = [f"- {each.pipeline}: {each.why}" for each in results if each.why]
    return "\n".join([*lines, *(["", *whys] if whys else [])])


def _row(found: Result) -> tuple[str, ...]:
    works = found.result == "works"
    result = found.result if found.expected else f"{found.result} (it should not be so)"
    calls = f"{found.calls} ({found.first} at first)" if works else ""
    plain = str(found.plain) if found.plain else ""
    note = found.note.removeprefix("refuse: ")
    law = found.law if found.psnr is None else f"its own, {found.psnr:.0f} dB"
    return found.pipeline, law, result, calls, plain, note


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine all pipelines, print the table; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m free.pipeline.compatibility",
        description="What free.enable makes of the pipelines of the diffusers that is installed.",
        epilog="examples:\n  python -m free.pipeline.compatibility\n  python -m "
        "free.pipeline.compatibility --only FluxPipeline --steps 28 --json -\n\nexit code: 1 if a "
        "pipeline that should work does not, or one that should be refused is not.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=50, help="steps of a call (default: 50)")
    parser.add_argument("--window", type=int, default=8, help="steps of a round, at most (8)")
    parser.add_argument(
        "--stochasticity",
        type=float,
        metavar="E",
        help="that of laws near the pipelines' own deterministic schedulers; their samples are "
        "compared with the pipelines' own, in decibels (default: a stochastic law)",
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this pipeline; again for others"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write all figures; - for the standard output, and no table"
    )
    asked = parser.parse_args(arguments)
    try:
        steps = as_integer(asked.steps, "--steps must be an integer in 2..1000", 2, 1000)
        window = as_integer(asked.window, "--window must be an integer in 1..64", 1, 64)
        if asked.stochasticity is not None:
            expected = "--stochasticity must be a finite number > 0"
            as_number(asked.stochasticity, expected, math.ulp(0.0))
        if asked.json not in (None, "-"):
            check_writable(asked.json, "--json")
        import diffusers
    except (ValueError, ImportError) as error:
        parser.error(str(error))
    names = list(dict.fromkeys(asked.only or TINY))
    if unknown := [name for name in names if name not in TINY]:
        parser.error(f"--only must be one of {'; '.join(TINY)}, got {unknown[0]}")
    results: list[Result] = []
    for name in names:
        print(f"{len(results) + 1}/{len(names)} {name}", file=sys.stderr, flush=True)
        results.append(examine(name, steps, window, asked.stochasticity))
    if asked.json != "-":
        print(f"diffusers {diffusers.__version__}, {steps} steps, windows of {window}\n")
        print(table(results))
    if asked.json is not None:
        record = {
            "diffusers": diffusers.__version__,
            "steps": steps,
            "window": window,
            "samples": SAMPLES,
            "stochasticity": asked.stochasticity,
            "pipelines": [asdict(each) for each in results],
            "machine": machine(),
        }
        if asked.json == "-":
            print(json.dumps(record, indent=2, allow_nan=False))
        else:
            write_json(asked.json, record)
    return 0 if all(each.expected for each in results) else 1


if __name__ == "__main__":
    sys.exit(main())
