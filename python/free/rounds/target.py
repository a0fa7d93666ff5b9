"""What the teacher makes of transitions: its output, guided, and what follows from it."""

from __future__ import annotations

import torch
from torch import Tensor

from free.models.guidance import Guidance
from free.models.output import Teacher, TeacherOutput, checked
from free.ops import target_means
from free.schedule.table import Prediction, Table

__all__ = ["Target", "guidance_of"]


class Target:
    """A teacher under guidance, as transitions of a schedule.

    Parameters
    ----------
    teacher : callable
        ``teacher(x [R, ...], t [R], y [R]) -> TeacherOutput``. One that has ``guided(guidance)``,
        as an engine's graph, combines by itself.
    guidance : Guidance or None
    table : Table
    prediction : Prediction, optional
        The table in terms of what drafts guess, if anything is to be drafted from the answers.

    Attributes
    ----------
    images : bool
        Whether guesses are images.
    """

    def __init__(
        self,
        teacher: Teacher,
        guidance: Guidance | None,
        table: Table,
        prediction: Prediction | None = None,
    ) -> None:
        combines = guidance is not None and hasattr(teacher, "guided")
        self._teacher = checked(teacher.guided(guidance) if combines else teacher)  # type: ignore[attr-defined]
        self._guidance = None if combines else guidance
        self._table = table
        self.images = prediction is not None and prediction.signal is not None

    def __call__(self, x: Tensor, k: Tensor, y: Tensor) -> tuple[TeacherOutput, Tensor, Tensor]:
        """Evaluate it.

        Parameters
        ----------
        x : Tensor, shape [R, ...], float32
        k, y : Tensor, shape [R], int64
            Transitions and labels.

        Returns
        -------
        out : TeacherOutput
            eps guided and in float32; ``feature`` under guidance has both rows of a state,
            [R, 2, T, E]; ``variance`` is the conditional.
        means : Tensor, shape [R, ...], float32
        guess : Tensor, shape [R, ...], float32
            What eps says, as drafts guess it; eps itself where nothing is to be drafted.
        """
        table, guidance = self._table, self._guidance
        a, b, _, signal, noise = table.at(k)
        relation = (signal, noise) if self.images else (None, None)
        if guidance is None:
            out = self._teacher(x, table.timesteps[k], y)
            eps, means, guess = target_means(x, _plain(out.eps), a, b, None, None, *relation)
            return out._replace(eps=eps), means, guess
        out = self._teacher(*guidance.expand(x, table.timesteps[k], y))
        scale, count = guidance.scale, guidance.count(x.shape[1])
        eps, means, guess = target_means(x, _plain(out.eps), a, b, scale, count, *relation)
        feature = None if out.feature is None else out.feature.unflatten(0, (-1, 2))
        variance = None if out.variance is None else out.variance[::2]
        return TeacherOutput(eps, feature, variance), means, guess


def _plain(eps: Tensor) -> Tensor:
    """As the kernels take it."""
    return (eps.float() if eps.dtype is torch.float64 else eps).contiguous()


def guidance_of(teacher: Teacher, scale: float, channels: int | None) -> Guidance | None:
    """Guidance as a sampler's arguments ask for it; None for a scale of 1.

    Raises
    ------
    ValueError
        If an argument is out of its range, or the teacher has no null class.
    """
    guidance = Guidance(scale, channels, getattr(teacher, "null_label", 0))
    if scale == 1.0:
        return None
    null_label = getattr(teacher, "null_label", None)
    if null_label is None:
        raise ValueError(
            f"teacher must have a null_label to be guided (cfg_scale {scale}), got {teacher!r}"
        )
    return guidance
