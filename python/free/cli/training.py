"""Options, by job, and endings that the commands which train share."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
import typer

from free.devices import MOST_THREADS
from free.images.image_files import describe_left_out
from free.training.config import TrainConfig
from free.training.dataset.sets import TrainingImages
from free.training.parallel import Ranks, ranks_of_environment

__all__ = [
    "BatchSize",
    "EmaDecay",
    "Images",
    "LearningRate",
    "Machine",
    "Optimiser",
    "TensorBoard",
    "folder_option",
    "images_option",
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


optimiser_option, machine_option, folder_option, images_option = map(
    options_of, ("Optimiser", "Machine", "Run folder", "Images")
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
    threads: Annotated[
        int, machine_option("CPU threads; 0 for torch's own choice.", min=0, max=MOST_THREADS)
    ] = 0


@dataclasses.dataclass(frozen=True)
class Images:
    """What is trained on, and what is made of it."""

    data: Annotated[
        str,
        images_option("mnist, emoji, or a folder: one folder a class, or labels.csv, labels.json."),
    ] = "mnist"
    vae: Annotated[
        str | None,
        images_option("VAE of a teacher of latents, a folder: stabilityai/sd-vae-ft-ema's."),
    ] = None
    image_size: Annotated[
        int | None, images_option("Side of the crop in pixels; default: the teacher's, else 32.")
    ] = None
    flip: Annotated[bool, images_option("Mirror half of the images.", "--flip")] = False
    upscale: Annotated[bool, images_option("Enlarge small images, not skip them.", "--upscale")] = (
        False
    )


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
    """What training is done in: threads, and the processes of the run."""
    if machine.threads:
        torch.set_num_threads(machine.threads)
    with ranks_of_environment(machine.device) as ranks:
        yield ranks


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
