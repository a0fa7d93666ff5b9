"""``free profile``: where the time of a round goes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm import tqdm

from free.bench import Profile, profiled
from free.cli import options
from free.cli.models import load_models, put_on_engine
from free.cli.records import DraftingOptions, EngineOptions, with_records
from free.files import write_json
from free.machine import machine
from free.rounds.tolerance import TOLERANCE
from free.sampling.speculative import SpeculativeSampler
from free.schedule.schedule import Schedule


@with_records
def profile(
    *,
    model: EngineOptions,
    steps: options.Steps = 250,
    drafting: DraftingOptions,
    batch_size: Annotated[int, typer.Option(min=1, help="Images drawn together.")] = 1,
    batches: Annotated[int, typer.Option(min=1, help="How many to time.")] = 3,
    operators: Annotated[int, typer.Option(min=0, help="How many operators to list.")] = 12,
    trace: Annotated[
        Path | None,
        typer.Option(help="Trace of one batch to write, .json or .json.gz: for ui.perfetto.dev."),
    ] = None,
    json_path: options.Figures = None,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
) -> None:
    """Show what of a round is drafter, teacher, verification and bookkeeping.

    The phases are timed with nothing looking on; on a GPU each waits for its work, or it would be
    the time of asking. The operators below are those of one further batch under torch's profiler,
    which slows small ones and does not see into other engines; on a GPU by their kernels' time.

    Examples
    --------
    `free profile`

    `free profile --window 1 --engine torch`

    `free profile --engine torch --steps 50 --trace round.json`
    """
    options.check_outputs(trace=trace, json=json_path)
    if trace is not None and not trace.name.endswith((".json", ".json.gz")):
        raise ValueError(f"--trace must end in .json or .json.gz, got {trace.name!r}")
    models = load_models(model)
    settings = drafting.settings(models.drafter.sampling)
    models = put_on_engine(models, model, settings, batch_size)
    sampler = SpeculativeSampler(
        models.teacher,
        models.drafter,
        Schedule.ddpm(steps, stochasticity=float(drafting.verifier != TOLERANCE)),
        graph=False,  # a graph has no phases
        **model.guidance,
        **settings,
    )
    labels = [
        [(first * batch_size + i) % models.teacher.num_classes for i in range(batch_size)]
        for first in range(batches)
    ]
    with tqdm(total=batches + 2, desc="profiling", unit="batch") as bar:
        result = profiled(sampler, labels, seed, trace, bar.update)
    if json_path is not None:
        record = {
            "machine": machine(),
            "engine": models.engine,
            "settings": {"model": model.model, "steps": steps, "cfg": model.cfg, **settings},
            "batch_size": batch_size,
            "report": dataclasses.asdict(result.report),
            "seconds_a_round": result.phases,
            "operators": [operator._asdict() for operator in result.operators],
        }
        write_json(json_path, record)
    typer.echo(
        f"\n{model.model}, {steps} steps, guidance {model.cfg:g}, batches of {batch_size}, window "
        f"{settings['window']}, on {models.engine}, {torch.get_num_threads()} threads\n"
    )
    for line in _describe(result, batches, operators, models.engine):
        typer.echo(line)
    if trace is not None:
        typer.echo(f"trace of one batch: {trace}   (open it in ui.perfetto.dev)")


def _describe(result: Profile, batches: int, operators: int, engine: str) -> list[str]:
    """The figures, line by line."""
    report, whole = result.report, sum(result.phases.values())
    lines = [
        f"{report.rounds / batches:.1f} rounds of {1e3 * whole:.2f} ms a batch: "
        f"{report.seconds / batches:.3f} s, {report.parallel_efficiency:.2f} steps a round\n",
        f"{'phase':14s}{'ms a round':>12s}{'share':>9s}",
    ]
    lines += [
        f"{name:14s}{1e3 * seconds:12.3f}{100 * seconds / whole:7.1f} %"
        for name, seconds in result.phases.items()
    ]
    longest = result.operators[:operators]
    if longest:
        total = sum(operator.seconds for operator in result.operators)
        width = max(len(operator.name) for operator in longest)
        lines.append(
            f"\n{'phase':14s}{'operator':{width}s}{'calls':>9s}{'ms a round':>12s}{'share':>9s}"
        )
        lines += [
            f"{one.phase:14s}{one.name:{width}s}{one.calls:9.1f}{1e3 * one.seconds:12.3f}"
            f"{100 * one.seconds / total:7.1f} %"
            for one in longest
        ]
        if engine != "torch":
            lines.append(f"torch's profiler sees no operators of {engine}: --engine torch.")
    return [*lines, ""]
