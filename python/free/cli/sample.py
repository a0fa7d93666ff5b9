"""``free sample``: draw images by speculative sampling."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from tqdm import tqdm

from free.cli.options import (
    bad_input_to_usage_error,
    drafting_settings,
    parse_device,
    parse_labels,
)
from free.files import check_writable, write_atomic, write_json
from free.picture import check_drawable, check_picture_suffix, image_grid
from free.pretrained import load_pretrained
from free.report import Report
from free.request import check_request
from free.sampler import SequentialSampler, SpeculativeSampler
from free.schedule import Schedule

__all__ = ["sample"]


def sample(
    model: Annotated[str, typer.Option(help="mnist, or a folder with teacher/ and drafter/.")] = (
        "mnist"
    ),
    labels: Annotated[str, typer.Option(help="Classes to draw: 0-9, 3, or 1,4-6.")] = "0-9",
    per_label: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 1,
    steps: Annotated[int, typer.Option(help="Transitions of the sampler, 2 to 1000.")] = 250,
    window: Annotated[
        int | None,
        typer.Option(
            help="Teacher rows of a round; 1 is the plain sampler. Default: the model's, else 8."
        ),
    ] = None,
    sweeps: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Drafter calls a round, each for the whole window; 0 is autoregression. "
            "Default: the model's.",
        ),
    ] = None,
    recycle: Annotated[
        str | None,
        typer.Option(
            help="What to make of the teacher's rows behind a rejection: response, "
            "control_variate, reuse, drafter, best (whichever has done best so far), or off. "
            "Default: the model's."
        ),
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="As in the paper: autoregression, nothing recycled.")
    ] = False,
    drafter: Annotated[
        str, typer.Option(help="trained, or frozen: no training, the last prediction kept.")
    ] = "trained",
    cfg: Annotated[float, typer.Option(help="Guidance scale; 1 is none.")] = 1.5,
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
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Draw images by speculative sampling: the plain sampler's law in fewer teacher rounds.

    Examples
    --------
    `free sample --labels 0-9 --compare`

    `free sample --labels 7 --per-label 20 --window 4 --out sevens.png --json report.json`

    `free sample --paper --window 8 --compare`

    `free sample --drafter frozen --compare`
    """
    with bad_input_to_usage_error():
        check_writable(out, "--out")
        check_picture_suffix(out, "--out")
        if json_path is not None and json_path.resolve() == out.resolve():
            raise ValueError(f"--json must be another file than --out, got {json_path}")
        if json_path is not None:
            check_writable(json_path, "--json")
        classes = [label for label in parse_labels(labels) for _ in range(per_label)]
        if drafter not in ("trained", "frozen"):
            raise ValueError(f"--drafter must be trained or frozen, got {drafter!r}")
        teacher, trained = load_pretrained(model, device=parse_device(device))
        settings = drafting_settings(trained.sampling, paper, window, sweeps, recycle)
        check_drawable(teacher.sample_shape)
        check_request(teacher, classes, seed, None)  # all of them, before the first is drawn
        schedule = Schedule.ddpm(steps)
        samplers: dict[str, SpeculativeSampler | SequentialSampler] = {
            "free": SpeculativeSampler(
                teacher,
                trained if drafter == "trained" else drafter,
                schedule,
                cfg_scale=cfg,
                **settings,
            )
        }
        if compare:
            samplers["plain"] = SequentialSampler(teacher, schedule, cfg)

        runs = {
            name: _draw(sampler, classes, seed, batch_size, name)
            for name, sampler in samplers.items()
        }
        titles = {
            "free": f"FREE, {runs['free'][1].rounds} teacher rounds",
            "plain": f"plain sampler, {runs['plain'][1].rounds} teacher rounds" if compare else "",
        }
        if json_path is not None:
            record = {name: json.loads(report.to_json()) for name, (_, report) in runs.items()}
            write_json(json_path, {"model": model, "labels": classes, **settings, **record})
        rows = [(titles[name], samples) for name, (samples, _) in runs.items()]
        picture = image_grid(rows, [str(label) for label in classes])
        write_atomic(out, picture.save)

    typer.echo(
        f"\n{len(classes)} images, {steps} steps, guidance {cfg:g}, "
        f"batches of {min(batch_size, len(classes))}, {_in_words(settings)}:"
    )
    for line in _describe(
        {name: report for name, (_, report) in runs.items()},
        settings["recycle"] is not False or settings["window"] == 1,
    ):
        typer.echo("  " + line)
    typer.echo(f"picture: {out}" + (f"   report: {json_path}" if json_path else ""))


def _draw(
    sampler: SpeculativeSampler | SequentialSampler,
    labels: Sequence[int],
    seed: int,
    batch_size: int,
    name: str,
) -> tuple[Tensor, Report]:
    """Samples and the merged report of all batches, under one progress bar."""
    parts, reports = [], []
    total = len(sampler.schedule) * len(labels)
    with tqdm(total=total, desc=f"{name:5s}", unit="step") as bar:
        for start in range(0, len(labels), batch_size):
            batch = labels[start : start + batch_size]
            samples, report = sampler.sample(batch, seed + start, progress=bar.update)
            parts.append(samples.cpu())
            reports.append(report)
    return torch.cat(parts), Report.merge(reports)


def _in_words(settings: dict[str, Any]) -> str:
    """How windows are drafted."""
    if settings["window"] == 1:
        return "window 1: the plain sampler"
    sweeps, recycle = settings["sweeps"], settings["recycle"]
    ways = {True: "recycled: best so far", False: "nothing recycled"}
    return (
        f"window {settings['window']}, "
        + ("autoregression, " if sweeps is None else f"{sweeps} sweep{'s' * (sweeps > 1)}, ")
        + ways.get(recycle, f"recycled: {recycle}")
    )


def _describe(reports: dict[str, Report], same_noise: bool) -> list[str]:
    """The reports in plain words."""
    free = reports["free"]
    lines = [
        f"FREE           {free.rounds:6d} teacher rounds  {free.seconds:7.2f} s   "
        f"({free.parallel_efficiency:.2f} steps a round, {100 * free.acceptance:.0f} % of the "
        "drafts accepted)"
        if free.proposed
        else f"FREE           {free.rounds:6d} teacher rounds  {free.seconds:7.2f} s"
    ]
    if "plain" in reports:
        plain = reports["plain"]
        ratio = plain.seconds / free.seconds
        lines += [
            f"plain sampler  {plain.rounds:6d} teacher rounds  {plain.seconds:7.2f} s",
            f"{plain.rounds / free.rounds:.2f} times fewer rounds, "
            + (f"{ratio:.2f} times faster" if ratio >= 1 else f"{1 / ratio:.2f} times SLOWER")
            + "; the law of the images is the same, "
            + ("and so, nearly, are the draws" if same_noise else "the draws are not"),
        ]
    return lines
