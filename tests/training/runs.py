"""A run of training that takes milliseconds; as a program, one that can be killed.

python -m tests.training.runs FOLDER STEPS BATCH MICRO SLEEP
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from free.training.dataset.sets import ImageSet
from free.training.parallel import ranks_of_environment
from free.training.randomness import RowRandom
from free.training.trainer import TrainConfig, train

SIZE = (1, 2, 2)


def images(count: int = 50) -> ImageSet:
    values = torch.linspace(-1, 1, count * 4).sin().view(count, *SIZE)
    return ImageSet(values, torch.arange(count) % 3, 3, {"source": "sines"})


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))


def loss(model: nn.Module, x0: Tensor, labels: Tensor, random: RowRandom) -> dict[str, Tensor]:
    """Depends on the images, the labels and the random numbers of each row."""
    x = x0.flatten(1) + 0.1 * random.normal((4,))
    error = (model(torch.cat([x, labels[:, None].float()], 1))[:, 0] - x.sum(1)).square().mean()
    return {"loss": error, "noise": error.detach(), "feature": x.mean() + 2}


def run(folder: Path, steps: int, **settings: Any) -> tuple[nn.Module, dict[str, Any]]:
    options = {name: settings.pop(name) for name in ("ranks", "evaluate", "extra", "tensorboard")
               if name in settings}  # fmt: skip
    config = TrainConfig(
        steps, **{"batch_size": 8, "learning_rate": 1e-2, "ema_decay": 0.9, **settings}
    )
    return train(network(), loss, images(), config, folder, progress=False, **options)


def losses(folder: Path) -> list[str]:
    """The log without what depends on the clock."""
    lines = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()]
    kept = [i for i, name in enumerate(lines[0]) if name not in ("seconds", "images_per_second")]
    return [",".join(line[i] for i in kept) for line in lines]


def main() -> None:
    folder, steps, batch_size, micro_batch, *victim = sys.argv[1:]
    torch.set_num_threads(1)

    def slow_loss(
        model: nn.Module, x0: Tensor, labels: Tensor, random: RowRandom
    ) -> dict[str, Tensor]:
        if victim:
            time.sleep(60.0 if random.step == int(steps) - 1 else 0.02)
        return loss(model, x0, labels, random)

    config = TrainConfig(
        int(steps), int(batch_size), 1e-2, ema_decay=0.9, micro_batch=int(micro_batch) or None,
        save_every=5, log_every=3,
    )  # fmt: skip
    with ranks_of_environment("cpu") as ranks:
        train(network(), slow_loss, images(), config, folder, ranks=ranks, progress=False)


if __name__ == "__main__":
    main()
