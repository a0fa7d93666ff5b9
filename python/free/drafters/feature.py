"""The trained drafter: autoregression of the teacher's top-block feature and predicted image.

:class:`NetworkDrafter` turns a network's change of x0 into drafts and does not know who runs the
network; :class:`FeatureDrafter` runs it with torch.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from free.devices import require_device
from free.drafters.protocol import DraftingBatch
from free.models.checkpoints import read_drafter
from free.models.dit import DiT
from free.models.drafter import DrafterNet
from free.models.guidance import Guidance, unpair
from free.models.output import TeacherRows
from free.ops import drafter_rows
from free.schedule.table import Table

if TYPE_CHECKING:
    from typing_extensions import Self


class Anchored(NamedTuple):
    """The carry of a drafter that knows the change of x0: what the change is from.

    Attributes
    ----------
    feature : Tensor, shape [R, T, E], under guidance [R, 2, T, E]
    image : Tensor, shape [R, ...]
        Predicted x0 at the previous transition.
    mean : Tensor, shape [R, ...]
        Mean of the previous transition, which led to the current state.
    """

    feature: Tensor
    image: Tensor
    mean: Tensor


class NetworkDrafter(ABC):
    """Drafts by the change of x0 that a network sees coming; who runs the network is :meth:`step`.

    Parameters
    ----------
    sampling : dict, optional
        Settings of :class:`free.SpeculativeSampler` that it serves best with; kept as the
        attribute ``sampling``. Its ``acceptance``, if it has one, becomes the attribute of that
        name: by number of sweeps, what :class:`free.AutoWindow` may expect of the drafts.
    """

    #: Whether :meth:`step` wants both rows of a state under guidance, or makes them itself.
    pairs = False

    def __init__(self, sampling: dict[str, Any] | None = None) -> None:
        self.sampling = dict(sampling or {})
        self.acceptance: dict[str, Any] = self.sampling.pop("acceptance", {})
        self._batch: DraftingBatch | None = None
        self._sigma: Tensor  # 1 where there is no noise, whose innovation is then 0

    @abstractmethod
    def step(
        self,
        x: Tensor,
        innovation: Tensor,
        t: Tensor,
        y: Tensor,
        feature: Tensor,
        guidance: Guidance | None,
    ) -> tuple[Tensor, Tensor]:
        """Evaluate the network: the guided change of x0, [R, ...], and the next ``feature``.

        ``x`` and ``innovation``, [R, ...], are states, and the noise of the transitions that led to
        them; ``t`` and ``y``, [R], timesteps and labels; [2R, ...] of one that asks for ``pairs``,
        under guidance. ``feature`` is [R, T, E], or [R, 2, T, E] under guidance. It combines the
        changes of x0 rather than the eps, which is the same: its weights add up to 1 and the anchor
        is common to both rows of a state.
        """

    def begin(self, batch: DraftingBatch) -> Self:
        """Return one that knows the schedule and the guidance of the run, with the same network.

        Raises ValueError if the schedule does not say how eps tells x0.
        """
        batch.table.require_image()
        run = copy.copy(self)
        run._batch = batch
        run._sigma = torch.where(batch.table.sigma > 0, batch.table.sigma, 1.0)
        return run

    def change(
        self, x: Tensor, mean: Tensor, k: Tensor, y: Tensor, carry: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Guess how x0 changes; see :class:`free.drafters.ChangeDrafter`.

        The carry is the top block's feature, [R, T, E], under guidance [R, 2, T, E].
        """
        table, guidance = self.table_and_guidance()
        rows = drafter_rows(
            x,
            mean,
            k,
            y,
            timesteps=table.words,
            sigma=self._sigma,
            scale=table.input_scale,
            null_label=guidance.null_label if guidance is not None and self.pairs else None,
        )
        t = table.times(rows.t)
        return self.step(rows.states, rows.innovation, t, rows.label, carry, guidance)

    def carry_of_change(self, teacher_output: TeacherRows, rows: Tensor) -> Tensor:
        """The teacher's features at ``rows``."""
        if teacher_output.feature is None:
            raise ValueError(
                "teacher must return a feature for this drafter, got TeacherOutput.feature = None"
            )
        return teacher_output.feature[rows]

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Anchored) -> tuple[Tensor, Anchored]:
        """Guess the prediction at ``x``; see :class:`free.drafters.Drafter`."""
        table, _ = self.table_and_guidance()
        change, feature = self.change(x, carry.mean, k, y, carry.feature)
        image = carry.image + change
        return table.prediction(k, x, image), Anchored(feature, image, table.mean(k, x, image))

    def carry_from(self, teacher_output: TeacherRows, rows: Tensor) -> Anchored:
        """What the teacher found at ``rows``: features, predicted images, transition means."""
        feature, (table, _) = self.carry_of_change(teacher_output, rows), self.table_and_guidance()
        eps, x, k = teacher_output.eps[rows], teacher_output.x[rows], teacher_output.k[rows]
        image = table.guess(k, x, eps)
        return Anchored(feature, image, table.mean(k, x, image))

    def table_and_guidance(self) -> tuple[Table, Guidance | None]:
        """What :meth:`begin` was given.

        Raises RuntimeError for one that :meth:`begin` has not returned.
        """
        if self._batch is None:
            raise RuntimeError(
                "predict() and carry_from() are for the drafter that begin() returns"
            )
        return self._batch.table, self._batch.guidance


class FeatureDrafter(NetworkDrafter):
    """Runs a :class:`DrafterNet` from one step to the next.

    Parameters
    ----------
    network : DrafterNet
    teacher : DiT
        Whose label embeddings the network is given; it has none of its own.
    sampling : dict, optional
        See :class:`NetworkDrafter`.

    Raises
    ------
    ValueError
        If the network was made for another architecture than the teacher's.
    """

    #: All that it does is done by torch.
    capturable = True
    pairs = True

    def __init__(
        self, network: DrafterNet, teacher: DiT, sampling: dict[str, Any] | None = None
    ) -> None:
        misfit = teacher.config.misfit(network.config)
        if misfit:
            raise ValueError(f"network must be made for the teacher's config, got {misfit}")
        super().__init__(sampling)
        self.network = network
        self.teacher = teacher

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        teacher: DiT,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> FeatureDrafter:
        """Load a drafter with the settings it was saved with.

        ``source``, ``dtype``, ``device`` and what is raised are those of
        :meth:`free.DrafterNet.from_pretrained`; ValueError also if the drafter is of another shape
        than the teacher.
        """
        network, sampling = read_drafter(DrafterNet, source, dtype=dtype, device=device)
        return cls(network, teacher, sampling)

    def begin(self, batch: DraftingBatch) -> Self:
        """Return one that knows the run; see :meth:`NetworkDrafter.begin`.

        Raises ValueError also if the networks are not on the device of the states.
        """
        parts = {"drafter": self.network, "drafter.teacher": self.teacher}
        require_device(batch.table.sigma.device, **parts)
        return super().begin(batch)

    def step(
        self,
        x: Tensor,
        innovation: Tensor,
        t: Tensor,
        y: Tensor,
        feature: Tensor,
        guidance: Guidance | None,
    ) -> tuple[Tensor, Tensor]:
        """Run the network here; see :meth:`NetworkDrafter.step`."""
        labels = self.teacher.label_embedding(y)
        if guidance is None:
            return self.network(x, innovation, t, labels, feature)
        change, feature = self.network(x, innovation, t, labels, feature.flatten(0, 1))
        return guidance.combine(change.float()), unpair(feature)
