"""``free info``: what is installed, or what a checkpoint is."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Annotated, Any

import torch
import typer

from free.cli.options import Family, Figures, Heads, ImageSize, NumClasses
from free.files import write_json
from free.models.checkpoints import EMBEDDED
from free.models.checkpoints.configs import described_prediction
from free.models.config import DiTConfig
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
    family: Family = None,
    json_path: Figures = None,
) -> None:
    """Print what a checkpoint is and which drafter fits it, without reading its weights.

    Without one: version, build flags, devices and embedded models.

    Examples: `free info`, `free info DiT-XL-2-256x256.pt`, `free info mnist --json -`
    """
    if checkpoint is None:
        record = _describe_installation()
        lines = _installation_lines(record)
    else:
        summary = inspect(
            checkpoint,
            heads=heads,
            image_size=image_size,
            num_classes=num_classes,
            family=family,
        )
        record = _describe_checkpoint(summary)
        lines = _checkpoint_lines(record)
    for line in lines:
        typer.echo(line)
    if json_path is not None:
        write_json(json_path, record)


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
        "ignored": list(summary.ignored),
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
    null = "" if shape["null_class"] else " without a null class"
    config = DiTConfig(**shape)
    title = record["name"] or f"{config.acronym} of no published size"
    lines = [
        f"{title if record['kind'] == 'teacher' else f'drafter for {title}'}: {record['path']}",
        f"  format: {_FORMATS[record['format']]}",
        f"  architecture: {shape['hidden_size']} wide, {shape['depth']} blocks, "
        f"{shape['heads']} heads{', qk norm' if shape['qk_norm'] else ''}, "
        f"patch {shape['patch_size']}, input {shape['channels']} x "
        f"{shape['image_size']} x {shape['image_size']}, {shape['num_classes']} classes{null}, "
        f"predicts {described_prediction(config)}",
        *(f"  ignored: {part}" for part in record["ignored"]),
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


def _describe_installation() -> dict[str, Any]:
    devices, reason = cuda_devices()
    return {
        "version": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "extension": build_info(),
        "threads": torch.get_num_threads(),
        "cuda_devices": devices,
        "no_cuda_because": reason,
        "models": {name: _describe_model(name) for name in EMBEDDED},
    }


def _installation_lines(record: dict[str, Any]) -> list[str]:
    """The record in plain words."""
    devices = ", ".join(device["name"] for device in record["cuda_devices"])
    return [
        f"free-dit {record['version']}, Python {record['python']}, torch {record['torch']}",
        *(f"  {name}: {value}" for name, value in record["extension"].items()),
        f"  CPU threads: {record['threads']}",
        f"  CUDA devices: {devices or 'none ({})'.format(record['no_cuda_because'])}",
        *(
            f"  model {name}: {model['teacher']}; drafter {model['drafter']}"
            for name, model in record["models"].items()
        ),
    ]


def _describe_model(name: str) -> dict[str, str]:
    teacher, drafter = inspect(name), inspect(name, kind="drafter")
    shape = teacher.config
    return {
        "teacher": f"{shape.hidden_size} wide, {shape.depth} deep, patch {shape.patch_size}, "
        f"{teacher.bytes / 1e6:.1f} MB",
        "drafter": f"{drafter.parameters / 1e6:.1f} M parameters, {drafter.bytes / 1e6:.1f} MB",
    }
