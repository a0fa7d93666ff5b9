"""``free generate``: tens of thousands of images for FID and the like."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import torch
import typer

from free.cli import options
from free.cli.command import fail
from free.cli.models import load_models
from free.cli.records import DraftingOptions, LawOptions, ModelOptions, with_records
from free.devices import MOST_THREADS
from free.generation import Generated, Processes
from free.generation import generate as generate_images
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler


@dataclasses.dataclass(frozen=True)
class _Drafting(DraftingOptions):
    """How windows are drafted, without those that depend on what rounds cost."""

    window: Annotated[
        str | None,
        typer.Option(
            help="Teacher rows of a round; 1 is the plain sampler. Default: the model's, else 8."
        ),
    ] = None


@with_records
def generate(
    *,
    out: Annotated[Path, typer.Option(help="Archive to write, .npz.")],
    model: ModelOptions,
    num: Annotated[int, typer.Option(help="Images.")] = 50_000,
    labels: Annotated[
        str,
        typer.Option(
            help="random, balanced (all classes in turn), or classes to take in turn: 0-9, or "
            "1,4-6."
        ),
    ] = "random",
    sampler: Annotated[
        str, typer.Option(help="free, or plain: the sequential sampler, for comparison.")
    ] = "free",
    law: LawOptions,
    drafting: _Drafting,
    seed: Annotated[int, typer.Option(help="Of the noises and of random classes.")] = 0,
    batch_size: Annotated[
        int, typer.Option(help="Images drawn together; part of the result, by rounding.")
    ] = 8,
    png: Annotated[
        Path | None, typer.Option(help="Folder for the images as 000000.png and so on, besides.")
    ] = None,
    json_path: options.Figures = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it is there.")
    ] = False,
    keep_chunks: Annotated[
        bool, typer.Option("--keep-chunks", help="Leave OUT.chunks, the pieces of the archive.")
    ] = False,
    threads: Annotated[
        int,
        typer.Option(
            min=1,
            max=MOST_THREADS,
            help="CPU threads of each process; part of the result, by rounding, on a CPU.",
        ),
    ] = 1,
) -> None:
    """Draw images by the thousand, as the `.npz` that ADM's evaluator reads.

    Started again after whatever ended it, the same command draws what is missing. Under
    `torchrun` all processes share the work; the result is the same.

    Examples
    --------
    `free generate --num 1000 --out samples.npz`

    `torchrun --nproc-per-node 4 -m -- free generate --model DiT-XL-2-256x256.pt
    --vae stabilityai/sd-vae-ft-ema --cfg 1.5 --cfg-channels 3 --device cuda --out samples.npz`
    """
    if sampler not in ("free", "plain"):
        raise ValueError(f"--sampler must be free or plain, got {sampler!r}")
    plain = sampler == "plain"
    if plain and drafting != _Drafting():
        raise ValueError(
            "--sampler plain must come without --paper, --window, --sweeps, --recycle, "
            "--verifier and --tolerance"
        )
    processes = Processes.from_environment()
    if model.device == "cuda" and processes.count > 1:
        model = dataclasses.replace(model, device=f"cuda:{processes.local_rank}")
    device = options.parse_device(model.device)
    if device.index is not None:
        torch.cuda.set_device(device)
    torch.set_num_threads(threads)
    models = load_models(dataclasses.replace(model, drafter="frozen") if plain else model)
    teacher = models.teacher
    schedule = law.schedule(device, teacher.config.prediction, drafting.verifier)
    draws: SpeculativeSampler | SequentialSampler
    if plain:
        draws = SequentialSampler(teacher, schedule, **model.guidance)
    else:
        settings = drafting.settings(models.drafter.sampling)
        if settings["window"] == "auto":
            raise ValueError(
                "--window must be a number here, got auto: the images, if not their law, would "
                "depend on how long rounds take, and could not be made again"
            )
        draws = SpeculativeSampler(
            models.teacher, models.drafter, schedule, **model.guidance, **settings
        )
    by_name = labels in ("random", "balanced")
    try:
        result = generate_images(
            draws,
            out,
            num,
            coder=models.coder,
            labels=labels if by_name else options.parse_labels(labels, models.class_names),
            seed=seed,
            batch_size=batch_size,
            png=png,
            report=json_path,
            overwrite=overwrite,
            keep_chunks=keep_chunks,
            progress=True,
            tell=lambda line: typer.echo(line, err=True),
            processes=processes,
        )
    except RuntimeError as error:
        # Nothing that was drawn is lost; a traceback would hide the line that says so.
        raise fail(error) from error
    for line in _describe(result, processes.count):
        typer.echo(line)


def _describe(result: Generated, processes: int) -> list[str]:
    """What was done, in plain words."""
    if result.report is None:
        return []
    report = result.report
    lines = [f"{report.samples} images: {result.path}"]
    if result.drawn:
        lines.append(
            f"  {result.drawn} of them now, {result.drawn / result.seconds:.3g} a second in "
            f"{processes} process{'es' * (processes > 1)}"
        )
    lines.append(f"  {report.rounds} teacher calls, {report.parallel_efficiency:.2f} steps a round")
    return lines
