"""A run of training that takes milliseconds: here, or in processes that can be killed."""

import csv
import multiprocessing
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from free import DiTConfig
from free.training.dataset.sets import ImageSet
from free.training.parallel import ranks_of_environment
from free.training.randomness import RowRandom
from free.training.trainer import TrainConfig, train

SIZE = (1, 2, 2)
#: Of a drafter that takes such images.
SHAPE = DiTConfig(2, 1, 1, 8, 1, 2, num_classes=3, learn_sigma=False)

#: Starts processes that have imported torch already.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])

_OPTIONS = ("ranks", "evaluate", "extra", "tensorboard", "progress")


def images(count: int = 50) -> ImageSet:
    values = torch.linspace(-1, 1, count * 4).sin().view(count, *SIZE)
    return ImageSet(values, torch.arange(count) % 3, 3, {"source": "sines"})


class Skipping(ImageSet):
    """Images, and names of files that were of no use."""

    files: tuple[str, ...] = ()

    @property
    def skipped(self) -> list[dict[str, str]]:
        return [{"file": file, "reason": "no image"} for file in self.files]


def skipping(*files: str) -> ImageSet:
    data = Skipping(**vars(images()))
    object.__setattr__(data, "files", files)
    return data


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))


def loss(model: nn.Module, x0: Tensor, labels: Tensor, random: RowRandom) -> dict[str, Tensor]:
    """Depends on the images, the labels and the random numbers of each row."""
    x = x0.flatten(1) + 0.1 * random.normal((4,))
    error = (model(torch.cat([x, labels[:, None].float()], 1))[:, 0] - x.sum(1)).square().mean()
    return {"loss": error, "noise": error.detach(), "feature": x.mean() + 2}


def drafter_loss(model: Any, x0: Tensor, labels: Tensor, random: RowRandom) -> dict[str, Tensor]:
    """Something that a drafter can learn."""
    t, rows = torch.full((len(x0),), 5), torch.zeros(len(x0), 4, 8)
    change, _ = model(x0, random.normal(SIZE), t, torch.zeros(len(x0), 8), rows)
    return {"loss": (change - x0).square().mean()}


def config(steps: int, **settings: Any) -> TrainConfig:
    """Settings of runs whose weights are compared: float32 whatever the machine would take."""
    common = {"batch_size": 8, "learning_rate": 1e-2, "ema_decay": 0.9, "precision": "fp32"}
    return TrainConfig(steps, **{**common, **settings})


def run(
    folder: Path, steps: int, model: Any = None, loss: Any = loss, data: Any = None, **settings: Any
) -> tuple[Any, dict[str, Any]]:
    """Averaged weights and record, by options of :func:`train` and settings of its config."""
    options = {name: settings.pop(name) for name in _OPTIONS if name in settings}
    model, data = network() if model is None else model, images() if data is None else data
    return train(
        model, loss, data, config(steps, **settings), folder, **{"progress": False, **options}
    )


def run_in_process(folder: Path, steps: int, victim: bool = False, **settings: Any) -> None:
    """What a process does; a victim is slow, and never gets through its last step."""
    torch.set_num_threads(1)

    def slow_loss(*arguments: Any) -> dict[str, Tensor]:
        if victim:
            time.sleep(60.0 if arguments[-1].step == steps - 1 else 0.02)
        return loss(*arguments)

    with ranks_of_environment("cpu") as ranks:
        data = skipping(f"of rank {ranks.rank}")
        run(folder, steps, loss=slow_loss, data=data, ranks=ranks, **settings)


def state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "state.pt", weights_only=True)


def losses(folder: Path, name: str = "log.csv") -> list[dict[str, str]]:
    """The log without what depends on the clock."""
    clock = ("seconds", "images_per_second")
    with (folder / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key not in clock} for row in rows]


def require_same_run(folder: Path, other: Path) -> None:
    """Weights, their average, moments and losses, bit for bit."""
    one, two = state(folder), state(other)
    assert one["step"] == two["step"]
    for part in ("model", "average"):
        for name, value in two["weights"][part].items():
            assert torch.equal(one["weights"][part][name], value), name
    for index, moments in two["weights"]["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(one["weights"]["optimizer"]["state"][index][name], value), name
    assert losses(folder) == losses(other)
