"""What a caller asks of a sampler, checked before any work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from math import prod
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from tqdm import tqdm

from free.arguments import as_integer
from free.devices import allocated, device_of, explain_out_of_memory
from free.models.output import is_finite
from free.ops import MOST_NUMBERS
from free.rounds.noise import Purpose, as_seeds, normal
from free.rounds.relaxation import Relaxation
from free.rounds.report import Report
from free.rounds.trajectory import Trajectory, TrajectoryRecorder
from free.schedule.schedule import Schedule

if TYPE_CHECKING:
    from typing_extensions import Self

Labels = Tensor | Sequence[int]

Seeds = int | Tensor | Sequence[int]

Observer = Callable[[int, Tensor], object]

Sample = TypeVar("Sample", bound=Callable[..., Any])


class Request(NamedTuple):
    """A checked request, on the teacher's device: ``labels`` and ``seeds`` [B], int64, and the
    initial noise, ``state [B, ...]``, float32.
    """

    labels: Tensor
    seeds: Tensor
    state: Tensor


def check_request(
    teacher: Any,
    labels: Tensor | Sequence[int],
    seed: int | Tensor | Sequence[int],
    shape: Sequence[int] | None,
    start: float = 1.0,
) -> Request:
    """Check ``labels``, ``seed`` and ``shape``, and draw the initial states.

    A teacher may have the attributes ``num_classes`` (labels are checked against it) and
    ``sample_shape`` (the default of ``shape``). ``start`` is the schedule's.

    Raises ValueError naming the argument, what was expected and what came.
    """
    y = _integers(labels, "labels", 2**63)
    classes, null = getattr(teacher, "num_classes", None), getattr(teacher, "null_label", None)
    if classes is not None:
        wrong = y[((y < 0) | (y >= classes)) & (y != (-1 if null is None else null))]
        if len(wrong):
            allowed = f"0..{classes - 1}" + ("" if null is None else f" or {null} (the null class)")
            raise ValueError(f"labels must be in {allowed}, got {int(wrong[0])}")
    if _is_integer(seed):
        first = as_seeds([int(cast("int", seed))])
        seeds = first + torch.arange(len(y), device="cpu")  # wraps at the end of 64 bits
    else:
        seeds = _integers(seed, "seed", 2**64)
    if seeds.shape != y.shape:
        raise ValueError(f"seed must be one integer or one a label ({len(y)}), got {len(seeds)}")
    size = getattr(teacher, "sample_shape", None) if shape is None else shape
    try:
        size = tuple(as_integer(extent, "", 1) for extent in size)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        size = ()
    if not size or prod(size) > MOST_NUMBERS:
        raise ValueError(
            f"shape must be the positive sizes of one sample of at most {MOST_NUMBERS} values, "
            f"got {shape}" + (" and a teacher without sample_shape" if shape is None else "")
        )
    device = device_of(teacher) or y.device
    y, seeds = y.to(device), seeds.to(device)
    zero = torch.zeros_like(seeds)
    noise = normal(seeds, zero, zero, Purpose.INITIAL, size)
    return Request(y, seeds, noise if start == 1.0 else start * noise)


def _integers(value: Any, name: str, end: int) -> Tensor:
    """A vector of 64-bit integers below ``end``; those from 2**63 on wrap."""
    listed = isinstance(value, Sequence) and len(value) > 0
    if listed and all(map(_is_integer, value)):
        if max(value) >= end:
            raise ValueError(f"{name} must be below {end}, got {max(value)}")
        return as_seeds([int(v) for v in value], name=name)
    try:
        if listed and any(isinstance(v, bool) for v in value):  # torch would count them
            raise TypeError(f"{name} has booleans")
        vector = value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be a non-empty vector of integers, got {value!r}") from error
    integers = not (vector.is_floating_point() or vector.is_complex() or vector.dtype is torch.bool)
    if not integers or vector.dim() != 1 or vector.numel() == 0:
        raise ValueError(
            f"{name} must be a non-empty vector of integers, "
            f"got {str(vector.dtype).removeprefix('torch.')} of shape {list(vector.shape)}"
        )
    if vector.dtype is torch.uint64 and end < 2**64 and bool((vector.long() < 0).any()):
        raise ValueError(f"{name} must be below {end}, got {int(max(vector.tolist()))}")
    return vector.long().contiguous()


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def explained_sampling(sample: Sample) -> Sample:
    """The method ``sample`` of a sampler, whose failures are explained: memory that is full, and
    samples that have overflown.
    """

    @wraps(sample)
    def wrapped(self: Any, labels: Any, *arguments: Any, **options: Any) -> Any:
        with explain_out_of_memory(lambda: _sampling(self, len(labels))):
            result = sample(self, labels, *arguments, **options)
        _require_finite(result.samples)
        return result

    return wrapped  # type: ignore[return-value]


def _require_finite(samples: Tensor) -> None:
    """Finite outputs of a network may still take states out of float32's range."""
    if is_finite(samples):
        return
    bad = (~samples.isfinite().flatten(1).all(1)).nonzero().squeeze(1)
    if len(bad):
        raise FloatingPointError(
            f"sample {bad.tolist()} left the range of float32: the teacher's outputs are too large"
        )


