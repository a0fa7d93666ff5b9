"""Classifier-free guidance: two network rows for one state, combined into one eps.

The rows of a guided call are interleaved: ``2r`` has the label of state ``r``, ``2r + 1`` the
null class, so that whatever belongs to a state stays together. The functions are of tensors alone
and can be traced; the kernel of :func:`free.ops.target_means` combines in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from free.models.output import TeacherOutput


def pair(rows: Tensor) -> Tensor:
    """[R, ...] -> [2R, ...]: each row twice, one after the other."""
    return rows.unsqueeze(1).expand(-1, 2, *rows.shape[1:]).flatten(0, 1)


def pair_labels(y: Tensor, null_label: int | None) -> Tensor:
    """[R] -> [2R]: each label, and the null class after it; a ValueError if there is none."""
    return torch.stack([y, torch.full_like(y, _require(null_label))], dim=1).flatten()


def _require(null_label: int | None, scale: str = "guidance") -> int:
    if null_label is None:
        raise ValueError(
            "cfg_scale must be 1, no guidance, for a teacher without a null class (trained "
            f"without dropping labels), got {scale}"
        )
    return null_label


def unpair(rows: Tensor) -> Tensor:
    """[2R, ...] -> [R, 2, ...]: with the label, then without."""
    return rows.unflatten(0, (-1, 2))


def blend(pairs: Tensor, scale: float | Tensor) -> Tensor:
    """[2R, C, ...] -> [R, C, ...]: ``uncond + scale * (cond - uncond)``.

    A ``scale`` that is a tensor must broadcast to a row; 1 gives the conditional values.
    """
    cond, uncond = unpair(pairs).unbind(1)
    return torch.lerp(uncond, cond, scale)


def merge(out: TeacherOutput, eps: Tensor) -> TeacherOutput:
    """The output for R states, of that for their pairs of rows and the guided ``eps [R, ...]``.

    ``feature`` has both rows of a state, [R, 2, T, E]; ``variance`` is the conditional.
    """
    feature = None if out.feature is None else unpair(out.feature)
    return TeacherOutput(eps, feature, None if out.variance is None else out.variance[::2])


@dataclass(frozen=True)
class Guidance:
    """``uncond + scale * (cond - uncond)`` on the first ``channels`` channels.

    ``scale`` is finite and >= 0; 1 is no guidance. ``channels`` leading ones are guided (the
    original DiT: 3 of 4), the others are the conditional ones; None guides all. ``null_label`` is
    the label of the unconditional rows, or None where the teacher has none. Raises ValueError if
    ``scale`` or ``channels`` is out of range, or there is a scale but no null class.
    """

    scale: float
    channels: int | None
    null_label: int | None

    def __post_init__(self) -> None:
        scale, channels = self.scale, self.channels
        if not (isinstance(scale, (int, float)) and math.isfinite(scale) and scale >= 0):
            raise ValueError(f"cfg_scale must be finite and >= 0, got {scale!r}")
        if scale != 1:
            _require(self.null_label, str(scale))
        if channels is not None and not (isinstance(channels, int) and channels >= 1):
            raise ValueError(f"cfg_channels must be an integer >= 1 or None, got {channels!r}")

    def count(self, channels: int) -> int:
        """How many of so many channels are guided.

        Raises ValueError if there are fewer than are to be.
        """
        guided = channels if self.channels is None else self.channels
        if guided > channels:
            raise ValueError(
                f"cfg_channels must be at most the {channels} of a state, got {guided}"
            )
        return guided

    def expand(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows for states [R, ...]: [2R, ...], [2R], [2R]."""
        return pair(x), pair(t), pair_labels(y, self.null_label)

    def combine(self, eps: Tensor) -> Tensor:
        """[2R, C, ...] interleaved -> guided eps [R, C, ...]."""
        guided, count = blend(eps, self.scale), self.count(eps.shape[1])
        if count == eps.shape[1]:
            return guided
        return torch.cat([guided[:, :count], eps[::2, count:]], dim=1)


class GuidedTeacher:
    """A teacher, ``teacher(x, t, y) -> TeacherOutput``, under guidance is a teacher."""

    def __init__(self, teacher: Callable[..., TeacherOutput], guidance: Guidance) -> None:
        self.teacher = teacher
        self.guidance = guidance

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        """The guided output; see :func:`merge`.

        The combination is taken in float32: it magnifies what lower precision rounds away.
        """
        out = self.teacher(*self.guidance.expand(x, t, y))
        return merge(out, self.guidance.combine(out.eps.float()))
