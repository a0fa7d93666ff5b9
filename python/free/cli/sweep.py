"""``free sweep``: grids over the family of laws, windows and relaxations."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer

from free.bench.grid import Row, Sampler, Setting, grid, read_rows, write_rows
from free.bench.grid import sweep as draw_rows
from free.bench.grid_table import describe
from free.cli import options
from free.cli.models import Models, class_names, load_models
from free.cli.options import (
    bad_input_to_usage_error,
    drafting_settings,
    parse_device,
    parse_dtype,
    parse_labels,
    parse_relaxation,
    parse_schedule,
)
from free.evaluation import Quality, load_network, measure, quality
from free.files import check_writable, write_atomic
from free.images.picture import check_picture_suffix
from free.models.checkpoints import EMBEDDED
from free.sampling.request import check_request
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler
from free.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["sweep"]


def sweep(
    model: options.Model = "mnist",
    labels: Annotated[str, typer.Option(help="Classes to draw: 0-9, 3, or 1,4-6.")] = "0-9",
    per_label: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 20,
    steps: Annotated[str, typer.Option(help="Transitions of the sampler: 100,250.")] = "250",
    variance: Annotated[
        str, typer.Option(help="As of free sample: posterior,0.5,upper,fit.json.")
    ] = "posterior",
    stochasticity: Annotated[
        str, typer.Option(help="DDIM's eta, or with --sde epsilon: 0.5,1.")
    ] = "1",
    sde: options.Sde = False,
    window: Annotated[
        str | None,
        typer.Option(
            help="1,4,8; 1 is the sequential sampler, with which the quality of the others of its "
            "law is compared. Default: 1 and the model's."
        ),
    ] = None,
    relax: Annotated[
        str,
        typer.Option(
            metavar="none|RULE:STRENGTH[:BUDGET],...",
            help="As of free sample, none for exact: none,allow:0.3,temper:1:0.05.",
        ),
    ] = "none",
    uncertainty: options.Uncertainty = "discrepancy",
    sweeps: options.Sweeps = None,
    recycle: options.Recycle = None,
    verifier: options.Verifier = "reflection",
    paper: options.Paper = False,
    drafter: options.DrafterSource = "trained",
    vae: options.Vae = None,
    constants: options.Constants = None,
    cfg: options.Cfg = 1.5,
    cfg_channels: options.CfgChannels = None,
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
    json_path: Annotated[
        Path | None, typer.Option("--json", help="All figures, written after each row.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep the rows of --json; draw those that it has not."),
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Plot to write.")] = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Measure every combination of the given steps, variances, stochasticities, windows and
    relaxations: rounds, acceptance, seconds, quality, distance from the exact law.

    All rows draw the same labels with the same seeds, on torch. With `--resume` other combinations,
    and other ways to draft, are added to the same file.

    Examples
    --------
    `free sweep --sde --stochasticity 0.25,0.5,1,1.5,2 --steps 100 --window 8 --plot epsilon.png`

    `free sweep --window 1,8 --relax none,allow:0.3,allow:1,temper:1,temper:4 --json relax.json`

    `free sweep --steps 100,250 --variance posterior,0.5,upper --per-label 5 --reference none`

    `free sweep --steps 50,100 --window 2,4,8,16 --json w.json --resume`
    """
    with bad_input_to_usage_error():
        if json_path is None and resume:
            raise ValueError("--resume must come with --json, the file to continue")
        if json_path is not None:
            if json_path.exists() and not resume:
                raise ValueError(
                    f"--json must be a new file, or come with --resume, got {json_path}"
                )
            check_writable(json_path, "--json")
        figure: Callable[[Sequence[Row]], Figure] | None = None
        if plot is not None:
            from free.bench.grid_plot import draw

            figure = draw
            check_picture_suffix(plot, "--plot")
            check_writable(plot, "--plot")
        place = parse_device(device)
        torch.set_num_threads(threads)
        models = load_models(model, drafter, vae, constants, parse_dtype(dtype), place)
        chosen = parse_labels(labels, class_names(models.teacher))
        classes = [label for label in chosen for _ in range(per_label)]
        check_request(models.teacher, classes, seed, None)
        own = models.drafter.sampling
        widths = ["1", None] if window is None else _parts(window, "--window")
        drafting = [
            drafting_settings(own, paper, width, sweeps, recycle, verifier) for width in widths
        ]
        settings = grid(
            _numbers(steps, int, "--steps"),
            _parts(variance, "--variance"),
            _numbers(stochasticity, float, "--stochasticity"),
            sde,
            drafting,
            _parts(relax, "--relax"),
            uncertainty,
        )
        build = partial(_sampler, models, cfg, cfg_channels, place)
        samplers = {setting: build(setting) for setting in settings}  # all are checked first
        if reference is None:
            reference = "mnist" if model in EMBEDDED else "none"
        shared: dict[str, Any] = {
            "model": model,
            "drafter": drafter,
            "labels": classes,
            "cfg": cfg,
            "cfg_channels": cfg_channels,
            "seed": seed,
            "batch_size": batch_size,
            "reference": reference,
            "features": features,
            "dtype": dtype,
            "device": device,
            "threads": threads,
            "machine": platform.machine(),
            "free": __version__,
            "torch": torch.__version__,
        }
        rows = read_rows(json_path, shared) if json_path is not None and json_path.exists() else []
        judge = _judge(models, reference, features, classes, place)
        try:
            rows = draw_rows(
                samplers,
                classes,
                models.coder,
                judge,
                seed=seed,
                batch_size=batch_size,
                rows=rows,
                keep=partial(_keep, json_path, shared),
                progress=True,
            )
        except FloatingPointError as error:
            typer.secho(f"error: {error}", fg="red", err=True)
            raise typer.Exit(1) from error
        if figure is not None and plot is not None:
            picture = figure(rows)
            write_atomic(plot, lambda path: picture.savefig(path, dpi=150))
    typer.echo(f"\n{len(classes)} images a row, guidance {cfg:g}, batches of {batch_size}")
    if judge is not None:
        network = judge.keywords["features"]
        distance = "FID" if network.is_inception else "no FID"
        typer.echo(f"quality beside {reference}, {network.name} features: {distance}")
    for line in describe(rows):
        typer.echo(line)
    for name, path in (("figures", json_path), ("plot", plot)):
        if path is not None:
            typer.echo(f"{name}: {path}")


