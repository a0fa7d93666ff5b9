"""The losses of a run: their means, as a table, for TensorBoard and as a picture."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from free.files import cut, write_atomic, writing
from free.training.parallel import Ranks

_TABLE, _PICTURE = "log.csv", "loss.png"

#: Columns of the table that are not losses.
_OTHERS = ("step", "epoch", "seconds", "images_per_second", "learning_rate", "acceptance")


def _nothing() -> Tensor:
    return torch.zeros(0, 0, dtype=torch.float32, device="cpu")


class LossMeans:
    """The losses of the steps since the last line of the log.

    They stay on the device until they are asked for: a number that is looked at in every step
    would make the processor wait for the GPU in every step.

    Parameters
    ----------
    ranks : Ranks
        Whose shares of the losses add up.
    stored : dict, optional
        What :meth:`state` returned, of the run that is continued.
    """

    def __init__(self, ranks: Ranks, stored: dict[str, Any] | None = None) -> None:
        self._ranks = ranks
        self.names: list[str] = list(stored["names"]) if stored else []
        self._known: Tensor = stored["values"] if stored else _nothing()
        self._pending: list[Tensor] = []
        self._lengths: list[Tensor] = []

    def add(self, passes: list[dict[str, Tensor]], length: Tensor) -> None:
        """Note a step's losses, each pass's a mean of equally many rows, and the length of its
        gradients.
        """
        self.names = list(passes[0])
        values = [one[name] for one in passes for name in self.names]
        flat = torch.stack([value.detach().float().to(self._ranks.device) for value in values])
        share = len(passes) * self._ranks.world
        self._pending.append(flat.view(len(passes), -1).sum(0) / share)
        self._lengths.append(length)

    def gather(self, step: int) -> None:
        """Take what is pending from the device and from the other ranks.

        A loss or a length of the gradients that is not finite raises a FloatingPointError, which
        names the first such step; ``step`` is that of the last one.
        """
        if not self._pending:
            return
        values = self._ranks.sum(torch.stack(self._pending)).cpu()
        first = step - len(self._pending)
        losses = values[:, self.names.index("loss")].tolist()
        lengths = torch.stack(self._lengths).tolist()
        for batch, (loss, length) in enumerate(zip(losses, lengths, strict=True), first):
            if not math.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss} at batch {batch}")
            if not math.isfinite(length):  # the losses may stay finite until the next step
                raise FloatingPointError(
                    f"the gradients' length is {length} at batch {batch}, where the loss is {loss}"
                )
        self._known = torch.cat([self._known, values]) if self._known.numel() else values
        self._pending, self._lengths = [], []

    def take(self, step: int) -> dict[str, float]:
        """The means; what comes next is of the next line."""
        self.gather(step)
        means = self._known.double().mean(0).tolist()
        self._known = _nothing()
        return dict(zip(self.names, means, strict=True))

    def state(self, step: int) -> dict[str, Any]:
        """For a checkpoint, the same on all ranks."""
        self.gather(step)
        return {"names": self.names, "values": self._known}


class RunLog:
    """``log.csv`` and, where wanted, TensorBoard's events, in the folder of a run.

    Lines of steps after ``step``, of a run that was killed, are forgotten. An ImportError names
    the extra where TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self._path, self._events = folder / _TABLE, folder / "tensorboard"
        self._writer = _summary_writer(self._events, step) if tensorboard else None
        if self._path.is_file():
            try:
                lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
                whole = [line for line in lines[1:] if line.endswith("\n")]
                rows = [[float(cell) for cell in line.split(",")] for line in whole]
            except ValueError as error:
                raise ValueError(
                    f"folder must hold the log of a run, got {self._path}, damaged: "
                    f"{cut(str(error))}"
                ) from error
            past = [line for line, row in zip(whole, rows, strict=True) if row[0] <= step]
            # A run that begins anew may have other columns: its first line writes the heading.
            text = "".join(lines[:1] + past) if step else ""
            write_atomic(self._path, lambda path: path.write_text(text, "utf-8"))

    def write(self, step: int, values: dict[str, float], group: str = "train") -> None:
        """Add a line for ``step``; of another group than ``train`` to TensorBoard alone."""
        if group == "train":
            row = {"step": step, **{name: f"{value:.8g}" for name, value in values.items()}}
            with writing(self._path), self._path.open("a", encoding="utf-8", newline="") as file:
                table = csv.DictWriter(file, list(row), lineterminator="\n")
                if not file.tell():
                    table.writeheader()
                table.writerow(row)
        if self._writer is not None:
            with writing(self._events):
                for name, value in values.items():
                    self._writer.add_scalar(f"{group}/{name}", value, step)
                self._writer.flush()

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()


def _summary_writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "TensorBoard's events need tensorboard: pip install 'free-dit[train]'; "
            "or --no-tensorboard"
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)  # what is later is forgotten


def read_log(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's ``log.csv``; none where there is no such file."""
    if not (folder / _TABLE).is_file():
        return []
    with (folder / _TABLE).open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def draw_losses(folder: Path) -> bool:
    """Draw the parts of the loss over the steps, from the folder's log, as ``loss.png``.

    A part has an axis of its own: their sizes are orders of magnitude apart. False, and nothing is
    drawn, if matplotlib is not installed or the log has less than two lines.
    """
    lines = read_log(folder)
    if len(lines) < 2:
        return False
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    names = [name for name in lines[0] if name not in _OTHERS]
    if len(names) > 1:
        names.remove("loss")  # their sum
    figure = Figure(figsize=(3.6 * len(names), 3.0), layout="constrained")
    steps = [line["step"] for line in lines]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        values = [line[name] for line in lines]
        axes.plot(steps, values, linewidth=1.0)
        axes.set(title=name, xlabel="step")
        if min(values) > 0:
            axes.set_yscale("log")
        axes.grid(which="both", alpha=0.3)
    write_atomic(folder / _PICTURE, lambda path: figure.savefig(path, dpi=120))
    return True
