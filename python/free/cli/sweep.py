"""``free sweep``: grids over the family of laws, windows and relaxations."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from free.bench.grid import Sampler, Setting, grid, read_rows, write_rows
from free.bench.grid import sweep as draw_rows
from free.bench.grid_plot import draw
from free.bench.grid_table import describe
from free.bench.style import require_matplotlib
from free.cli import options
from free.cli.models import Models, load_models
from free.cli.records import DraftingOptions, ModelOptions, with_records
from free.devices import MOST_THREADS
from free.evaluation import Quality, load_network, measure, quality
from free.files import write_atomic
from free.images.picture import check_picture_suffix, to_uint8
from free.models.checkpoints import EMBEDDED
from free.sampling.request import check_request
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler
from free.version import __version__

#: Options of the model that all rows of a file have in common.
_SHARED = ("model", "drafter", "cfg", "cfg_channels", "device", "dtype")


@dataclasses.dataclass(frozen=True)
class GridOptions:
    """Lists of values, all of whose combinations are drawn."""

    steps: Annotated[str, typer.Option(help="Transitions of the sampler: 100,250.")] = "250"
    variance: Annotated[
        str, typer.Option(help="As of free sample: posterior,0.5,upper,fit.json.")
    ] = "posterior"
    stochasticity: Annotated[
        str | None,
        typer.Option(
            help="DDIM's eta, with --sde epsilon, or a law's eta: 0.5,1. Default: 1, or "
            "each law's own."
        ),
    ] = None
    sde: options.Sde = False
    law: Annotated[
        str | None, typer.Option(help="As of free sample: ddpm,euler-ancestral,sde-dpmsolver++.")
    ] = None
    scheduler: options.Scheduler = None
    relax: Annotated[
        str,
        typer.Option(
            metavar="none|RULE:STRENGTH[:BUDGET],...",
            help="As of free sample, none for exact: none,allow:0.3,temper:1:0.05.",
        ),
    ] = "none"
    uncertainty: options.Uncertainty = "discrepancy"

    def settings(self, drafting: Sequence[dict[str, Any]]) -> list[Setting]:
        """All combinations, with these settings of drafting."""
        other = self.law is not None or self.scheduler is not None
        text = self.stochasticity
        given = None if text is None else options.parse_numbers(text, float, "--stochasticity")
        return grid(
            steps=options.parse_numbers(self.steps, int, "--steps"),
            variances=options.parse_words(self.variance, "--variance"),
            stochasticities=given or [None if other else 1.0],
            sde=self.sde,
            laws=[None] if self.law is None else options.parse_words(self.law, "--law"),
            scheduler=self.scheduler,
            drafting=drafting,
            relaxations=options.parse_words(self.relax, "--relax"),
            uncertainty=self.uncertainty,
        )


@dataclasses.dataclass(frozen=True)
class DraftingGrid(DraftingOptions):
    """How windows are drafted, with a list of windows."""

    window: Annotated[
        str | None,
        typer.Option(
            help="1,4,8; 1 is the sequential sampler, with which the quality of the others of its "
            "law is compared. Default: 1 and the model's."
        ),
    ] = None

    def each(self, recommended: dict[str, Any]) -> list[dict[str, Any]]:
        """The settings of each window."""
        if "tolerance" in (self.verifier, *(["tolerance"] if self.tolerance is not None else [])):
            raise ValueError(
                "--verifier must be reflection or block here, which keep a law, and come without "
                "--tolerance: benchmarks/deterministic.py compares tolerances"
            )
        text = self.window
        windows = ["1", None] if text is None else options.parse_words(text, "--window")
        return [
            dataclasses.replace(self, window=window).settings(recommended) for window in windows
        ]


@with_records
def sweep(
    *,
    model: ModelOptions,
    labels: Annotated[str, typer.Option(help="Classes to draw: 0-9, 3, or 1,4-6.")] = "0-9",
    per_label: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 20,
    values: GridOptions,
    drafting: DraftingGrid,
    seed: Annotated[int, typer.Option(help="Image i is drawn with seed + i, in every row.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images drawn together.")] = 25,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Real images for the quality, as of free evaluate; none for no quality. Default: "
            "mnist for the embedded model, else none."
        ),
    ] = None,
    features: Annotated[
        str, typer.Option(help="Network that quality is measured by, as of free evaluate.")
    ] = "auto",
    json_path: options.Figures = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep the rows of --json; draw those that it has not."),
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Plot to write.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="CPU threads.")] = 1,
) -> None:
    """Measure every combination of the given steps, variances, stochasticities, windows and
    relaxations: rounds, acceptance, seconds, quality, distance from the exact law.

    All rows draw the same labels with the same seeds, on torch. With `--resume` other combinations,
    and other ways to draft, are added to the same file.

    Examples
    --------
    `free sweep --sde --stochasticity 0.25,0.5,1,1.5,2 --steps 100 --window 8 --plot epsilon.png`

    `free sweep --law ddpm,euler-ancestral,sde-dpmsolver++ --steps 25,50 --window 8`

    `free sweep --window 1,8 --relax none,allow:0.3,allow:1,temper:1,temper:4 --json relax.json`

    `free sweep --steps 100,250 --variance posterior,0.5,upper --per-label 5 --reference none`

    `free sweep --steps 50,100 --window 2,4,8,16 --json w.json --resume`
    """
    if json_path is None and resume:
        raise ValueError("--resume must come with --json, the file to continue")
    if json_path is not None and json_path.exists() and not resume:
        raise ValueError(f"--json must be a new file, or come with --resume, got {json_path}")
    options.check_outputs(json=json_path, plot=plot)
    if plot is not None:
        require_matplotlib()
        check_picture_suffix(plot, "--plot")
    device = options.parse_device(model.device)
    torch.set_num_threads(threads)
    models = load_models(model)
    classes = options.parse_labels(labels, models.class_names, per_label)
    check_request(models.teacher, classes, seed, None)
    settings = values.settings(drafting.each(models.drafter.sampling))
    # All are checked before the first is drawn.
    samplers = {setting: _sampler(models, model, setting, device) for setting in settings}
    if reference is None:
        reference = "mnist" if model.model in EMBEDDED else "none"
    shared: dict[str, Any] = {
        **{name: getattr(model, name) for name in _SHARED},
        "labels": classes,
        "seed": seed,
        "batch_size": batch_size,
        "reference": reference,
        "features": features,
        "threads": threads,
        "machine": platform.machine(),
        "free": __version__,
        "torch": torch.__version__,
    }
    rows = read_rows(json_path, shared) if json_path is not None and json_path.exists() else []
    judge = _judge(models, reference, features, classes, device)
    rows = draw_rows(
        samplers,
        classes,
        models.coder,
        None if judge is None else lambda images: judge(to_uint8(images).cpu().numpy()),
        seed=seed,
        batch_size=batch_size,
        rows=rows,
        keep=partial(write_rows, json_path, shared) if json_path else lambda rows: None,
        progress=True,
    )
    if plot is not None:
        picture = draw(rows)
        write_atomic(plot, lambda path: picture.savefig(path, dpi=150))
    typer.echo(f"\n{len(classes)} images a row, guidance {model.cfg:g}, batches of {batch_size}")
    if judge is not None:
        network = judge.keywords["features"]
        distance = "FID" if network.is_inception else "no FID"
        typer.echo(f"quality beside {reference}, {network.name} features: {distance}")
    for line in describe(rows):
        typer.echo(line)
    if plot is not None:
        typer.echo(f"plot: {plot}")


def _sampler(
    models: Models, model: ModelOptions, setting: Setting, device: torch.device
) -> Sampler:
    """The sampler that a setting stands for."""
    schedule = options.parse_schedule(
        setting.steps,
        setting.variance,
        setting.stochasticity,
        setting.sde,
        device,
        law=setting.law,
        scheduler=setting.scheduler,
        prediction=models.teacher.config.prediction,
    )
    if setting.window == 1:
        return SequentialSampler(models.teacher, schedule, **model.guidance)
    relax = None if setting.relax == "none" else setting.relax
    return SpeculativeSampler(
        models.teacher,
        models.drafter,
        schedule,
        window=setting.window,
        verifier=setting.verifier,
        sweeps=setting.sweeps,
        recycle=setting.recycle,
        relaxation=options.parse_relaxation(relax, setting.uncertainty),
        **model.guidance,
    )


def _judge(
    models: Models, reference: str, features: str, labels: Sequence[int], device: torch.device
) -> partial[Quality] | None:
    """Quality beside the reference, which is measured now, once."""
    if reference == "none":
        return None
    network = load_network(features, models.image_shape, device)
    if len(labels) <= network.dims:
        raise ValueError(
            f"--per-label must make more than {network.dims} images for the covariance of as many "
            f"features, got {len(labels)}; or --reference none"
        )
    measured = measure(reference, network, "--reference")
    if measured.left_out:
        typer.echo(f"--reference: {measured.left_out}", err=True)
    return partial(
        quality,
        reference=measured,
        features=network,
        labels=list(labels) if network.classes is not None else None,
        device=device,
    )
