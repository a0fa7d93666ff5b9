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
from free.cli.engine import choose_engine, put_on_engine
from free.cli.models import load_models
from free.cli.options import bad_input_to_usage_error, drafting_settings, parse_device, parse_dtype
from free.files import check_writable, write_json
from free.machine import machine
from free.sampling.speculative import SpeculativeSampler
from free.schedule.schedule import Schedule

__all__ = ["profile"]


def profile(
    model: options.Model = "mnist",
    steps: options.Steps = 250,
    window: options.Window = None,
    sweeps: options.Sweeps = None,
    recycle: options.Recycle = None,
    verifier: options.Verifier = "reflection",
    paper: options.Paper = False,
    drafter: options.DrafterSource = "trained",
    cfg: options.Cfg = 1.5,
    cfg_channels: options.CfgChannels = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images drawn together.")] = 1,
    batches: Annotated[int, typer.Option(min=1, help="How many to time.")] = 3,
    operators: Annotated[int, typer.Option(min=0, help="How many operators to list.")] = 12,
    trace: Annotated[
        Path | None,
        typer.Option(help="Trace of one batch to write, .json or .json.gz: for ui.perfetto.dev."),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="File for all figures, for programs.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    constants: options.Constants = None,
    vae: options.Vae = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    engine: options.Engine = "auto",
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
    with bad_input_to_usage_error():
        if trace is not None:
            check_writable(trace, "--trace")
            if not trace.name.endswith((".json", ".json.gz")):
                raise ValueError(f"--trace must end in .json or .json.gz, got {trace.name!r}")
        if json_path is not None:
            check_writable(json_path, "--json")
            if trace is not None and json_path.resolve() == trace.resolve():
                raise ValueError(f"--json must be another file than --trace, got {json_path}")
        used = choose_engine(engine, model, device, dtype)
        loaded_as = parse_dtype(dtype if used == "torch" else "float32")
        loaded, drafts, _ = load_models(
            model, drafter, vae, constants, loaded_as, parse_device(device)
        )
        settings = drafting_settings(drafts.sampling, paper, window, sweeps, recycle, verifier)
        teacher, drafting = put_on_engine(
            used, loaded, drafts, settings, cfg != 1.0, batch_size, device, dtype
        )
        sampler = SpeculativeSampler(
            teacher,
            drafting,
            Schedule.ddpm(steps),
            cfg_scale=cfg,
            cfg_channels=cfg_channels,
            graph=False,  # a graph has no phases
            **settings,
        )
        labels = [
            [(first * batch_size + i) % loaded.num_classes for i in range(batch_size)]
            for first in range(batches)
        ]
        with tqdm(total=batches + 2, desc="profiling", unit="batch") as bar:
            found = profiled(sampler, labels, seed, trace, bar.update)
        if json_path is not None:
            write_json(
                json_path,
                {
                    "machine": machine(),
                    "engine": used,
                    "settings": {"model": model, "steps": steps, "cfg": cfg, **settings},
                    "batch_size": batch_size,
                    "report": dataclasses.asdict(found.report),
                    "seconds_a_round": found.phases,
                    "operators": [operator._asdict() for operator in found.operators],
                },
            )
    typer.echo(
        f"\n{model}, {steps} steps, guidance {cfg:g}, batches of {batch_size}, window "
        f"{settings['window']}, on {used}, {torch.get_num_threads()} threads\n"
    )
    for line in _describe(found, batches, operators, used):
        typer.echo(line)
    if trace is not None:
        typer.echo(f"trace of one batch: {trace}   (open it in ui.perfetto.dev)")


def _describe(found: Profile, batches: int, operators: int, engine: str) -> list[str]:
    """The figures, line by line."""
    report, whole = found.report, sum(found.phases.values())
    lines = [
        f"{report.rounds / batches:.1f} rounds of {1e3 * whole:.2f} ms a batch: "
        f"{report.seconds / batches:.3f} s, {report.parallel_efficiency:.2f} steps a round\n",
        f"{'phase':14s}{'ms a round':>12s}{'share':>9s}",
    ]
    lines += [
        f"{name:14s}{1e3 * seconds:12.3f}{100 * seconds / whole:7.1f} %"
        for name, seconds in found.phases.items()
    ]
    shown = found.operators[:operators]
    if not shown:
        return [*lines, ""]
    total = sum(operator.seconds for operator in found.operators)
    width = max(len(operator.name) for operator in shown)
    lines.append(
        f"\n{'phase':14s}{'operator':{width}s}{'calls':>9s}{'ms a round':>12s}{'share':>9s}"
    )
    lines += [
        f"{phase:14s}{name:{width}s}{calls:9.1f}{1e3 * seconds:12.3f}{100 * seconds / total:7.1f} %"
        for phase, name, calls, seconds in shown
    ]
    if engine != "torch":
        lines.append(f"Of {engine}'s own operators torch's profiler sees nothing: --engine torch.")
    return [*lines, ""]
