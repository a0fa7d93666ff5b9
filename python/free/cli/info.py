"""``free info``: what is installed and what it runs on."""

from __future__ import annotations

import json
import platform
from typing import Annotated, Any

import torch
import typer

from free.models.checkpoint import EMBEDDED, bundle_path
from free.ops import build_info, cuda_devices
from free.version import __version__

__all__ = ["info"]


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Print version, build flags, devices and embedded models.

    Examples: `free info`, `free info --json`
    """
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


def _describe_model(name: str) -> dict[str, Any]:
    folder = bundle_path(name)
    parts = {}
    for part in ("teacher", "drafter"):
        config = json.loads((folder / part / "config.json").read_text(encoding="utf-8"))
        shape = config["architecture"]
        size = (folder / part / "model.safetensors").stat().st_size / 1e6
        depth = shape["depth"] if part == "teacher" else 1
        parts[part] = (
            f"{shape['hidden_size']} wide, {depth} deep, patch {shape['patch_size']}, {size:.1f} MB"
        )
    return parts
