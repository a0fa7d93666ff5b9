"""Options and endings that the commands which train share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import torch
import typer

from free.cli.options import bad_input_to_usage_error
from free.training.config import TrainConfig
from free.training.parallel import Ranks, ranks_of_environment

__all__ = [
    "BatchSize",
    "Checkpointing",
    "Decay",
    "EmaDecay",
    "LearningRate",
    "LogEvery",
    "MicroBatch",
    "Precision",
    "SaveEvery",
    "Seed",
    "TensorBoard",
    "Threads",
    "TrainDevice",
    "Warmup",
    "parse_duration",
    "tell_of_first_weights",
    "training_run",
]

_OPTIMISER, _MACHINE, _FOLDER = "Optimiser", "Machine", "Run folder"

#: Share of the first weights in the result that is worth a word.
_MOST_OF_FIRST = 0.05

BatchSize = Annotated[
    int, typer.Option(help="Images a batch, of all processes.", rich_help_panel=_OPTIMISER)
]
LearningRate = Annotated[float, typer.Option(help="Of AdamW.", rich_help_panel=_OPTIMISER)]
Warmup = Annotated[
    int,
    typer.Option(help="Batches over which the rate rises.", rich_help_panel=_OPTIMISER),
]
Decay = Annotated[
    str, typer.Option(help="Of the rate: constant or cosine.", rich_help_panel=_OPTIMISER)
]
EmaDecay = Annotated[
    float, typer.Option(help="Decay of the averaged weights.", rich_help_panel=_OPTIMISER)
]
Seed = Annotated[int, typer.Option(help="Of weights and batches.", rich_help_panel=_OPTIMISER)]
TrainDevice = Annotated[
    str,
    typer.Option(
        "--device",
        help="cpu or cuda; auto is a GPU where there is one. Under torchrun each process has its "
        "own.",
        rich_help_panel=_MACHINE,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="fp32, tf32 (on a GPU) or bf16: of the matrix products.", rich_help_panel=_MACHINE
    ),
]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        help="Images of a forward pass, where the memory does not hold a process's share of the "
        "batch. Changes nothing but rounding.",
        rich_help_panel=_MACHINE,
    ),
]
Checkpointing = Annotated[
    bool,
    typer.Option(
        "--gradient-checkpointing",
        help="Compute the trained blocks' activations twice instead of keeping them.",
        rich_help_panel=_MACHINE,
    ),
]
Threads = Annotated[
    int, typer.Option(help="CPU threads; 0 for torch's own choice.", rich_help_panel=_MACHINE)
]
SaveEvery = Annotated[
    int, typer.Option(help="Batches between checkpoints.", rich_help_panel=_FOLDER)
]
LogEvery = Annotated[int, typer.Option(help="Batches a line of log.csv.", rich_help_panel=_FOLDER)]
TensorBoard = Annotated[
    bool,
    typer.Option(
        "--tensorboard/--no-tensorboard",
        help="Write TensorBoard's events beside log.csv.",
        rich_help_panel=_FOLDER,
    ),
]


def tell_of_first_weights(config: TrainConfig, ranks: Ranks) -> None:
    """One line, if the averaged weights will still be the first ones to more than a twentieth."""
    left = config.ema_decay**config.steps
    if ranks.first and left > _MOST_OF_FIRST:
        shorter = max(0.0, round(1.0 - 5.0 / config.steps, len(str(config.steps))))
        typer.echo(
            f"after {config.steps} batches the averaged weights, which are the result, are still "
            f"{100 * left:.0f} % the first weights: --ema-decay {shorter:g} leaves less than 1 %",
            err=True,
        )


@contextmanager
def training_run(device: str, threads: int) -> Iterator[Ranks]:
    """What training is done in: its processes, and one line of text for what goes wrong.

    Parameters
    ----------
    device : str
    threads : int
        0 for torch's own choice.
    """
    if threads:
        torch.set_num_threads(threads)
    try:
        with bad_input_to_usage_error(), ranks_of_environment(device) as ranks:
            yield ranks
    except (OSError, FloatingPointError) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(1) from error


def parse_duration(text: str, batch_size: int, images: int, option: str) -> int:
    """``"2000"`` (batches), ``"30 epochs"``, ``"0.5e"`` -> batches, rounded up.

    Raises
    ------
    ValueError
        If it is none of these, or nothing, or there are no batches of that size.
    """
    if batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {batch_size}")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(e|epochs?|)", text.strip())
    if match is None or not (amount := float(match[1])) or (not match[2] and amount % 1):
        raise ValueError(f"{option} must look like 2000 (batches) or 30epochs, got {text!r}")
    return math.ceil(amount * images / batch_size) if match[2] else int(amount)
