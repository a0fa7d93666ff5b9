"""What a teacher's output makes of transitions: guided eps, means, and what drafts start from.

The teacher may be called here, or by whoever owns the loop: this room says what it is to be asked,
and reads its answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from free.models.guidance import Guidance, merge
from free.models.output import Teacher, TeacherOutput, check_output, require_unwritten
from free.ops import NetworkRows, network_rows, target_means
from free.rounds.row_selection import Selection, Span
from free.schedule.table import Table


class Answer(NamedTuple):
    """A teacher's output, read.

    ``output`` has eps guided and in float32; its ``feature`` under guidance has both rows of a
    state, [R, 2, T, E], its ``variance`` is the conditional. ``means [R, ...]``, float32, are those
    of the transitions, and ``sigma [R]`` their standard deviations; ``guess [R, ...]`` is what eps
    says, as drafts guess it.
    """

    output: TeacherOutput
    means: Tensor
    guess: Tensor
    sigma: Tensor


class Target:
    """A teacher under guidance, as transitions of a schedule.

    ``teacher(x [R, ...], t [R], y [R]) -> TeacherOutput``; one that has ``guided(guidance)``, as an
    engine's graph, combines by itself, unless it must not, or an interval alone is guided.
    """

    def __init__(
        self,
        teacher: Teacher,
        guidance: Guidance | None,
        table: Table,
        *,
        combines: bool = True,
    ) -> None:
        combines = combines and not table.interval and guidance is not None
        combines = combines and hasattr(teacher, "guided")
        self.teacher: Teacher = teacher.guided(guidance) if combines else teacher  # type: ignore[attr-defined]
        self._guidance = None if combines else guidance
        self._table = table

    def inputs(self, states: Tensor, k: Tensor, y: Tensor, rows: Selection) -> NetworkRows:
        """What the teacher is asked about ``rows`` of windows of ``states [B, W, ...]`` at
        transitions ``k [B, W]`` with labels ``y [B]``: two rows each under guidance.
        """
        null = None if self._guidance is None else self._guidance.null_label
        table = self._table
        asked = network_rows(
            states,
            k,
            y,
            table.words,
            table.input_scale,
            **rows.where,
            null_label=null,
        )
        t = table.times(asked.t)
        return asked if t is asked.t else asked._replace(t=t)

    def read(
        self,
        output: TeacherOutput,
        asked: Tensor,
        x: Tensor,
        k: Tensor,
        rows: Selection,
        before: Tensor | None,
    ) -> Answer:
        """Guide an output and turn it into transitions ``k [R]`` from states ``x [R, ...]``.

        ``asked`` are the states of :meth:`inputs`, ``rows`` which they are of the windows. Where
        the schedule has a history, ``before [B, ...]`` are the guesses of the transitions before
        the windows: in a window the guess before is that of the row before. A draft is judged only
        where all before it stand, so the row before is the transition that was made.

        Raises TypeError or ValueError if the output is not what was asked for.
        """
        check_output(output, asked)
        require_unwritten(asked, "teacher")
        # What is kept for the next round must not keep the network's activations.
        eps, feature, variance = map(_detached, output)
        assert eps is not None
        guidance = self._guidance
        eps, means, guess, sigma = target_means(
            x,
            # As the kernels take it.
            (eps.float() if eps.dtype is torch.float64 else eps).contiguous(),
            k,
            self._table.columns,
            cfg_scale=None if guidance is None else guidance.scale,
            cfg_channels=None if guidance is None else guidance.count(x.shape[1]),
            clip=self._table.clip,
        )
        table = self._table
        if table.clipping is not None and table.clip is None:
            guess = table.clipping(guess)
            means = table.mean(k, x, guess)
        if table.history:
            assert before is not None
            c = table.columns[2, k].view([-1] + [1] * (x.dim() - 1))
            means = torch.addcmul(means, c, rows.before(guess, before))
        if table.mixture is not None:
            sigma = table.sigma_at(k, x)
        output = TeacherOutput(eps, feature, variance)
        return Answer(output if guidance is None else merge(output, eps), means, guess, sigma)

    def __call__(self, x: Tensor, k: Tensor, y: Tensor) -> Answer:
        """Ask the teacher about states ``x`` of transitions ``k``, with labels ``y``.

        What a history would add to the means is left out.
        """
        rows = Span(x.shape[0], 0, 1)
        asked = self.inputs(x[:, None], k[:, None], y, rows)
        answer = self.teacher(asked.x, asked.t, asked.label)
        # Nobody has said what was predicted before.
        before = torch.zeros_like(x) if self._table.history else None
        return self.read(answer, asked.x, x, k, rows, before)


def _detached(part: Tensor | None) -> Tensor | None:
    return part.detach() if part is not None and part.requires_grad else part


def guidance_of(teacher: Teacher, scale: float, channels: int | None) -> Guidance | None:
    """Guidance as a sampler's arguments ask for it; None for a scale of 1.

    Raises ValueError if an argument is out of its range, or the teacher has no null class.
    """
    guidance = Guidance(scale, channels, getattr(teacher, "null_label", 0))
    if scale == 1.0:
        return None
    null_label = getattr(teacher, "null_label", None)
    if null_label is None:
        inner = "; pass its .module" if hasattr(teacher, "module") else ""
        raise ValueError(
            f"teacher must have a null_label to be guided (cfg_scale {scale}), "
            f"got {type(teacher).__name__}{inner}"
        )
    return guidance
