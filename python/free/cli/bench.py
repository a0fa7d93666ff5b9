"""``free bench``: plain sampling and FREE over numbers of steps, on one model and this machine."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from free.bench import bench as run_bench
from free.bench import chosen_rows
from free.bench.draws import APART, Draws
from free.bench.judge import BATCH, Judge
from free.bench.laws import Law, best_law
from free.bench.plot import plot
from free.bench.rows import PAPER_WINDOW, WIDEST, Row
from free.bench.samplers import Networks, StepByStep, sampler_of
from free.bench.style import require_matplotlib
from free.bench.table import markdown, remarks, text
from free.cli import options
from free.cli.models import Models, is_exported, load_models, put_on_engine
from free.cli.records import EngineOptions, with_records
from free.drafters.feature import FeatureDrafter
from free.drafters.frozen import FrozenDrafter
from free.evaluation import load_network, measure
from free.evaluation.features import FeatureNetwork
from free.files import read_json, write_atomic, write_json
from free.images.picture import check_picture_suffix
from free.machine import machine
from free.schedule.schedule import Schedule

#: Options of the model that are kept with the figures.
_RECORDED = ("model", "device", "dtype", "cfg", "drafter")
_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much is measured."""

    rows: str
    images: int
    quality: int  #: Images of each law; 130 are just enough for the features of digits.


_QUICK = Extent("plain,free-16,free-auto", 6, 130)
_FULL = Extent("*", 12, 1000)


@dataclasses.dataclass(frozen=True)
class LawOptions:
    """Which law is sampled, in each number of steps."""

    steps: Annotated[
        str, typer.Option(help="Transitions of the samplers: each number is a point of the curves.")
    ] = "10,25,50,100,250"
    law: Annotated[
        str | None,
        typer.Option(
            help="Another sampler of the same network, as of free sample. Default: in each "
            "number of steps the law that was measured to be the best."
        ),
    ] = None
    stochasticity: Annotated[
        float | None, typer.Option(help="Noise of the transitions, as of free sample.")
    ] = None
    sde: options.Sde = False

    def laws(self, prediction: str) -> list[tuple[int, Law]]:
        """Numbers of steps, from the fewest, and the law of each."""
        given = Law(self.law, self.stochasticity, self.sde)
        numbers = sorted(options.parse_numbers(self.steps, int, "--steps"))
        return [(n, best_law(n, prediction) if given == Law() else given) for n in numbers]


