"""What the sampler asks of a drafter. How a window is drafted is known in :mod:`free.rounds`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeGuard, runtime_checkable

from torch import Tensor, nn

from free.models.drafter import DrafterNet
from free.models.guidance import Guidance
from free.models.output import TeacherRows
from free.schedule.table import Table


@dataclass(frozen=True)
class DraftingBatch:
    """What stays the same during one run of ``sample``.

    ``table`` is the schedule, on the states' device; ``guidance`` says how the teacher is guided,
    or None. Drafts are guesses of the *guided* prediction.
    """

    table: Table
    guidance: Guidance | None


@runtime_checkable
class Drafter(Protocol):
    """Guesses what the teacher predicts (eps, for most) at states that it has not seen.

    Rows must be independent of each other, and no tensor that it is given may be written to:
    exactness depends on both. Samplers may share a drafter: what belongs to one run is kept by
    what :meth:`begin` returns. One whose attribute ``capturable`` is true does all its work in
    torch, without looking at values or keeping anything from call to call, and may become part of
    a CUDA graph.
    """

    def begin(self, batch: DraftingBatch) -> Drafter | None:
        """Return what drafts for a run that starts: a copy that knows the run, for instance.

        None stands for this object, which must then not depend on the run.
        """

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> tuple[Tensor, Any]:
        """Guess the (guided) prediction of transition ``k``.

        Parameters
        ----------
        x : Tensor, shape [R, ...], float32
            States at the start of the transitions.
        k, y : Tensor, shape [R], int64
            Transition indices and labels.
        carry : Any
            What the previous step of the same rows returned, or :meth:`carry_from`; where a
            whole window is drafted in one call, that of the nearest earlier step there is. A
            tensor whose first axis is R, a tuple or dict of such, or None.

        Returns
        -------
        eps_hat, carry
            [R, ...], and what the next step is given.
        """

    def carry_from(self, teacher_output: TeacherRows, rows: Tensor) -> Any:
        """A fresh carry from ``rows [R]`` (int64) of a teacher call.

        ``teacher_output`` also has the states and transitions of its rows. With recycling they
        include discarded states, whose outputs depend on noise that is still to be used, and
        repeats. So a row of the carry may depend on its own teacher row only, and nothing may be
        averaged over rows or remembered from call to call; else the law is lost.
        """


class ChangeDrafter(Drafter, Protocol):
    """A drafter that says how x0 *changes* from one transition to the next.

    The sampler adds changes up along a window, from its own guess of the transition before, so
    that those of several transitions may all be asked for in one call.
    """

    def change(
        self, x: Tensor, mean: Tensor, k: Tensor, y: Tensor, carry: Any
    ) -> tuple[Tensor, Any]:
        """Guess by how much the (guided) x0 of transition ``k`` differs from that of ``k - 1``.

        Arguments are those of :meth:`Drafter.predict`, and the ``mean [R, ...]``, float32, of the
        transition that led to ``x``. A fresh carry is :meth:`carry_of_change`'s, not
        :meth:`Drafter.carry_from`'s. Returned are the change, [R, ...], and the next carry.
        """

    def carry_of_change(self, teacher_output: TeacherRows, rows: Tensor) -> Any:
        """A fresh carry of :meth:`change`; see :meth:`Drafter.carry_from`."""


class WindowPlan(NamedTuple):
    """All that is known of a window before the drafter is called.

    In terms of :class:`free.schedule.table.Table`: ``mean = a x + b guess``, with
    guesses that are not limited, and no transition depends on the one before.

    Attributes
    ----------
    x, y : Tensor, shape [B, ...] and [B], int64
        Current states, and labels.
    k, noise : Tensor, shape [B, P], int64, and [B, P, ...]
        Transitions of the window, and their noises.
    a, b, sigma : Tensor, shape [B, P]
        Coefficients of the transitions.
    slope, intercept : Tensor, shape [B, P] and [B, P, ...]
        First guesses, ``intercept + slope x``.
    settled : Tensor, shape [B, P], bool
        Transitions whose first guess stands: a prefix of each window.
    asked : Tensor, shape [B, P], bool
        Transitions that the drafter is called for.
    guess_before, mean_before : Tensor, shape [B, ...]
        Of the transition just made.
    rows, row : TeacherRows, and Tensor of shape [B, P], int64
        The teacher's last call, and which of its rows is nearest before each transition.
    known : Tensor, shape [B], int64
        From this transition of the window on, the nearest is the drafter's own.
    """

    x: Tensor
    k: Tensor
    y: Tensor
    noise: Tensor
    a: Tensor
    b: Tensor
    sigma: Tensor
    slope: Tensor
    intercept: Tensor
    settled: Tensor
    asked: Tensor
    guess_before: Tensor
    mean_before: Tensor
    rows: TeacherRows
    row: Tensor
    known: Tensor


class WindowDrafter(Drafter, Protocol):
    """A drafter that can also draft a whole window at once, as exported ones do."""

    def drafts(self, window: int, sweeps: int | None) -> bool:
        """Whether it drafts a window of so many rows in so many sweeps."""

    def draft(self, plan: WindowPlan) -> tuple[Tensor, Tensor]:
        """States [B, P + 1, ...] and means [B, P, ...].

        They are those that :func:`free.rounds.draft.draft_window` makes by calling ``predict``; its
        exactness rule holds here too.
        """


def what_came(value: object) -> str:
    """What came instead of a drafter, as an error has it: of networks their type alone."""
    if isinstance(value, DrafterNet):
        return f"{type(value).__name__}, a network: free.drafters.FeatureDrafter makes it a drafter"
    return type(value).__name__ if isinstance(value, nn.Module) else f"{value!r:.80}"


def says_changes(drafter: Drafter) -> TypeGuard[ChangeDrafter]:
    """Whether it is a :class:`ChangeDrafter`."""
    # Looked at in every round, where ``isinstance`` of a protocol would take long.
    return hasattr(drafter, "change") and hasattr(drafter, "carry_of_change")


def drafts_windows(drafter: Drafter) -> TypeGuard[WindowDrafter]:
    """Whether it is a :class:`WindowDrafter`."""
    return hasattr(drafter, "draft") and hasattr(drafter, "drafts")
