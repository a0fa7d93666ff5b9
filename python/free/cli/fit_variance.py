"""``free fit-variance``: a table from a teacher's learned variance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from free.cli import options
from free.cli.options import parse_device, parse_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from free.schedule.variance import VarianceFit


def fit_variance(
    *,
    out: Annotated[Path, typer.Option(help="Table to write (.json), for --variance.")],
    model: options.Model = "mnist",
    labels: Annotated[str, typer.Option(help="Classes to draw: 0-9, 3, or 1,4-6.")] = "0-9",
    per_label: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 4,
    steps: options.Steps = 250,
    cfg: options.Cfg = 1.5,
    cfg_channels: options.CfgChannels = None,
    constants: options.Constants = None,
    seed: Annotated[int, typer.Option(help="Image i is drawn with seed + i.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(help="Plot to write. Default: as --out, with .png.")
    ] = None,
    device: options.Device = "cpu",
) -> None:
    """Fit a fixed variance to the temporal pattern of a teacher's learned one.

    The plain sampler runs; a step's weight between the posterior's variance and beta is that of the
    mean variance which the teacher returned there.

    Examples
    --------
    `free fit-variance --model DiT-XL-2-256x256.pt --labels 0-999 --per-label 1 --out dit.json`

    `free sample --model DiT-XL-2-256x256.pt --vae stabilityai/sd-vae-ft-ema --variance dit.json`
    """
    from free.files import check_writable, write_atomic
    from free.images.picture import check_picture_suffix
    from free.pretrained import load_pretrained
    from free.training.variance import fit_variance as fit

    if out.suffix != ".json":
        raise ValueError(f"--out must end in .json, got {out.name!r}")
    picture = out.with_suffix(".png") if plot is None else plot
    check_picture_suffix(picture, "--plot")
    for path, name in ((out, "--out"), (picture, "--plot")):
        check_writable(path, name)
    _figure()  # before the work
    teacher, _ = load_pretrained(model, "frozen", device=parse_device(device), constants=constants)
    classes = parse_labels(labels, per_label=per_label)
    table = fit(teacher, classes, steps, seed, cfg, cfg_channels, progress=True)
    figure = _draw(table, steps)
    table.save(out, model=str(model), steps=steps, labels=classes, seed=seed, cfg=cfg)
    write_atomic(picture, lambda path: figure.savefig(path, dpi=150))
    typer.echo(
        f"weights {table.weights.min():.3f} .. {table.weights.max():.3f} "
        f"over {len(table.weights)} steps\ntable: {out}   plot: {picture}"
    )


def _figure() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the plot needs matplotlib: pip install 'free-dit[train]'") from error
    return Figure


def _draw(table: VarianceFit, steps: int) -> Figure:
    """Left: the weights. Right: the standard deviations that they make."""
    from free.schedule.schedule import Schedule

    figure = _figure()(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(table.timesteps, table.weights)
    left.set(xlabel="timestep", ylabel="weight w: posterior$^{1-w}$ upper$^{w}$")
    posterior = Schedule.ddpm(steps)
    for label, schedule in (
        ("upper", Schedule.ddpm(steps, variance="upper")),
        ("fitted", Schedule.ddpm(steps, variance=table)),
    ):
        ratio = schedule.sigma[:-1] / posterior.sigma[:-1]
        right.plot(posterior.timesteps[:-1], ratio, label=label)
    right.set(xlabel="timestep", ylabel="sigma over the posterior's", yscale="log")
    right.legend()
    for axes in (left, right):
        axes.invert_xaxis()
        axes.grid(alpha=0.3)
    return figure
