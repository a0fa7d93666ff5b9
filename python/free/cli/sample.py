"""``free sample``: draw images by speculative sampling."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from free.cli import options
from free.cli.engine import choose_engine, put_on_engine
from free.cli.models import class_names, load_models
from free.cli.options import (
    bad_input_to_usage_error,
    drafting_settings,
    parse_device,
    parse_dtype,
    parse_labels,
    parse_relaxation,
    parse_schedule,
)
from free.files import check_writable, write_atomic, write_json
from free.generation.batches import draw_batches
from free.images.picture import check_picture_suffix, image_grid
from free.rounds.relaxation import Relaxation
from free.rounds.report import Report
from free.sampling.request import check_request
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler

__all__ = ["sample"]

#: Height of an image in the picture, in pixels, at least: small ones are enlarged.
_CELL = 84


def sample(
    model: options.Model = "mnist",
    labels: Annotated[
        str,
        typer.Option(
            help="Classes to draw: 0-9, 3, or 1,4-6; names too where there are 1000, ImageNet's."
        ),
    ] = "0-9",
    per_label: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 1,
    steps: options.Steps = 250,
    variance: options.Variance = "posterior",
    stochasticity: options.Stochasticity = 1.0,
    sde: options.Sde = False,
    window: options.Window = None,
    sweeps: options.Sweeps = None,
    recycle: options.Recycle = None,
    verifier: options.Verifier = "reflection",
    paper: options.Paper = False,
    relax: options.Relax = None,
    uncertainty: options.Uncertainty = "discrepancy",
    drafter: options.DrafterSource = "trained",
    vae: options.Vae = None,
    constants: options.Constants = None,
    cfg: options.Cfg = 1.5,
    cfg_channels: options.CfgChannels = None,
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
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Report to write, for programs.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Run the plain sampler too, and compare.")
    ] = False,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    engine: options.Engine = "auto",
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

    `free sample --engine onnxruntime --compare`

    `free sample --model DiT-XL-2-256x256.pt --vae stabilityai/sd-vae-ft-ema --labels "tench,207"`
    """
    with bad_input_to_usage_error():
        check_writable(out, "--out")
        check_picture_suffix(out, "--out")
        if json_path is not None and json_path.resolve() == out.resolve():
            raise ValueError(f"--json must be another file than --out, got {json_path}")
        if json_path is not None:
            check_writable(json_path, "--json")
        relaxation = parse_relaxation(relax, uncertainty)
        used = choose_engine(engine, model, device, dtype)
        loaded_as = parse_dtype(dtype if used == "torch" else "float32")  # graphs have their own
        loaded, drafts, coder = load_models(
            model, drafter, vae, constants, loaded_as, parse_device(device)
        )
        chosen = parse_labels(labels, class_names(loaded))
        classes = [label for label in chosen for _ in range(per_label)]
        settings = drafting_settings(drafts.sampling, paper, window, sweeps, recycle, verifier)
        check_request(loaded, classes, seed, None)  # all of them, before the first is drawn
        schedule = parse_schedule(steps, variance, stochasticity, sde, parse_device(device))
        teacher, drafting = put_on_engine(
            used, loaded, drafts, settings, cfg != 1.0, min(batch_size, len(classes)), device, dtype
        )
        samplers: dict[str, SpeculativeSampler | SequentialSampler] = {
            "free": SpeculativeSampler(
                teacher,
                drafting,
                schedule,
                cfg_scale=cfg,
                cfg_channels=cfg_channels,
                relaxation=relaxation,
                **settings,
            )
        }
        if compare:
            samplers["plain"] = SequentialSampler(teacher, schedule, cfg, cfg_channels)

        runs = {
            name: draw_batches(sampler, coder, classes, seed, batch_size, f"{name:5s}")
            for name, sampler in samplers.items()
        }
        titles = {
            "free": f"FREE, {runs['free'][1].rounds} teacher rounds",
            "plain": f"plain sampler, {runs['plain'][1].rounds} teacher rounds" if compare else "",
        }
        if json_path is not None:
            record = {name: json.loads(report.to_json()) for name, (_, report) in runs.items()}
            relaxed = None if relaxation is None else dataclasses.asdict(relaxation)
            law = {"variance": variance, "stochasticity": stochasticity, "sde": sde}
            asked = {"model": model, "labels": classes, **law, **settings, "relaxation": relaxed}
            write_json(json_path, asked | record)
        rows = [(titles[name], samples) for name, (samples, _) in runs.items()]
        scale = max(1, _CELL // coder.image_shape(teacher.sample_shape)[0])
        picture = image_grid(rows, [str(label) for label in classes], scale)
        write_atomic(out, picture.save)

    typer.echo(
        f"\n{len(classes)} images, {steps} steps, guidance {cfg:g}, "
        f"batches of {min(batch_size, len(classes))}, {_in_words(settings)}, on {used}:"
    )
    for line in _describe(
        {name: report for name, (_, report) in runs.items()},
        settings["recycle"] is not False or settings["window"] == 1,
        relaxation,
        on_cuda=parse_device(device).type == "cuda",
    ):
        typer.echo("  " + line)
    typer.echo(f"picture: {out}" + (f"   report: {json_path}" if json_path else ""))


def _in_words(settings: dict[str, Any]) -> str:
    """How windows are drafted."""
    if settings["window"] == 1:
        return "window 1: the plain sampler"
    sweeps, recycle = settings["sweeps"], settings["recycle"]
    swept = {None: "autoregression, ", 1: "1 sweep, ", "auto": ""}
    ways = {True: "recycled: best so far", False: "nothing recycled"}
    return (
        f"window {settings['window']}, "
        + swept.get(sweeps, f"{sweeps} sweeps, ")
        + ways.get(recycle, f"recycled: {recycle}")
        + (", verified as a block" if settings["verifier"] == "block" else "")
    )


def _describe(
    reports: dict[str, Report], same_noise: bool, relaxation: Relaxation | None, on_cuda: bool
) -> list[str]:
    """The reports in plain words."""
    free = reports["free"]
    lines = [
        f"FREE           {free.rounds:6d} teacher rounds  {free.seconds:7.2f} s   "
        f"({free.parallel_efficiency:.2f} steps a round, {100 * free.acceptance:.0f} % of the "
        "drafts accepted)"
        if free.proposed
        else f"FREE           {free.rounds:6d} teacher rounds  {free.seconds:7.2f} s"
    ]
    if on_cuda:  # where it makes a difference
        lines += [f"{name}: {report.execution}" for name, report in reports.items()]
    if relaxation is not None:
        lines.append(_in_distance(free, relaxation.tv_budget))
    law = "the same" if relaxation is None else "within that distance"
    if "plain" in reports:
        plain = reports["plain"]
        ratio = plain.seconds / free.seconds
        lines += [
            f"plain sampler  {plain.rounds:6d} teacher rounds  {plain.seconds:7.2f} s",
            f"{plain.rounds / free.rounds:.2f} times fewer rounds, "
            + (f"{ratio:.2f} times faster" if ratio >= 1 else f"{1 / ratio:.2f} times SLOWER")
            + f"; the law of the images is {law}, "
            + ("and so, nearly, are the draws" if same_noise else "the draws are not"),
        ]
    return lines


def _in_distance(report: Report, budget: float | None) -> str:
    """How far a relaxed run is from the exact law."""
    most = max(report.tv_bound_by_sample)
    return (
        f"relaxed: total variation from the exact law at most {report.tv_bound:.2g}"
        + (" (from 1 on, this says nothing)" if report.tv_bound >= 1 else "")
        + ("" if budget is None else f", no image above {most:.2g} of {budget:g} allowed")
        + f"; of the trajectories about {report.tv_estimate:.2g}, from {report.samples} images"
    )
