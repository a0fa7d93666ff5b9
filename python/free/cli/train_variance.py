"""``free train-variance``: a small network for the variance of each state."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from free.cli import options, training
from free.cli.records import with_records


@dataclass(frozen=True)
class _Optimiser(training.Optimiser):
    batch_size: training.BatchSize = 64
    learning_rate: training.LearningRate = 2e-3
    ema_decay: training.EmaDecay = 0.995


@with_records
def train_variance(
    *,
    out: Annotated[Path, typer.Option(help="Folder of the network, for --variance.")],
    model: options.Model = "mnist",
    data: Annotated[
        str | None,
        typer.Option(
            help="mnist, emoji or a folder of images; default: what an embedded model was trained "
            "on."
        ),
    ] = None,
    vae: Annotated[
        str | None, typer.Option(help="VAE of a model of latents, for a folder of images.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Batches.")] = 3000,
    sampling_steps: Annotated[
        int, typer.Option(help="Length of the schedule whose transitions are trained.")
    ] = 250,
    width: Annotated[int, typer.Option(help="Channels of the first convolution.")] = 16,
    optimiser: _Optimiser,
    machine: training.Machine,
    tensorboard: training.TensorBoard = True,
) -> None:
    """Train sigma(x, t) on the variational bound of images.

    The teacher is frozen and stays as it is; the network says, for each state, how far the
    variance of its transition lies between the posterior's and beta. A run that is stopped
    continues from its last checkpoint when the same command is given again.

    Example: `free train-variance --out runs/sigma --threads 1`, then
    `free sample --variance runs/sigma --compare`
    """
    from free.models.checkpoints import EMBEDDED
    from free.models.sigma import SigmaNet
    from free.pretrained import load_pretrained
    from free.schedule.schedule import Schedule
    from free.training.dataset.open import open_images
    from free.training.trainer import train
    from free.training.variance import sigma_loss

    with training.training_run(machine) as ranks:
        teacher, _ = load_pretrained(model, "frozen", device=ranks.device)
        if data is None:
            data = model if model in EMBEDDED else "mnist"
        images = open_images(data, teacher, vae, None, seed=optimiser.seed, device=ranks.device)
        training.tell_of_left_out(images, ranks)
        teacher.eval().requires_grad_(False)
        schedule = Schedule.ddpm(sampling_steps)
        config = training.train_config(
            steps, optimiser, machine, warmup=min(100, steps // 10), decay="cosine"
        )
        torch.manual_seed(config.seed)
        with torch.device("cpu"):  # first weights do not depend on the default
            network = SigmaNet(teacher.sample_shape[0], width)
        training.tell_of_first_weights(config, ranks)
        extra = {"sampling_steps": sampling_steps, "width": width, "model": model}
        average, record = train(
            network,
            partial(sigma_loss, teacher=teacher, schedule=schedule),
            images,
            config,
            out / "training",
            ranks=ranks,
            extra=extra,
            tensorboard=tensorboard,
        )
        if not ranks.first:
            return
    assert isinstance(average, SigmaNet)
    average.save_pretrained(out, record)
    typer.echo(f"network saved to {out} after {record['seconds']:.0f} s of training")