@with_records
def bench(
    *,
    model: EngineOptions,
    rows: Annotated[
        str | None,
        typer.Option(
            help="Samplers, by names or patterns: plain (always), ddim, eps, eps-recycled, paper, "
            "free-2 ... free-32, free-auto, frozen-2 ..., block, relaxed; * is all. Default: "
            f"{_QUICK.rows}."
        ),
    ] = None,
    laws: LawOptions,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help=f"All samplers, {_FULL.images} batches of each, {_FULL.quality} images of each "
            "law, unless other options say otherwise: half an hour for digits.",
        ),
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images drawn together.")] = 1,
    images: Annotated[
        int | None,
        typer.Option(
            min=2,
            help=f"Batches of each sampler to time, and one more before. Default: {_QUICK.images}.",
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Images that each law is judged by: those that were timed and as many more as it "
            f"takes; 0 for no figures. Default: {_QUICK.quality}, with --reference at least the "
            "features' dimensions, and 0 where nothing can judge them.",
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
        Path | None, typer.Option("--markdown", help="File for the tables in Markdown.")
    ] = None,
    plot_path: Annotated[
        Path | None,
        typer.Option("--plot", help="Picture: cost against quality, or bars in one --steps."),
    ] = None,
    draw_path: Annotated[
        Path | None,
        typer.Option("--draw", help="Measure nothing: --plot what an earlier run wrote to --json."),
    ] = None,
) -> None:
    """Draw two curves over the numbers of steps: what the plain sampler's images cost and are
    worth, and what the same images cost with FREE.

    All samplers run on one engine, in turn, so that what happens to the machine happens to all of
    them; samples that other processes have disturbed are discarded. What draws from one law in so
    many steps is judged together.

    Examples
    --------
    `free bench --model mnist`

    `free bench --plot curves.png --json curves.json --markdown curves.md`

    `free bench --rows "*" --steps 250 --law ddpm --quality 0`

    `free bench --full --json full.json`

    `free bench --draw full.json --steps 250 --plot speed.png`
    """
    options.check_outputs(json=json_path, markdown=markdown_path, plot=plot_path)
    if plot_path is not None:
        check_picture_suffix(plot_path, "--plot")
        require_matplotlib()
    if draw_path is not None:
        if plot_path is None:
            raise ValueError("--draw must come with --plot, got none")
        _redraw(draw_path, plot_path, options.parse_numbers(laws.steps, int, "--steps"))
        return
    extent = _FULL if full else _QUICK
    images = extent.images if images is None else images
    selection = chosen_rows(extent.rows if rows is None else rows)
    if is_exported(model.model):
        raise ValueError(
            f"--model must be a checkpoint for this command, got the exported graphs {model.model}:"
            " it exports graphs for all rows itself"
        )
    models = load_models(model)
    draws: list[Draws] = []
    absent: dict[str, str] = {}
    if not isinstance(models.drafter, FeatureDrafter):  # FREE's rows are without training then
        again = [row.name for row in selection if row.drafter == "image"]
        absent |= dict.fromkeys(again, "as FREE's, where the model has no trained drafter")
        selection = [row for row in selection if row.name not in absent]
    prediction = models.teacher.config.prediction
    by_steps = laws.laws(prediction)
    if plot_path is not None and quality == 0 and len(by_steps) > 1:
        raise ValueError("--plot must come with --quality for several --steps, got 0")
    schedules = {n: _schedules(n, law, prediction) for n, law in by_steps}
    models, networks = _networks(models, model, selection, batch_size)
    for steps, law in by_steps:
        for row in selection:
            sampler = sampler_of(row, networks, schedules[steps][row.deterministic], model.guidance)
            if isinstance(sampler, str):
                absent[row.name] = sampler
                continue
            name = "no noise" if row.deterministic else law.label
            draws.append(
                Draws(
                    row,
                    name if row.relaxation is None else f"{name}, relaxed",
                    sampler,
                    models.teacher.num_classes,
                    batch_size,
                    seed + APART * len(draws),
                )
            )
    judge, notes = _judge(models, quality, extent.quality, reference, features, model.device)
    if plot_path is not None and judge is None and len(by_steps) > 1:
        raise ValueError("--plot must come with --quality and --reference for this model")
    lines = run_bench(draws, images, judge, progress=True)

    for reason in dict.fromkeys(absent.values()):
        names = ", ".join(name for name, why in absent.items() if why == reason)
        notes.append(f"left out: {names}: {reason}")
    notes += remarks(lines)
    title = (
        f"{model.model}, guidance {model.cfg:g}, batches of {batch_size}, on "
        f"{models.engine}, {torch.get_num_threads()} threads"
    )
    typer.echo(f"\n{title}\n\n{text(lines)}\n")
    for note in notes:
        typer.echo(textwrap.fill(note, _WIDTH))
    if json_path is not None:
        record = {
            "machine": machine(),
            "title": title,
            "settings": {
                **{name: getattr(model, name) for name in _RECORDED},
                "engine": models.engine,
                "laws": [{"steps": n, "label": law.label, **law._asdict()} for n, law in by_steps],
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
    if plot_path is not None:
        drawn = [line.to_dict() for line in lines]
        plot(plot_path, drawn, title, "" if judge is None else judge.network.name)


def _redraw(source: Path, path: Path, numbers: Sequence[int]) -> None:
    """Plot what an earlier run wrote to ``--json``, of these numbers of steps."""
    try:
        record = read_json(source, "--draw")
        rows = [row for row in record["rows"] if row["steps"] in numbers]
        quality, title = record["quality"], record["title"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"--draw must be a file of free bench --json, got {source}") from error
    if not rows:
        raise ValueError(f"--draw must have rows in one of --steps, got {source} without")
    plot(path, rows, title, "" if quality is None else quality["features"])


def _schedules(steps: int, law: Law, prediction: str) -> dict[bool, Schedule]:
    """The law's schedule and, under True, the same network's without noise."""
    schedule = options.parse_schedule(
        steps,
        "posterior",
        law.stochasticity,
        law.sde,
        torch.device("cpu"),
        law=law.law,
        prediction=prediction,
    )
    if prediction == "velocity":
        plain = Schedule.sde("linear", steps, 0.0)
        return {False: schedule, True: dataclasses.replace(plain, timesteps=plain.noise)}
    return {False: schedule, True: Schedule.ddpm(steps, stochasticity=0.0)}


def _networks(
    models: Models, model: EngineOptions, rows: Sequence[Row], batch_size: int
) -> tuple[Models, Networks]:
    """The model on the engine, and what rows take of it: one export serves them all.

    It is of the paper's window, for as large batches as give the rows of the widest one.
    """
    trained = isinstance(models.drafter, FeatureDrafter) and any(
        row.drafter in ("own", "trained") for row in rows
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
    models: Models,
    images: int | None,
    enough: int,
    reference: str | None,
    features: str,
    device: str,
) -> tuple[Judge | None, list[str]]:
    """What the images are to be judged by, if anything, and remarks on it.

    ``enough`` images are looked at by default, more where the features have more dimensions.
    """
    digits = models.image_shape == (28, 28, 1)
    source = "mnist" if reference is None and digits else reference
    network = None if images == 0 else _network(models, features, source, images, device)
    if network is None:
        return None, []
    if images is None:
        images = enough if source is None else max(enough, network.dims + 2)
    by_name = Judge(images, models.teacher.num_classes, network, models.coder)
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


def _network(
    models: Models, features: str, source: str | None, images: int | None, device: str
) -> FeatureNetwork | None:
    """The feature network; None where nobody asked for figures and it could not give any."""
    if source is not None or images is not None:
        return load_network(features, models.image_shape, device)
    try:
        network = load_network(features, models.image_shape, device)
    except ImportError:
        return None
    return network if network.classes == models.teacher.num_classes else None
