"""``free bench``: the samplers side by side, on one model and this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from free.bench import bench as run_bench
from free.bench import chosen_rows
from free.bench.draws import Draws
from free.bench.judge import BATCH, Judge
from free.bench.plot import plot, require_matplotlib
from free.bench.rows import PAPER_WINDOW, PLAIN, WIDEST, Row
from free.bench.samplers import Networks, StepByStep, sampler_of
from free.bench.table import markdown, remarks, text
from free.cli import options
from free.cli.models import Models, is_exported, load_models, put_on_engine
from free.cli.records import EngineOptions, with_records
from free.drafters.feature import FeatureDrafter
from free.drafters.frozen import FrozenDrafter
from free.evaluation import load_network, measure
from free.files import write_atomic, write_json
from free.images.picture import check_picture_suffix
from free.machine import machine

#: Images of each law where digits are judged: just enough for a covariance of 128 features.
_DIGITS = 130
#: Options of the model that are kept with the figures.
_RECORDED = ("model", "device", "dtype", "cfg", "drafter")


@with_records
def bench(
    *,
    model: EngineOptions,
    rows: Annotated[
        str,
        typer.Option(
            help="Rows of the table, by names or patterns: plain (always), ddpm-2, -4, -10, ddim-2 "
            "..., eps, eps-recycled, paper, free-2 ... free-32, free-auto, frozen-2 ..., block, "
            "relaxed."
        ),
    ] = "*",
    steps: options.Steps = 250,
    batch_size: Annotated[int, typer.Option(min=1, help="Images drawn together.")] = 1,
    images: Annotated[
        int, typer.Option(min=2, help="Batches of each sampler to time, and one more before.")
    ] = 6,
    quality: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Images that each law is judged by: those that were timed and as many more as it "
            f"takes; 0 for no figures. Default: {_DIGITS} for digits, with --reference twice the "
            "features' dimensions, else 0.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="What images are compared with, as for free evaluate. Default: mnist for digits."
        ),
    ] = None,
    features: Annotated[str, typer.Option(help="As for free evaluate.")] = "auto",
    seed: Annotated[int, typer.Option(help="Another one draws other images.")] = 0,
    json_path: options.Figures = None,
    markdown_path: Annotated[
        Path | None, typer.Option("--markdown", help="File for the table in Markdown.")
    ] = None,
    plot_path: Annotated[
        Path | None, typer.Option("--plot", help="Picture of speed against quality.")
    ] = None,
) -> None:
    """Time the plain sampler, fewer steps, the literature's ways and ours, and judge the images.

    All run on one engine, in turn, so that what happens to the machine happens to all of them;
    samples that other processes have disturbed are discarded. Rows that draw from one law (all that
    are lossless) are judged together, by equally many images of each law.

    Examples
    --------
    `free bench --model mnist`

    `free bench --rows "paper,free-*" --images 20 --quality 0`

    `free bench --quality 1000 --json bench.json --markdown bench.md --plot bench.png`

    `free bench --batch-size 16 --engine torch`
    """
    options.check_outputs(json=json_path, markdown=markdown_path, plot=plot_path)
    if plot_path is not None:
        check_picture_suffix(plot_path, "--plot")
        require_matplotlib()
        if quality == 0:
            raise ValueError("--plot must come with --quality, got 0")
    selection = chosen_rows(rows)
    if is_exported(model.model):
        raise ValueError(
            f"--model must be a checkpoint for this command, got the exported graphs {model.model}:"
            " it exports graphs for all rows itself"
        )
    models = load_models(model)
    models, networks = _networks(models, model, selection, batch_size)
    classes = models.teacher.num_classes
    draws, absent = [], {}
    for row in selection:
        sampler = sampler_of(row, networks, steps, model.guidance)
        if isinstance(sampler, str):
            absent[row.name] = sampler
        else:
            draws.append(Draws(row, sampler, classes, batch_size, seed))
    if PLAIN in absent:
        raise ValueError(f"--steps must be enough for a sampler, got {absent[PLAIN]}")
    judge, notes = _judge(models, quality, reference, features, model.device)
    if plot_path is not None and judge is None:
        raise ValueError("--plot must come with --quality and --reference for this model")
    lines = run_bench(draws, steps, images, judge, progress=True)

    notes += [f"left out: {name}: {why}" for name, why in absent.items()]
    notes += remarks(lines)
    title = (
        f"{model.model}, {steps} steps, guidance {model.cfg:g}, batches of {batch_size}, on "
        f"{models.engine}, {torch.get_num_threads()} threads"
    )
    typer.echo(f"\n{title}\n\n{text(lines)}\n")
    for note in notes:
        typer.echo(note)
    if json_path is not None:
        record = {
            "machine": machine(),
            "settings": {
                **{name: getattr(model, name) for name in _RECORDED},
                "engine": models.engine,
                "steps": steps,
                "batch_size": batch_size,
                "images": images,
                "seed": seed,
            },
            "quality": judge and judge.to_dict(),
            "rows": [line.to_dict() for line in lines],
            "absent": absent,
            "notes": notes,
        }
        write_json(json_path, record)
    if markdown_path is not None:
        content = f"{title}:\n\n{markdown(lines)}\n\n" + "".join(f"- {n}\n" for n in notes)
        write_atomic(markdown_path, lambda path: path.write_text(content, encoding="utf-8"))
    if plot_path is not None and judge is not None:
        plot(plot_path, lines, title, judge.network.name)


def _networks(
    models: Models, model: EngineOptions, rows: Sequence[Row], batch_size: int
) -> tuple[Models, Networks]:
    """The model on the engine, and what rows take of it: one export serves them all.

    It is of the paper's window, for as large batches as give the rows of the widest one.
    """
    trained = isinstance(models.drafter, FeatureDrafter) and any(
        row.drafter == "trained" for row in rows
    )
    placed = put_on_engine(
        models if trained else models._replace(drafter=FrozenDrafter()),
        model,
        {"window": PAPER_WINDOW, "sweeps": None},
        max(batch_size, BATCH) * WIDEST // PAPER_WINDOW,
    )
    teacher, drafter = placed.teacher, placed.drafter
    if not trained:
        return placed, Networks(teacher)
    in_turn = drafter if placed.engine == "torch" else StepByStep(drafter)
    return placed, Networks(teacher, drafter, in_turn)


def _judge(
    models: Models, images: int | None, reference: str | None, features: str, device: str
) -> tuple[Judge | None, list[str]]:
    """What the images are to be judged by, if anything, and remarks on it."""
    digits = models.image_shape == (28, 28, 1)
    if images == 0 or (images is None and reference is None and not digits):
        return None, []
    network = load_network(features, models.image_shape, device)
    if images is None:
        images = _DIGITS if digits else 2 * network.dims
    by_name = Judge(images, models.teacher.num_classes, network, models.coder)
    source = "mnist" if reference is None and digits else reference
    if source is None or images <= network.dims:
        if network.classes != models.teacher.num_classes:
            raise ValueError(
                f"--quality must be more than {network.dims} and come with --reference for "
                f"{network.name} features, got {images}"
            )
        return by_name, [
            f"Named as asked: by {network.name}, of {images} images a law. A Frechet distance "
            f"takes a reference, and --quality more than {network.dims}."
        ]
    try:
        measured = measure(source, network, "--reference", progress=True)
    except ImportError:
        if reference is not None:
            raise
        return by_name, [
            "No Frechet distances: the real digits are in a package of pip install "
            "'free-dit[evaluate]'."
        ]
    left_out = [f"--reference: {measured.left_out}"] if measured.left_out else []
    return by_name._replace(reference=measured), [
        *left_out,
        f"Quality: of {images} images a law, all lossless rows together, beside {len(measured)} of "
        f"{source}; {network.name} features. Frechet distances of so few images are too large, all "
        "alike.",
    ]
