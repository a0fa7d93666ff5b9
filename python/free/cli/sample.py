"""``free sample``: draw images by speculative sampling."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from free.cli import options
from free.cli.models import load_models, put_on_engine
from free.cli.records import (
    DraftingOptions,
    EngineOptions,
    LawOptions,
    RelaxationOptions,
    with_records,
)
from free.engines.networks import EngineTeacher
from free.files import parse_json, write_atomic, write_json
from free.generation.batches import draw_batches
from free.images.deviation import Deviation
from free.images.picture import check_picture_suffix, image_grid
from free.rounds.relaxation import Relaxation
from free.rounds.report import Report
from free.sampling.request import check_request
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler

#: Height of an image in the picture, in pixels, at least: small ones are enlarged.
_CELL = 84

#: Stochasticities up to which images are those of a deterministic sampler, nearly.
_LITTLE = 0.1


@with_records
def sample(
    *,
    model: EngineOptions,
    law: LawOptions,
    drafting: DraftingOptions,
    relaxing: RelaxationOptions,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Classes to draw: 0-9, 3, or 1,4-6; by name too, where they have names, as "
            "ImageNet's 1000 and those of a folder of images. Default: the first ten."
        ),
    ] = None,
    per_label: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 1,
    seed: Annotated[int, typer.Option(help="Image i is drawn with seed + i.")] = 0,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1,
            help="Images drawn together. Speculation saves time while rounds do not fill the "
            "machine, so on a CPU draw few at once.",
        ),
    ] = 1,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("digits.png"),
    json_path: options.Figures = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Run the plain sampler too, and compare; with a --stochasticity of at most "
            f"{_LITTLE:g} also the deterministic one, with the same initial noise.",
        ),
    ] = False,
) -> None:
    """Draw images by speculative sampling: the plain sampler's law in fewer teacher rounds.

    Examples
    --------
    `free sample --labels 0-9 --compare`

    `free sample --labels 7 --per-label 20 --window 4 --out sevens.png --json report.json`

    `free sample --window auto --batch-size 4 --compare`

    `free sample --paper --window 8 --compare`

    `free sample --relax allow:0.3:0.05 --compare`

    `free sample --drafter frozen --compare`

    `free sample --variance upper --compare`

    `free sample --sde --stochasticity 0.7 --steps 100 --compare`

    `free sample --law euler-ancestral --steps 50 --compare`

    `free sample --scheduler facebook/DiT-XL-2-256 --stochasticity 0.01 --compare`

    `free sample --verifier tolerance --tolerance 0.01 --steps 50 --compare`

    `free sample --engine onnxruntime --compare`

    `free sample --model DiT-XL-2-256x256.pt --vae stabilityai/sd-vae-ft-ema --labels "tench,207"`
    """
    options.check_outputs(out=out, json=json_path)
    check_picture_suffix(out, "--out")
    relaxation = options.parse_relaxation(relaxing.relax, relaxing.uncertainty)
    models = load_models(model)
    if labels is None:
        labels = f"0-{min(10, models.teacher.num_classes) - 1}"
    classes = options.parse_labels(labels, models.class_names, per_label)
    batch_size = min(batch_size, len(classes))
    settings = drafting.settings(models.drafter.sampling)
    check_request(models.teacher, classes, seed, None)  # all of them, before one is drawn
    device = options.parse_device(model.device)
    schedule = law.schedule(device, models.teacher.config.prediction, settings["verifier"])
    of_noise = models.teacher.config.prediction == "epsilon"
    if of_noise and schedule.timesteps.dtype.kind == "f":  # exported graphs take whole timesteps
        if isinstance(models.teacher, EngineTeacher) or model.engine not in ("auto", "torch"):
            raise ValueError(
                "--law must have whole timesteps on an engine (networks on torch take those "
                f"between), got {schedule.timesteps[1]:g} on {models.engine}"
            )
        models = models._replace(engine="torch")
    models = put_on_engine(models, model, settings, batch_size)
    teacher, drafter = models.teacher, models.drafter
    samplers: dict[str, SpeculativeSampler | SequentialSampler] = {
        "free": SpeculativeSampler(
            teacher, drafter, schedule, relaxation=relaxation, **model.guidance, **settings
        )
    }
    if compare:
        samplers["plain"] = SequentialSampler(teacher, schedule, **model.guidance)
        if law.stochasticity is not None and 0.0 < law.stochasticity <= _LITTLE:
            still = dataclasses.replace(law, stochasticity=0.0)
            samplers["still"] = SequentialSampler(
                teacher, still.schedule(device, models.teacher.config.prediction), **model.guidance
            )

    images, reports = {}, {}
    for name, sampler in samplers.items():
        images[name], reports[name] = draw_batches(
            sampler, models.coder, classes, seed, batch_size, f"{name:5s}"
        )
    deviation = None
    within = compare and "tolerance" in settings  # of the plain sampler, which is without noise
    if within or "still" in images:
        beside = "plain" if within else "still"
        ours, own = (images[name].clamp(-1.0, 1.0) for name in ("free", beside))
        deviation = Deviation.of(ours, own, span=2.0)
    if json_path is not None:
        record = {
            "model": model.model,
            "labels": classes,
            "variance": law.variance,
            "stochasticity": law.stochasticity,
            "sde": law.sde,
            "law": law.law,
            "scheduler": law.scheduler,
            **settings,
            "relaxation": None if relaxation is None else dataclasses.asdict(relaxation),
            "deviation": None if deviation is None else deviation._asdict(),
        }
        write_json(
            json_path, record | {name: parse_json(r.to_json()) for name, r in reports.items()}
        )
    titles = {"free": "FREE", "plain": "plain sampler", "still": "deterministic"}
    blocks = [
        (f"{titles[name]}, {reports[name].rounds} teacher rounds", block)
        for name, block in images.items()
    ]
    scale = max(1, _CELL // models.image_shape[0])
    picture = image_grid(blocks, [str(label) for label in classes], scale)
    write_atomic(out, picture.save)

    typer.echo(
        f"\n{len(classes)} images, {law.steps} steps, guidance {model.cfg:g}, "
        f"batches of {batch_size}, {_settings_in_words(settings)}, on {models.engine}:"
    )
    if device.type == "cuda":  # where it makes a difference
        for name, report in reports.items():
            typer.echo(f"  {name}: {report.execution}")
    same_noise = settings["recycle"] is not False or settings["window"] == 1
    for line in _describe(reports, relaxation, settings.get("tolerance"), same_noise):
        typer.echo("  " + line)
    if deviation is not None:
        typer.echo(f"  from the deterministic images of the same initial noise: {deviation}")
    typer.echo(f"picture: {out}")


def _settings_in_words(settings: dict[str, Any]) -> str:
    """How windows are drafted and verified."""
    if settings["window"] == 1:
        return "window 1: the plain sampler"
    sweeps, recycle = settings["sweeps"], settings["recycle"]
    calls = {None: "autoregression, ", 0: "no drafter call, ", 1: "1 sweep, ", "auto": ""}
    return (
        f"window {settings['window']}, "
        + calls.get(sweeps, f"{sweeps} sweeps, ")
        + (f"recycled: {recycle}" if recycle else "nothing recycled")
        + (", verified as a block" if settings["verifier"] == "block" else "")
        + (f", within {settings['tolerance']:g}" if "tolerance" in settings else "")
    )


def _describe(
    reports: dict[str, Report],
    relaxation: Relaxation | None,
    tolerance: float | None,
    same_noise: bool,
) -> list[str]:
    """The reports in plain words: "free", and "plain" where both were run.

    ``tolerance`` is that of the run, if it had one; ``same_noise`` says whether a transition has
    one noise in both.
    """
    free, plain = reports["free"], reports.get("plain")
    drafts = (
        f"   ({free.parallel_efficiency:.2f} steps a round, {100 * free.acceptance:.0f} % of the "
        "drafts accepted)"
        if free.proposed
        else ""
    )
    lines = [f"FREE           {free.rounds:6d} teacher rounds  {free.seconds:7.2f} s{drafts}"]
    if relaxation is not None:
        lines.append(_distance_in_words(free, relaxation.tv_budget))
    if tolerance is not None:
        most = max(free.deviation_by_sample)
        lines.append(
            f"not exact: images about {free.deviation:.2g} from the plain sampler's by root mean "
            f"square (estimated; {most:.2g} at most)"
        )
    if plain is not None:
        law = "the same" if relaxation is None else "within that distance"
        ratio = plain.seconds / free.seconds
        same = f"the law of the images is {law}, and so, nearly, are the draws"
        if not same_noise:
            same = f"the law of the images is {law}, the draws are not"
        if tolerance is not None:
            same = "the images are nearly the same"
        lines += [
            f"plain sampler  {plain.rounds:6d} teacher rounds  {plain.seconds:7.2f} s",
            f"{plain.rounds / free.rounds:.2f} times fewer rounds, "
            + (f"{ratio:.2f} times faster" if ratio >= 1 else f"{1 / ratio:.2f} times SLOWER")
            + f"; {same}",
        ]
    return lines


def _distance_in_words(report: Report, budget: float | None) -> str:
    """How far a relaxed run is from the exact law."""
    most = max(report.tv_bound_by_sample)
    return (
        f"relaxed: total variation from the exact law at most {report.tv_bound:.2g}"
        + (" (from 1 on, this says nothing)" if report.tv_bound >= 1 else "")
        + ("" if budget is None else f", no image above {most:.2g} of {budget:g} allowed")
        + f"; of the trajectories about {report.tv_estimate:.2g}, from {report.samples} images"
    )
