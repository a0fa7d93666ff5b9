"""The training loop: AdamW, warm-up, EMA, and a run that survives being killed."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from free.files import write_atomic
from free.training.randomness import RowRandom

__all__ = ["TrainConfig", "train"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train.

    Parameters
    ----------
    steps : int
        Number of batches.
    batch_size : int
    learning_rate : float
    warmup : int
        Batches over which the rate rises linearly.
    decay : {"constant", "cosine"}
        What the rate does after the warm-up; ``"cosine"`` ends at a hundredth.
    ema_decay : float
        Decay of the averaged weights, which are the result.
    precision : {"fp32", "bf16"}
        Precision of the matrix products.
    seed : int
    save_every : int
        Batches between checkpoints.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    steps: int
    batch_size: int = 128
    learning_rate: float = 1e-4
    warmup: int = 0
    decay: str = "constant"
    ema_decay: float = 0.9999
    precision: str = "fp32"
    seed: int = 0
    save_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        if self.decay not in ("constant", "cosine"):
            raise ValueError(f"decay must be 'constant' or 'cosine', got {self.decay!r}")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be 'fp32' or 'bf16', got {self.precision!r}")

    def rate(self, step: int) -> float:
        """Learning rate of batch ``step``."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if self.decay == "constant":
            return self.learning_rate
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done)))


Loss = Callable[[nn.Module, RowRandom], dict[str, Tensor]]


def train(
    model: nn.Module,
    loss: Loss,
    config: TrainConfig,
    folder: str | Path,
    progress: bool = True,
    extra: dict[str, Any] | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Train ``model`` in place and return its averaged copy.

    Everything random in a step is a function of the seed and the step's number, so a run
    that was killed continues from its last checkpoint to the same end.

    Parameters
    ----------
    model : nn.Module
    loss : callable
        ``loss(model, random)`` draws a batch of ``len(random)`` rows and returns scalars,
        among them ``"loss"``.
    config : TrainConfig
    folder : str or Path
        Where ``state.pt`` (the checkpoint) and ``log.jsonl`` live. A checkpoint of the same
        configuration is continued.
    progress : bool
        Whether to show a progress bar.
    extra : dict, optional
        What else the result depends on (settings of the loss, what was started from), as JSON
        values; kept in the record and compared when a run is continued.

    Returns
    -------
    model : nn.Module
        The averaged weights, in evaluation mode.
    record : dict
        The configuration, seconds of training, and the loss over the last full hundred batches.

    Raises
    ------
    ValueError
        If the checkpoint in ``folder`` is of another configuration.
    FloatingPointError
        If the loss is not finite.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "state.pt"
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.0)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
    step, seconds = 0, 0.0
    settings = {**dataclasses.asdict(config), **(extra or {})}
    latest: dict[str, float] = {}
    window: dict[str, float] = {}  # running means of the current hundred batches
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        if state["config"] != settings:
            raise ValueError(
                f"folder must be empty or hold a run of the same settings {settings}, "
                f"got {checkpoint} with {state['config']}"
            )
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds = state["step"], state["seconds"]
        latest, window = state["latest"], state["window"]
        _truncate_log(folder / "log.jsonl", step)

    model.train()
    values: dict[str, Tensor] = {}
    bar = tqdm(total=config.steps, initial=step, disable=not progress, unit="batch")
    started = time.monotonic() - seconds
    while step < config.steps:
        random = RowRandom(config.seed, step, range(config.batch_size))
        for group in optimizer.param_groups:
            group["lr"] = config.rate(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            values = loss(model, random)
        if not torch.isfinite(values["loss"]):
            raise FloatingPointError(f"the loss is {values['loss'].item()} at batch {step}")
        optimizer.zero_grad(set_to_none=True)
        values["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(model)
        step += 1
        for name, value in values.items():
            window[name] = window.get(name, 0.0) + value.item() / 100
        bar.update()
        if step % 100 == 0:
            seconds = time.monotonic() - started
            bar.set_postfix({name: f"{value:.4g}" for name, value in window.items()})
            with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": step, "seconds": round(seconds, 1), **window}) + "\n")
            latest, window = window, {}
        if step % config.save_every == 0 or step == config.steps:
            state = {
                "config": settings,
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "seconds": (seconds := time.monotonic() - started),
                "latest": latest,
                "window": window,
            }
            write_atomic(checkpoint, lambda path: torch.save(state, path))  # noqa: B023
    bar.close()
    record = {**settings, "seconds": round(seconds, 1), **latest}
    return average.module.eval(), record


def _truncate_log(log: Path, step: int) -> None:
    """Forget the lines after the checkpoint that a run continues from."""
    if log.is_file():
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        write_atomic(log, lambda path: path.write_text("".join(kept), encoding="utf-8"))
