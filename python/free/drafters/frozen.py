"""Drafters that need no training: the teacher's last verified prediction, kept."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor

from free.drafters.protocol import DraftingBatch
from free.models.output import TeacherRows
from free.schedule.table import Table


class FrozenDrafter:
    """Keeps what the teacher predicted at the last verified state. Serves any teacher.

    With ``keep="image"`` that is the first guess of every window anyway: with ``sweeps=0`` the
    drafts are the same, and the drafter is not asked.

    Parameters
    ----------
    keep : {"image", "eps"}
        ``"image"`` keeps the predicted image x0, and eps follows the noise of each state; it needs
        a schedule that says how eps tells x0. ``"eps"`` keeps the prediction itself, mostly of the
        noise (De Bortoli et al. 2025, the frozen-target drafter), and is far weaker. ValueError
        for others.

    Attributes
    ----------
    sampling : dict
        Settings of :class:`free.SpeculativeSampler` that were measured to serve it best.
    """

    #: All that it does is done by torch.
    capturable = True

    def __init__(self, keep: str = "image") -> None:
        if keep not in ("image", "eps"):
            raise ValueError(f"keep must be 'image' or 'eps', got {keep!r}")
        self.keep = self.cost_key = keep
        sweeps = 0 if keep == "image" else 1
        self.sampling: dict[str, Any] = {"window": 16, "sweeps": sweeps, "recycle": "response"}
        self._table: Table | None = None

    def begin(self, batch: DraftingBatch) -> FrozenDrafter:
        """Return one that knows the schedule of the run."""
        run = copy.copy(self)
        if self.keep == "image":
            batch.table.require_image()
            run._table = batch.table
        return run

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        """Guess the prediction at ``x``; the carry is the kept image or prediction, [R, ...]."""
        return (carry if self.keep == "eps" else self._of_run().prediction(k, x, carry)), carry

    def carry_from(self, teacher_output: TeacherRows, rows: Tensor) -> Tensor:
        """The teacher's predicted images, or predictions, at ``rows``."""
        eps = teacher_output.eps[rows].float()
        if self.keep == "eps":
            return eps
        return self._of_run().guess(teacher_output.k[rows], teacher_output.x[rows], eps)

    def _of_run(self) -> Table:
        if self._table is None:
            raise RuntimeError(
                "predict() and carry_from() are for the drafter that begin() returns"
            )
        return self._table