def _sampling(sampler: Any, batch: int) -> str:
    rule = getattr(sampler, "_rule", None)
    window = 1 if rule is None else min(rule.largest, len(sampler.schedule))
    pair = 1 if sampler.guidance is None else 2
    rows = f"{batch} samples x {window} rows" + (" x 2 for guidance" if pair == 2 else "")
    return (
        f"out of memory in sampling a batch of {batch} with window {window}: teacher calls of up "
        f"to {batch * window * pair} rows ({rows}), {allocated(device_of(sampler.teacher))}. Fewer "
        "labels a call (batch_size), a smaller window or networks in bfloat16 need less."
    )


class _Drawn(NamedTuple):
    samples: Tensor
    report: Report


class SamplingResult(_Drawn):
    """Samples and what it took to draw them: ``samples, report = result``.

    Attributes
    ----------
    samples : Tensor, shape [B, ...], float32
    report : Report
    trajectory : Trajectory or None
        Where ``sample`` was asked for it; not one of the two that a result unpacks to.
    """

    trajectory: Trajectory | None

    def __new__(cls, samples: Tensor, report: Report, trajectory: Trajectory | None = None) -> Self:
        """Samples, report and, where it was kept, the trajectory."""
        result = super().__new__(cls, samples, report)
        result.trajectory = trajectory
        return result


def begin_trajectory(
    asked: bool | str, state: Tensor, schedule: Schedule, relaxation: Relaxation | None = None
) -> TrajectoryRecorder | None:
    """A recorder from the initial states ``[B, ...]`` on, or None if nobody ``asked``.

    Raises ValueError for what ``sample`` does not take as ``trajectory``, or with a relaxation.
    """
    if not isinstance(asked, bool) and not (isinstance(asked, str) and asked in ("cpu", "device")):
        raise ValueError(f"trajectory must be True, False, 'cpu' or 'device', got {asked!r}")
    if asked is False:
        return None
    if relaxation is not None:
        raise ValueError(
            "trajectory must be False with a relaxation, under which transitions are no draws from "
            f"the teacher's law, got {asked!r}"
        )
    device = torch.device("cpu") if asked == "cpu" else state.device
    return TrajectoryRecorder(state, torch.from_numpy(schedule.timesteps.copy()), device)


def why_watched(observer: Observer | None, trajectory: TrajectoryRecorder | None) -> str:
    """Why every round of a run must be seen; nothing if it need not."""
    if observer is not None:
        return "an observer looks at every round"
    return "" if trajectory is None else "a trajectory is kept of every round"


#: False for silence, True for a bar, or a function that is told how many transitions were made.
Progress = bool | Callable[[int], object]


@contextmanager
def progress_bar(progress: Progress, total: int) -> Iterator[Callable[[int], object]]:
    """A function to report transitions to; shows a bar of ``total`` if ``progress`` is True."""
    if callable(progress):
        yield progress
    elif progress:
        with tqdm(total=total, unit="step") as bar:
            yield bar.update
    else:
        yield _unseen


def _unseen(made: int) -> None:
    """A bar that nobody asked for."""
