"""``free info``: what is installed, or what a checkpoint is."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from typing import Annotated, Any

import torch
import typer

from free.cli.options import Heads, ImageSize, NumClasses, bad_input_to_usage_error
from free.models.checkpoints import EMBEDDED
from free.models.drafter import DrafterNet
from free.models.summary import Summary, drafters_beside, inspect
from free.ops import build_info, cuda_devices
from free.version import __version__


def info(
    checkpoint: Annotated[
        str | None,
        typer.Argument(help="A file, a folder, a hub id or mnist; none to describe free itself."),
    ] = None,
    *,
    heads: Heads = None,
    image_size: ImageSize = None,
    num_classes: NumClasses = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Print what a checkpoint is and which drafter fits it, without reading its weights.

    Without one: version, build flags, devices and embedded models.

    Examples: `free info`, `free info DiT-XL-2-256x256.pt`, `free info mnist --json`
    """
    if checkpoint is None:
        _print_installation(as_json)
        return
    with bad_input_to_usage_error():
        summary = inspect(checkpoint, heads=heads, image_size=image_size, num_classes=num_classes)
        record = _describe_checkpoint(summary)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    for line in _checkpoint_lines(record):
        typer.echo(line)


def _describe_checkpoint(summary: Summary) -> dict[str, Any]:
    config = summary.config
    record: dict[str, Any] = {
        "path": str(summary.path),
        "format": summary.format,
        "kind": summary.kind,
        "name": summary.name,
        "architecture": asdict(config),
        "parameters": summary.parameters,
        "precision": [str(dtype).removeprefix("torch.") for dtype in summary.dtypes],
        "bytes": summary.bytes,
        "training": summary.training,
    }
    if summary.kind == "drafter":
        return {**record, **summary.options, "sampling": summary.sampling}
    with torch.device("meta"):
        values = sum(weight.numel() for weight in DrafterNet(config).parameters())
    beside = [
        {"folder": str(drafter.folder), "fits": not drafter.misfit, "misfit": drafter.misfit}
        for drafter in drafters_beside(summary)
    ]
    return {**record, "drafter": {"parameters": values, "beside": beside}}


_FORMATS = {
    "original": "the original code's state dict",
    "training": "the original code's training checkpoint; its averaged weights are used",
    "diffusers": "diffusers",
    "free": "free",
}


def _checkpoint_lines(record: dict[str, Any]) -> list[str]:
    """The record in plain words."""
    shape = record["architecture"]
    outputs = "eps and variance" if shape["learn_sigma"] else "eps"
    null = "" if shape["null_class"] else " without a null class"
    title = record["name"] or "DiT of no published size"
    lines = [
        f"{title if record['kind'] == 'teacher' else f'drafter for {title}'}: {record['path']}",
        f"  format: {_FORMATS[record['format']]}",
        f"  architecture: {shape['hidden_size']} wide, {shape['depth']} blocks, "
        f"{shape['heads']} heads, patch {shape['patch_size']}, input {shape['channels']} x "
        f"{shape['image_size']} x {shape['image_size']}, {shape['num_classes']} classes{null}, "
        f"predicts {outputs}",
        f"  parameters: {record['parameters']:,}",
        f"  precision: {' and '.join(record['precision'])}, {record['bytes'] / 1e6:.1f} MB",
        f"  constants: timestep divisor {shape['timestep_divisor']}, "
        f"norm epsilon {shape['norm_eps']:g}",
        f"  training record: {'yes' if record['training'] else 'none'}",
    ]
    if record["kind"] == "drafter":
        settings = {name: v for name, v in record["sampling"].items() if name != "acceptance"}
        on_record = "; its acceptance is on record" if "acceptance" in record["sampling"] else ""
        gate = ", gated" if record["gate"] else ""
        return [
            *lines,
            f"  blocks of its own: {record['depth']}{gate}",
            f"  recommends: {settings or 'nothing'}{on_record}",
        ]
    lines.append(
        f"  drafter that fits: of the same shape, {record['drafter']['parameters']:,} parameters; "
        "or frozen, which needs no training"
    )
    lines += [
        f"    {drafter['folder']}: "
        + ("fits" if drafter["fits"] else f"does not fit: {drafter['misfit']}")
        for drafter in record["drafter"]["beside"]
    ]
    return lines


def _print_installation(as_json: bool) -> None:
    devices, reason = cuda_devices()
    record: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "extension": build_info(),
        "threads": torch.get_num_threads(),
        "cuda_devices": devices,
        "no_cuda_because": reason,
        "models": {name: _describe_model(name) for name in EMBEDDED},
    }
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    typer.echo(f"free-dit {record['version']}, Python {record['python']}, torch {record['torch']}")
    for name, value in build_info().items():
        typer.echo(f"  {name}: {value}")
    typer.echo(f"  CPU threads: {record['threads']}")
    names = ", ".join(device["name"] for device in devices)
    typer.echo(f"  CUDA devices: {names or f'none ({reason})'}")
    for name, model in record["models"].items():
        typer.echo(f"  model {name}: {model['teacher']}; drafter {model['drafter']}")


def _describe_model(name: str) -> dict[str, str]:
    teacher, drafter = inspect(name), inspect(name, kind="drafter")
    shape = teacher.config
    return {
        "teacher": f"{shape.hidden_size} wide, {shape.depth} deep, patch {shape.patch_size}, "
        f"{teacher.bytes / 1e6:.1f} MB",
        "drafter": f"{drafter.parameters / 1e6:.1f} M parameters, {drafter.bytes / 1e6:.1f} MB",
    }
