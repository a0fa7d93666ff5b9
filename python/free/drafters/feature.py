"""The trained drafter: autoregression of the teacher's top-block feature and predicted image."""

from __future__ import annotations

from torch import Tensor

from free.drafters.protocol import DraftingBatch
from free.models.dit import DiT
from free.models.drafter import DrafterNet, eps_from_image, image_from_eps
from free.models.guidance import Guidance
from free.models.output import TeacherRows
from free.schedule import Table

__all__ = ["FeatureDrafter"]


class FeatureDrafter:
    """Runs a :class:`DrafterNet` from one step to the next; the carry is the feature.

    Parameters
    ----------
    network : DrafterNet
    teacher : DiT
        Whose label embeddings the network is given; it has none of its own.

    Raises
    ------
    ValueError
        If the network was made for another architecture than the teacher's.
    """

    def __init__(self, network: DrafterNet, teacher: DiT) -> None:
        if network.config != teacher.config:
            raise ValueError(
                f"network must be made for the teacher's config {teacher.config}, "
                f"got {network.config}"
            )
        self.network = network
        self.teacher = teacher
        self._batch: DraftingBatch | None = None

    def begin(self, batch: DraftingBatch) -> None:
        """Remember the schedule and the guidance of the run."""
        self._batch = batch

    def predict(
        self, x: Tensor, k: Tensor, y: Tensor, carry: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Guess eps at ``x``; see :class:`free.drafters.Drafter`.

        The carry is the feature ``[R, T, E]`` (guided: ``[R, 2, T, E]``) and the predicted image
        x0 ``[R, ...]`` of the previous step. Guidance combines the changes of x0 rather than the
        eps, which is the same: its weights add up to 1 and the anchor is common.
        """
        feature, image = carry
        table, guidance = self._table_and_guidance()
        t = table.timesteps[k]
        if guidance is None:
            change, feature = self.network(x, t, self.teacher.label_embedding(y), feature)
        else:
            rows, t, y = guidance.expand(x, t, y)
            embedding = self.teacher.label_embedding(y)
            change, feature = self.network(rows, t, embedding, feature.flatten(0, 1))
            change, feature = guidance.combine(change), feature.unflatten(0, (-1, 2))
        image = image + change
        return eps_from_image(x, image, table.signal[k]), (feature, image)

    def carry_from(self, teacher_output: TeacherRows, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's features and predicted images at ``rows``."""
        if teacher_output.feature is None:
            raise ValueError(
                "teacher must return a feature for FeatureDrafter, got TeacherOutput.feature = None"
            )
        table, _ = self._table_and_guidance()
        eps, x, k = teacher_output.eps[rows], teacher_output.x[rows], teacher_output.k[rows]
        return teacher_output.feature[rows], image_from_eps(x, eps, table.signal[k])

    def _table_and_guidance(self) -> tuple[Table, Guidance | None]:
        if self._batch is None:
            raise RuntimeError("begin() must be called before predict() and carry_from()")
        return self._batch.table, self._batch.guidance
