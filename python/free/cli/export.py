"""``free export``: a model as graphs for ONNX Runtime or TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from free.cli.models import unavailable_to_usage_error
from free.cli.options import parse_sweeps
from free.drafters.feature import FeatureDrafter
from free.drafters.frozen import FrozenDrafter
from free.engines.load import load_engine
from free.engines.manifest import Manifest
from free.files import write_json
from free.pretrained import load_pretrained
from free.schedule.schedule import Schedule


def export(
    *,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    model: Annotated[
        str, typer.Option(help="mnist, a checkpoint, or a folder with teacher/ and drafter/.")
    ] = "mnist",
    to: Annotated[
        str, typer.Option(help="onnx, or engines as well: tensorrt, tensorrt-rtx.")
    ] = "onnx",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16 or bf16: of the teacher's large matrix products.")
    ] = "fp32",
    drafter_precision: Annotated[
        str | None,
        typer.Option(help="Of the drafter's; no part of the law. Default: as the teacher's."),
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Widest window. Default: the drafter's, else 8.")
    ] = None,
    sweeps: Annotated[
        str | None,
        typer.Option(
            help="Drafter calls of a window, at least 1, or autoregression. Default: the drafter's."
        ),
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Samples drawn together, at most.")] = 1,
    guidance: Annotated[
        str, typer.Option(help="Which graphs to make: both, only (guided), or none.")
    ] = "both",
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="GPU to build tensorrt-rtx engines for, as sm89; may be repeated. Default: the "
            "one in this machine."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option(help="Compare every graph, and sampling, with torch in float32.")
    ] = True,
    check_images: Annotated[int, typer.Option(min=1, help="Images that the check draws.")] = 4,
) -> None:
    """Export teacher and drafter as graphs, and check them against torch.

    Examples
    --------
    `free export --model mnist --out engine`

    `free export --model mnist --precision fp16 --window 8 --max-batch 4 --out engine`

    `free export --model runs/model --to tensorrt-rtx --target sm89 --target sm120 --out engine`
    """
    from free.export.package import export_model

    if to not in ("onnx", "tensorrt", "tensorrt-rtx"):
        raise ValueError(f"--to must be onnx, tensorrt or tensorrt-rtx, got {to!r}")
    kinds = {"both": (False, True), "only": (True,), "none": (False,)}
    if guidance not in kinds:
        raise ValueError(f"--guidance must be both, only or none, got {guidance!r}")
    if target and to != "tensorrt-rtx":
        raise ValueError(f"--target must come with --to tensorrt-rtx, got --to {to}")
    teacher, drafter = load_pretrained(model)
    trained = drafter if isinstance(drafter, FeatureDrafter) else None
    own = drafter.sampling
    manifest = export_model(
        teacher,
        trained,
        out,
        window=own.get("window", 8) if window is None else window,
        sweeps=_sweeps(own) if sweeps is None else parse_sweeps(sweeps),
        max_batch=max_batch,
        precision=precision,
        drafter_precision=drafter_precision,
        guidance=kinds[guidance],
        progress=lambda graph: typer.echo(f"  {graph} ..."),
    )
    size = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    typer.echo(f"{out}: {len(manifest.graphs)} graphs, {size:.1f} MB, {precision}")
    if check:
        _check(out, manifest, teacher, trained, check_images)
    if to != "onnx":
        with unavailable_to_usage_error():
            _build(out, manifest, to, target)


def _sweeps(recommended: Mapping[str, Any]) -> int | None:
    """What the drafter recommends; graphs of one that need not be asked are for one sweep."""
    own = recommended.get("sweeps")
    return None if own is None else max(own, 1)


def _check(
    out: Path, manifest: Manifest, teacher: Any, drafter: FeatureDrafter | None, images: int
) -> None:
    """Print how far the graphs are from torch; refuse if it is too far."""
    from free.export.package import torch_engine
    from free.export.parity import TOLERANCE, check_graphs, check_sampling, parity_record

    if "bf16" in (manifest.precision, manifest.drafter_precision):
        typer.echo("ONNX Runtime has no bf16 products on CPUs: the graphs are checked on torch.")
        engine_teacher, engine_drafter = torch_engine(
            teacher,
            drafter,
            window=manifest.window,
            sweeps=manifest.sweeps,
            max_batch=manifest.max_batch,
            precision=manifest.precision,
            drafter_precision=manifest.drafter_precision,
            guidance=tuple(
                name == "teacher_guided" for name in manifest.graphs if "teacher" in name
            ),
        )
    else:
        engine_teacher, engine_drafter = load_engine(out)
    sessions = engine_teacher.sessions | getattr(engine_drafter, "sessions", {})
    corners = check_graphs(teacher, drafter, manifest, sessions)
    typer.echo("\ngraph            sizes                                largest   relative")
    for corner in corners:
        sizes = " ".join(f"{axis}={size}" for axis, size in corner.sizes.items())
        typer.echo(f"{corner.graph:16s} {sizes:36s} {corner.largest:.1e}   {corner.relative:.1e}")
    predicts_noise = teacher.config.prediction == "epsilon"
    schedule = (Schedule.ddpm if predicts_noise else Schedule.repa)(**manifest.schedule)
    agreement = check_sampling(
        teacher,
        drafter or FrozenDrafter(),
        engine_teacher,
        engine_drafter,
        settings=engine_drafter.sampling,  # as it will be sampled with
        schedule=schedule,
        labels=[i % teacher.num_classes for i in range(images)],
        cfg_scale=1.5 if "teacher_guided" in sessions else 1.0,
    )
    typer.echo(
        f"\nthe same {images} seeds on torch in fp32 and on the engine: "
        f"{100 * agreement.identical:.1f} % of the decisions identical, "
        f"{agreement.efficiency:.2f} and {agreement.efficiency_engine:.2f} steps a round, "
        f"means moved by {agreement.delta_shift:.1e} sigma"
    )
    limit = max(TOLERANCE[manifest.precision], TOLERANCE[manifest.drafter_precision])
    write_json(out / "parity.json", parity_record(corners, agreement, limit))
    worst = max(corners, key=lambda corner: corner.relative)
    if not worst.relative <= limit:
        raise ValueError(
            f"graphs must agree with torch to {limit:g} in {manifest.precision}, got "
            f"{worst.relative:.1e} for {worst.graph} at {worst.sizes}"
        )


def _build(out: Path, manifest: Manifest, flavour: str, targets: list[str] | None) -> None:
    """Build the engines of all graphs for each target, by default for the GPU here."""
    from free.export.tensorrt import load_or_build

    every: list[str | None] = [*targets] if targets else [None]
    for target in every:
        for graph in manifest.graphs.values():
            engine = load_or_build(out / graph.file, graph.contract, flavour=flavour, target=target)
            typer.echo(f"  {engine}")
