"""``free convert``: a checkpoint in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from free.cli.options import Family, Heads, ImageSize, NumClasses
from free.models.checkpoints import FORMATS, is_original_file
from free.models.config import PUBLISHED_HEADS
from free.models.dit import DiT
from free.models.summary import inspect

_DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16", "float16")}


def convert(
    source: Annotated[str, typer.Argument(help="A teacher's file or folder, a hub id or mnist.")],
    destination: Annotated[
        Path, typer.Argument(help="New folder; for --to original also a file, .pt or .pth.")
    ],
    *,
    to: Annotated[str, typer.Option(help="free, original or diffusers.")],
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16, float16 or float64; as in the source by default."),
    ] = None,
    constants: Annotated[
        str | None,
        typer.Option(help="original or diffusers, where the source's format says the wrong ones."),
    ] = None,
    heads: Heads = None,
    image_size: ImageSize = None,
    num_classes: NumClasses = None,
    family: Family = None,
) -> None:
    """Write a teacher's checkpoint in another format, value for value.

    Examples
    --------
    `free convert DiT-XL-2-256x256.pt dit-xl --to free --dtype float16`

    `free convert DiT-XL-2-256x256.pt dit-xl-diffusers --to diffusers`

    `free convert SiT-XL-2-256x256.pt sit-xl --to free --family sit`
    """
    if to not in FORMATS:
        raise ValueError(f"--to must be one of {', '.join(FORMATS)}, got {to!r}")
    if dtype is not None and dtype not in _DTYPES:
        raise ValueError(f"--dtype must be one of {', '.join(_DTYPES)}, got {dtype!r}")
    if (destination.is_dir() and any(destination.iterdir())) or destination.is_file():
        raise ValueError(f"DESTINATION must be new or an empty folder, got {destination}")
    if is_original_file(destination) and to != "original":
        raise ValueError(f"DESTINATION must be a folder for --to {to}, got {destination}")
    summary = inspect(
        source,
        kind="teacher",
        heads=heads,
        image_size=image_size,
        num_classes=num_classes,
        family=family,
    )
    stored = _DTYPES[dtype] if dtype else summary.dtype
    network = DiT.from_pretrained(
        source,
        dtype=stored,
        constants=constants,
        heads=heads,
        image_size=image_size,
        num_classes=num_classes,
        family=family,
    )
    network.save_pretrained(destination, to, training=summary.training)
    precision = str(stored).removeprefix("torch.")
    name = summary.name or network.config.acronym
    typer.echo(f"{name} written to {destination} ({to}, {precision})")
    if to != "original":
        return
    config, lost = network.config, []
    if (config.timestep_divisor, config.norm_eps) != (128, 1e-6):
        lost.append(
            f"constants (timestep divisor {config.timestep_divisor}, norm epsilon "
            f"{config.norm_eps:g}); it is read with the original's, 128 and 1e-06"
        )
    if config.heads != PUBLISHED_HEADS.get(config.hidden_size):
        lost.append(
            f"number of heads; read it with DiT.from_pretrained(..., heads={config.heads}), or "
            f"with free convert --heads {config.heads} into a format that has"
        )
    if not config.null_class:
        lost.append(
            f"missing null class; read it with DiT.from_pretrained(..., num_classes="
            f"{config.num_classes}), or with free convert --num-classes {config.num_classes} into "
            "a format that has"
        )
    if config.family != "dit":
        lost.append(
            f"family; read it with DiT.from_pretrained(..., family={config.family!r}), or with "
            f"free convert --family {config.family} into a format that has"
        )
    if summary.training:
        lost.append("training record")
    for part in lost:
        typer.echo(f"note: this format has no place for the {part}")