def _parts(text: str, option: str) -> list[str]:
    """The values of a list, each once."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError(f"{option} must be values with commas between them, got {text!r}")
    return list(dict.fromkeys(parts))


def _numbers(text: str, kind: type, option: str) -> list[Any]:
    """The same, of numbers."""
    try:
        return [kind(part) for part in _parts(text, option)]
    except ValueError:
        word = "integers" if kind is int else "numbers"
        raise ValueError(
            f"{option} must be {word} with commas between them, got {text!r}"
        ) from None


def _sampler(
    models: Models,
    cfg: float,
    cfg_channels: int | None,
    device: torch.device,
    setting: Setting,
) -> Sampler:
    """The sampler that a setting stands for."""
    schedule = parse_schedule(
        setting.steps, setting.variance, setting.stochasticity, setting.sde, device
    )
    if setting.window == 1:
        return SequentialSampler(models.teacher, schedule, cfg, cfg_channels)
    relax = None if setting.relax == "none" else setting.relax
    return SpeculativeSampler(
        models.teacher,
        models.drafter,
        schedule,
        setting.window,
        cfg,
        cfg_channels,
        setting.verifier,
        setting.sweeps,
        setting.recycle,
        parse_relaxation(relax, setting.uncertainty),
    )


def _judge(
    models: Models, reference: str, features: str, labels: Sequence[int], device: torch.device
) -> partial[Quality] | None:
    """Quality beside the reference, which is measured now, once."""
    if reference == "none":
        return None
    shape = models.coder.image_shape(models.teacher.sample_shape)
    network = load_network(features, shape, device)
    if len(labels) <= network.dims:
        raise ValueError(
            f"--per-label must make more than {network.dims} images for the covariance of as many "
            f"features, got {len(labels)}; or --reference none"
        )
    measured = measure(reference, network, "--reference")
    asked = list(labels) if network.classes is not None else None
    return partial(quality, reference=measured, features=network, labels=asked, device=device)


def _keep(path: Path | None, shared: dict[str, Any], rows: list[Row]) -> None:
    if path is not None:
        write_rows(path, shared, rows)
