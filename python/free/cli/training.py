"""Options, by job, and endings that the commands which train share."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, get_type_hints

import torch
import typer

from free.cli.options import bad_input_to_usage_error
from free.images.image_files import describe_left_out
from free.training.config import TrainConfig
from free.training.dataset.sets import TrainingImages
from free.training.parallel import Ranks, ranks_of_environment

__all__ = [
    "BatchSize",
    "EmaDecay",
    "LearningRate",
    "Machine",
    "Optimiser",
    "TensorBoard",
    "folder_option",
    "grouped",
    "machine_option",
    "optimiser_option",
    "options_of",
    "parse_duration",
    "tell_of_first_weights",
    "tell_of_left_out",
    "train_config",
    "training_run",
]


def options_of(panel: str) -> Callable[..., Any]:
    """Options that the help shows in a panel: ``option(help, *flags, **more)``."""

    def option(text: str, *flags: str, **more: Any) -> Any:
        return typer.Option(*flags, help=text, rich_help_panel=panel, **more)

    return option


optimiser_option, machine_option, folder_option = map(
    options_of, ("Optimiser", "Machine", "Run folder")
)

#: Share of the first weights in the result that is worth a word.
_MOST_OF_FIRST = 0.05

LearningRate = Annotated[float, optimiser_option("Of AdamW.")]
EmaDecay = Annotated[float, optimiser_option("Decay of the averaged weights.")]
BatchSize = Annotated[int, optimiser_option("Images a batch, of all processes.")]
TensorBoard = Annotated[
    bool,
    folder_option("Write TensorBoard's events beside log.csv.", "--tensorboard/--no-tensorboard"),
]


@dataclasses.dataclass(frozen=True)
class Optimiser:
    """Batches and rates; fields are those of :class:`TrainConfig`."""

    batch_size: BatchSize = 128
    learning_rate: LearningRate = 1e-4
    ema_decay: EmaDecay = 0.9999
    seed: Annotated[int, optimiser_option("Of weights and batches.")] = 0


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where a run is computed, and how it fits there."""

    device: Annotated[
        str,
        machine_option(
            "cpu or cuda; auto is a GPU where there is one. Under torchrun each process has "
            "its own."
        ),
    ] = "auto"
    precision: Annotated[
        str,
        machine_option(
            "fp32, tf32 (on a GPU) or bf16: of the matrix products. auto is bf16 where the "
            "hardware has it, else fp32; a run goes on in its own."
        ),
    ] = "auto"
    micro_batch: Annotated[
        int | None,
        machine_option(
            "Images of a forward pass, where the memory does not hold a process's share of "
            "the batch. Changes nothing but rounding."
        ),
    ] = None
    threads: Annotated[int, machine_option("CPU threads; 0 for torch's own choice.")] = 0


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command's options come in records: every field of a dataclass becomes a flag.

    The command takes keywords alone, some of which are dataclasses of annotated options.
    """
    hints = get_type_hints(command, include_extras=True)
    records: dict[str, Any] = {
        name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)
    }
    flags: dict[str, inspect.Parameter] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in records:
            flags[name] = parameter.replace(annotation=hints[name])
            continue
        options = get_type_hints(records[name], include_extras=True)
        for field in dataclasses.fields(records[name]):
            flags[field.name] = inspect.Parameter(
                field.name, parameter.kind, default=field.default, annotation=options[field.name]
            )

    def run(**values: Any) -> None:
        for name, kind in records.items():
            fields = [field.name for field in dataclasses.fields(kind)]
            values[name] = kind(**{field: values.pop(field) for field in fields})
        command(**values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {name: flag.annotation for name, flag in flags.items()}
    vars(run)["__signature__"] = inspect.Signature(list(flags.values()))
    return run


def train_config(steps: int, optimiser: Optimiser, machine: Machine, **more: Any) -> TrainConfig:
    """The settings of a run from a command's options, and what else :class:`TrainConfig` takes."""
    return TrainConfig(
        steps,
        **dataclasses.asdict(optimiser),
        precision=machine.precision,
        micro_batch=machine.micro_batch,
        **more,
    )


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


def tell_of_left_out(images: TrainingImages, ranks: Ranks) -> None:
    """One line, if a folder has files that are not trained on."""
    if ranks.first and (text := describe_left_out(getattr(images, "left_out", ()))):
        typer.echo(f"data: {text}", err=True)


@contextmanager
def training_run(machine: Machine) -> Iterator[Ranks]:
    """What training is done in: its processes, and one line of text for what goes wrong."""
    if machine.threads:
        torch.set_num_threads(machine.threads)
    try:
        with bad_input_to_usage_error(), ranks_of_environment(machine.device) as ranks:
            yield ranks
    except (OSError, FloatingPointError) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(1) from error


def parse_duration(text: str, batch_size: int, images: int, option: str) -> int:
    """``"2000"`` (batches), ``"30 epochs"``, ``"0.5e"`` -> batches, rounded up.

    A ValueError if it is none of these, or nothing, or there are no batches of that size.
    """
    if batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {batch_size}")
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(e|epochs?|)", text.strip())
    if match is None or not (amount := float(match[1])) or (not match[2] and amount % 1):
        raise ValueError(f"{option} must look like 2000 (batches) or 30epochs, got {text!r}")
    return math.ceil(amount * images / batch_size) if match[2] else int(amount)
