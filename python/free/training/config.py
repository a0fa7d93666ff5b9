"""How long, how fast and in what precision a network is trained."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from free.arguments import as_integer, as_number
from free.training.precision import PRECISIONS

#: Fields that change how a run is carried out and watched, but not what it computes.
_FREE_TO_CHANGE = (
    "micro_batch",
    "gradient_checkpointing",
    "save_every",
    "log_every",
    "evaluate_every",
)

#: Fields that count something.
_COUNTS = ("steps", "batch_size", "micro_batch", "save_every", "log_every", "evaluate_every")

_CHOICES = {"decay": ("constant", "cosine"), "precision": PRECISIONS}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train.

    Parameters
    ----------
    steps : int
        Number of batches.
    batch_size : int
        Rows of a batch, of all ranks together.
    learning_rate : float
    warmup : int
        Batches over which the rate rises linearly.
    decay : {"constant", "cosine"}
        What the rate does after the warm-up; ``"cosine"`` ends at a hundredth.
    ema_decay : float
        Decay of the averaged weights, which are the result.
    precision : {"auto", "fp32", "tf32", "bf16"}
        Of the matrix products: float32, float32 in a GPU's TensorFloat-32, or autocast to bfloat16;
        ``"auto"`` takes what suits the machine (:func:`free.training.precision.choose_precision`).
        Weights, gradients and their average are float32 always.
    seed : int
    micro_batch : int, optional
        Rows of a forward and backward pass; the gradients of several add up to a rank's share of
        the batch. All of the share by default.
    gradient_checkpointing : bool
        Compute the blocks' activations again in the backward pass instead of keeping them.
    save_every : int
        Batches between checkpoints.
    log_every : int
        Batches that a line of the log is the mean of.
    evaluate_every : int, optional
        Batches between evaluations, where :func:`free.training.trainer.train` is given one.

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
    precision: str = "auto"
    seed: int = 0
    micro_batch: int | None = None
    gradient_checkpointing: bool = False
    save_every: int = 500
    log_every: int = 100
    evaluate_every: int | None = None

    def __post_init__(self) -> None:
        below_one, above_zero = math.nextafter(1.0, 0.0), math.ulp(0.0)
        rate = as_number(
            self.learning_rate, "learning_rate must be positive and finite", above_zero
        )
        kept: dict[str, Any] = {
            "warmup": as_integer(self.warmup, "warmup must be at least 0", 0),
            "seed": as_integer(self.seed, "seed must have 64 bits", -(2**63), 2**64 - 1),
            "learning_rate": rate,
            "ema_decay": as_number(self.ema_decay, "ema_decay must be in [0, 1)", 0.0, below_one),
        }
        for name in _COUNTS:
            if getattr(self, name) is not None:
                kept[name] = as_integer(getattr(self, name), f"{name} must be at least 1", 1)
        for name, value in kept.items():  # Python's, which can be written as JSON
            object.__setattr__(self, name, value)
        require_choices(self, _CHOICES)
        if self.decay == "cosine" and self.warmup >= self.steps:
            raise ValueError(
                f"warmup must be less than the {self.steps} steps of a run whose rate decays, "
                f"got {self.warmup}"
            )

    def rate(self, step: int) -> float:
        """Learning rate of batch ``step``."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        if self.decay == "constant":
            return self.learning_rate
        done = (step - self.warmup) / (self.steps - self.warmup)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done)))

    def decisive(self) -> dict[str, Any]:
        """The fields that the weights at a step depend on; a run continues only with the same.

        With a constant rate that is not the number of steps: a run may be made longer.
        """
        fields = dataclasses.asdict(self)
        for name in (*_FREE_TO_CHANGE, *(["steps"] if self.decay == "constant" else [])):
            del fields[name]
        return fields


def require_choices(settings: Any, choices: dict[str, tuple[str, ...]]) -> None:
    """Raise a ValueError where an attribute of ``settings`` is none of its choices."""
    for name, allowed in choices.items():
        value, (*others, last) = getattr(settings, name), map(repr, allowed)
        if value not in allowed:
            raise ValueError(f"{name} must be {', '.join(others)} or {last}, got {value!r}")
