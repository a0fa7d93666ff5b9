"""How good a drafter is while it is trained: the paper's Table 5, and where drafts fail."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from free.drafters.feature import FeatureDrafter
from free.models.dit import DiT
from free.models.drafter import DrafterNet
from free.models.guidance import Guidance
from free.sampling.speculative import SpeculativeSampler
from free.schedule.schedule import Schedule
from free.training.parallel import Ranks
from free.window.recording import PositionWindow


@dataclasses.dataclass(frozen=True)
class DrafterEvaluation:
    """Draws images with a drafter and counts rounds; the images are shared among the ranks.

    Drafting is the paper's: autoregression, reflection, nothing recycled. Images and noise are the
    same at each evaluation. A number out of its range is a ValueError.

    Parameters
    ----------
    steps, window, cfg_scale, cfg_channels
        Of the sampler; the window, teacher rows of a round, is at least 2.
    images, batch_size : int
        Images drawn, and how many of them together.
    seed : int
        Image i has the noise of ``seed + i``.
    recommended : dict, optional
        ``window``, ``sweeps`` and ``recycle`` of :class:`free.SpeculativeSampler` to draw with
        besides; gives ``recommended_efficiency``.
    """

    teacher: DiT
    steps: int = 250
    images: int = 50
    window: int = 8
    cfg_scale: float = 1.5
    cfg_channels: int | None = None
    batch_size: int = 10
    seed: int = 0
    recommended: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, least in (("images", 1), ("window", 2), ("batch_size", 1), ("steps", 3)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        guidance = Guidance(self.cfg_scale, self.cfg_channels, self.teacher.null_label)
        guidance.count(self.teacher.sample_shape[0])  # or an error

    def __call__(self, network: DrafterNet, ranks: Ranks) -> dict[str, Any]:
        """Evaluate a drafter.

        Returns
        -------
        dict
            ``parallel_efficiency`` and ``acceptance`` (of the drafts decided on);
            ``acceptance_by_step [N]``, None where no draft was decided on;
            ``delta_by_position`` and ``acceptance_by_position``, both [W - 1]: means of delta and
            of ``2 Phi(-delta / 2)`` over the drafts decided on at each place of the window; and
            the settings ``images``, ``window``, ``cfg_scale`` and, if given, ``cfg_channels``.
        """
        rule = PositionWindow(self.window)
        rounds, examined, accepted = self._draw(network, ranks, {"window": rule})
        positions = torch.from_numpy(rule.sums).to(ranks.device, torch.float32)
        count, delta, accepts = ranks.sum(positions).cpu().double()
        total = self.images * self.steps
        result = {
            "parallel_efficiency": total / float(rounds),
            "acceptance": int(accepted.sum()) / max(int(examined.sum()), 1),
            "acceptance_by_step": _shares(accepted, examined),
            "delta_by_position": _shares(delta, count),
            "acceptance_by_position": _shares(accepts, count),
            "images": self.images,
            "window": self.window,
            "cfg_scale": self.cfg_scale,
        }
        if self.cfg_channels is not None:
            result["cfg_channels"] = self.cfg_channels
        if self.recommended is not None:
            rounds, _, _ = self._draw(network, ranks, self.recommended)
            result["recommended_efficiency"] = total / float(rounds)
        return result

    def _draw(
        self, network: DrafterNet, ranks: Ranks, settings: dict[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rounds of all images and ranks, and drafts decided on and accepted, by step."""
        sampler = SpeculativeSampler(
            self.teacher,
            FeatureDrafter(network, self.teacher),
            Schedule.ddpm(self.steps),
            cfg_scale=self.cfg_scale,
            cfg_channels=self.cfg_channels,
            graph=False,  # for a few batches, beside a training that holds the memory
            **settings,
        )
        sums = torch.zeros(1 + 2 * self.steps, dtype=torch.int64, device="cpu")
        mine = range(ranks.rank, self.images, ranks.world)
        for start in range(0, len(mine), self.batch_size):
            batch = mine[start : start + self.batch_size]
            labels = torch.tensor(
                [self._label(i) for i in batch], dtype=torch.int64, device=ranks.device
            )
            report = sampler.sample(labels, [self.seed + i for i in batch]).report
            sums += torch.tensor(
                [sum(report.rounds_by_sample), *report.examined_by_step, *report.accepted_by_step],
                dtype=torch.int64,
                device="cpu",
            )
        rounds, examined, accepted = (
            ranks.sum(sums.to(ranks.device)).cpu().split([1, self.steps, self.steps])
        )
        return rounds, examined, accepted

    def _label(self, image: int) -> int:
        """Classes in turn; few images are spread over many."""
        classes = self.teacher.num_classes
        return image * max(1, classes // self.images) % classes


def _shares(parts: Tensor, wholes: Tensor) -> list[float | None]:
    pairs = zip(parts.tolist(), wholes.tolist(), strict=True)
    return [part / whole if whole else None for part, whole in pairs]
