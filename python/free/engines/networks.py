"""Teacher and drafter on an engine: what the sampler sees of exported graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from free.devices import require_device
from free.drafters.feature import NetworkDrafter
from free.drafters.frozen import FrozenDrafter
from free.drafters.protocol import DraftingBatch, WindowPlan
from free.engines.session import Session
from free.models.config import DiTConfig
from free.models.guidance import Guidance
from free.models.output import Teacher, TeacherOutput

__all__ = ["EngineDrafter", "EngineTeacher", "on_engine"]


class EngineTeacher:
    """A teacher whose network runs on an engine. The law sampled is that of this engine.

    Parameters
    ----------
    sessions : dict of str to Session
        ``teacher`` and, for guidance, ``teacher_guided``.
    config : DiTConfig
    cost_key : optional
        What its calls take goes by, as JSON takes it; None if that is not known, so that measured
        costs are not kept.
    """

    #: Engines launch work that torch does not see.
    capturable = False

    def __init__(
        self, sessions: dict[str, Session], config: DiTConfig, cost_key: Any = None
    ) -> None:
        self.sessions = sessions
        self.config = config
        self.cost_key = cost_key
        self.sample_shape = (config.channels, config.image_size, config.image_size)
        self.num_classes = config.num_classes
        self.null_label = config.num_classes
        self.device = next(iter(sessions.values())).device

    @property
    def largest_batch(self) -> int:
        """Rows of a call, at most."""
        return min(session.contract.axes["rows"].maximum for session in self.sessions.values())

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        """As :class:`free.DiT`."""
        return self._run("teacher", {"x": x, "t": t, "y": y})

    def guided(self, guidance: Guidance) -> Teacher:
        """The teacher under guidance, which is part of the graph."""
        scale = guidance_scale(guidance, self.config.channels, self.device)

        def call(x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
            return self._run("teacher_guided", {"x": x, "t": t, "y": y, "cfg_scale": scale})

        return call

    def _run(self, graph: str, inputs: dict[str, Tensor]) -> TeacherOutput:
        out = _session(self.sessions, graph).run(inputs)
        return TeacherOutput(out["eps"], out["feature"], out.get("variance"))


class EngineDrafter(NetworkDrafter):
    """The trained drafter on an engine: a step at a time, or a whole window in one call.

    Parameters
    ----------
    sessions : dict of str to Session
        ``drafter``, ``draft`` and, for guidance, ``drafter_guided``, ``draft_guided``.
    config : DiTConfig
        The teacher's.
    window : int
    sweeps : int or None
        What the window's graph was made for.
    sampling : dict, optional
        As of :class:`NetworkDrafter`.
    cost_key : optional
        As of :class:`EngineTeacher`.
    """

    capturable = False

    def __init__(
        self,
        sessions: dict[str, Session],
        config: DiTConfig,
        window: int,
        sweeps: int | None,
        sampling: dict[str, Any] | None = None,
        cost_key: Any = None,
    ) -> None:
        super().__init__(sampling)
        self.sessions = sessions
        self.cost_key = cost_key
        self.config = config
        self.window = window
        self.sweeps = sweeps
        self._scale: Tensor | None = None

    def begin(self, batch: DraftingBatch) -> None:
        """As :meth:`FeatureDrafter.begin`."""
        super().begin(batch)
        guidance, device = batch.guidance, batch.table.sigma.device
        require_device(device, drafter=next(iter(self.sessions.values()), None))
        self._scale = (
            None if guidance is None else guidance_scale(guidance, self.config.channels, device)
        )

    def step(
        self,
        x: Tensor,
        innovation: Tensor,
        t: Tensor,
        y: Tensor,
        feature: Tensor,
        guidance: Guidance | None,
    ) -> tuple[Tensor, Tensor]:
        """One drafter call; see :meth:`NetworkDrafter.step`."""
        feature = feature.float()  # a teacher on torch may run in lower precision
        inputs = {"x": x, "innovation": innovation, "t": t, "y": y, "feature": feature}
        out = self._run("drafter", inputs)
        return out["change"], out["feature_after"]

    def drafts(self, window: int, sweeps: int | None) -> bool:
        """Whether :meth:`draft` serves a window of so many rows, drafted in this way."""
        return window <= self.window and sweeps == self.sweeps

    def draft(self, plan: WindowPlan) -> tuple[Tensor, Tensor]:
        """Draft a window in one call.

        Parameters
        ----------
        plan : WindowPlan

        Returns
        -------
        states : Tensor, shape [B, P + 1, ...]
        means : Tensor, shape [B, P, ...]
        """
        table, _ = self.table_and_guidance()
        B, P = plan.k.shape
        width = self.window - 1
        assert plan.rows.feature is not None
        carry = plan.row[:, :P]
        own = torch.arange(P, device=carry.device) >= plan.known[:, None]
        asked = plan.asked.flatten()
        slot = torch.where(asked, asked.cumsum(0), 0).view(B, P)
        by_transition = {
            "noise": plan.noise,
            "a": plan.a,
            "b": plan.b,
            "sigma": plan.sigma,
            "sigma_before": table.sigma[plan.k - 1],
            "t": table.timesteps[plan.k],
            "slope": plan.slope,
            "intercept": plan.intercept,
            "settled": plan.settled,
            **({"carry": carry, "own": own} if self.sweeps is None else {"slot": slot}),
        }
        # The graph's window is as wide as it was made: what is behind a narrower one is not read.
        inputs = {name: _widen(value, width) for name, value in by_transition.items()} | {
            "x": plan.x,
            "y": plan.y,
            "guess_before": plan.guess_before,
            "mean_before": plan.mean_before,
            "feature": plan.rows.feature.float(),
        }
        if self.sweeps is not None:
            b, i = plan.asked.nonzero(as_tuple=True)
            inputs |= {"asked": b * width + i, "carry": carry[b, i]}
            if self.sweeps > 1:
                # The drafter's answer one transition before, where that is what the carry is; never
                # at the first, whose carry the teacher always knows.
                before = slot[b, (i - 1).clamp(min=0)] - 1 + len(plan.rows.feature)
                inputs["carry_next"] = torch.where(own[b, i], before, carry[b, i])
        out = self._run("draft", inputs)
        return out["states"][:, : P + 1].contiguous(), out["means"][:, :P].contiguous()

    def _run(self, graph: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        if self._scale is None:
            return _session(self.sessions, graph).run(inputs)
        return _session(self.sessions, f"{graph}_guided").run({**inputs, "cfg_scale": self._scale})


def on_engine(
    sessions: dict[str, Session],
    config: DiTConfig,
    window: int,
    sweeps: int | None,
    sampling: dict[str, Any],
    cost_key: Any = None,
) -> tuple[EngineTeacher, EngineDrafter | FrozenDrafter]:
    """Teacher and drafter of these graphs; without a drafter among them, the training-free one.

    Parameters are those of the two classes.
    """
    of_teacher = {name: s for name, s in sessions.items() if name.startswith("teacher")}
    teacher = EngineTeacher(of_teacher, config, cost_key)
    if len(of_teacher) == len(sessions):
        frozen = FrozenDrafter()
        frozen.sampling["window"] = min(frozen.sampling["window"], window)
        return teacher, frozen
    return teacher, EngineDrafter(sessions, config, window, sweeps, sampling, cost_key)


def guidance_scale(guidance: Guidance, channels: int, device: torch.device) -> Tensor:
    """Guidance as graphs take it: a scale for each channel, 1 for those that are not guided.

    Raises
    ------
    ValueError
        If more channels are to be guided than there are.
    """
    scale = torch.ones(channels)
    scale[: guidance.count(channels)] = guidance.scale
    return scale.to(device)


def _widen(value: Tensor, width: int) -> Tensor:
    """[B, P, ...] -> [B, width, ...]: at the end ones (a sigma is divided by), or index 0."""
    if value.shape[1] == width:
        return value
    shape = (len(value), width - value.shape[1], *value.shape[2:])
    return torch.cat([value, value.new_full(shape, value.is_floating_point())], dim=1)


def _session(sessions: dict[str, Session], graph: str) -> Session:
    if graph not in sessions:
        raise ValueError(
            f"engine must have the graph {graph} for this, got {', '.join(sessions)}: export with "
            "--guidance both"
        )
    return sessions[graph]
