"""Teacher and drafter on an engine: what the sampler sees of exported graphs.

Which engine runs them is not known here, only that it keeps to their contracts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from free.devices import require_device
from free.drafters.feature import NetworkDrafter
from free.drafters.frozen import FrozenDrafter
from free.drafters.protocol import DraftingBatch, WindowPlan
from free.engines.interface import Session
from free.models.config import DiTConfig
from free.models.guidance import Guidance
from free.models.output import Teacher, TeacherOutput

if TYPE_CHECKING:
    from typing_extensions import Self


class EngineTeacher:
    """A teacher whose network runs on an engine. The law sampled is that of this engine.

    Parameters
    ----------
    sessions : dict of str to Session
        ``teacher`` and, for guidance, ``teacher_guided``.
    config : DiTConfig
    cost_key : optional
        JSON value by which costs of its calls are kept; None where they are not to be.
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
        self.null_label = config.null_label
        self.device = next(iter(sessions.values())).device

    @property
    def largest_batch(self) -> int:
        """Rows of a call, at most."""
        return min(session.contract.axes["rows"].maximum for session in self.sessions.values())

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        """Evaluate the network without guidance; see :class:`free.DiT`."""
        return self._call({"x": x, "t": t, "y": y}, None)

    def guided(self, guidance: Guidance) -> Teacher:
        """The teacher under guidance, which is part of the graph."""
        scale = guidance_scale(guidance, self.config.channels, self.device)
        return lambda x, t, y: self._call({"x": x, "t": t, "y": y}, scale)

    def _call(self, inputs: dict[str, Tensor], scale: Tensor | None) -> TeacherOutput:
        out = _run(self.sessions, "teacher", inputs, scale)
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
        See :class:`NetworkDrafter`.
    cost_key : optional
        See :class:`EngineTeacher`.
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

    def begin(self, batch: DraftingBatch) -> Self:
        """Return one that knows the run, and its guidance as graphs take it; see
        :meth:`NetworkDrafter.begin`.

        Raises
        ------
        ValueError
            Also if the engine does not take inputs from the device of the states.
        """
        run = super().begin(batch)
        guidance, device = batch.guidance, batch.table.sigma.device
        require_device(device, drafter=next(iter(self.sessions.values()), None))
        channels = self.config.channels
        run._scale = None if guidance is None else guidance_scale(guidance, channels, device)
        return run

    def step(
        self,
        x: Tensor,
        innovation: Tensor,
        t: Tensor,
        y: Tensor,
        feature: Tensor,
        guidance: Guidance | None,
    ) -> tuple[Tensor, Tensor]:
        """Run the network once; see :meth:`NetworkDrafter.step`."""
        feature = feature.float()  # a teacher on torch may run in lower precision
        inputs = {"x": x, "innovation": innovation, "t": t, "y": y, "feature": feature}
        out = _run(self.sessions, "drafter", inputs, self._scale)
        return out["change"], out["feature_after"]

    def drafts(self, window: int, sweeps: int | None) -> bool:
        """Whether :meth:`draft` serves a window of so many rows, drafted in so many sweeps."""
        return window <= self.window and sweeps == self.sweeps

    def draft(self, plan: WindowPlan) -> tuple[Tensor, Tensor]:
        """Draft a window in one call; see :class:`free.drafters.protocol.WindowDrafter`."""
        table, _ = self.table_and_guidance()
        (B, P), width, feature = plan.k.shape, self.window - 1, plan.rows.feature
        if feature is None:
            raise ValueError(
                "teacher must return a feature for this drafter, got TeacherOutput.feature = None"
            )
        own = torch.arange(P, device=plan.k.device) >= plan.known[:, None]
        # Where the answer to each transition is among those to all that are asked about, from 1.
        slot = torch.where(plan.asked, plan.asked.flatten().cumsum(0).view(B, P), 0)
        by_transition = {
            "noise": plan.noise,
            "a": plan.a,
            "b": plan.b,
            "sigma": plan.sigma,
            "sigma_before": table.sigma[plan.k - 1],
            "t": table.time(plan.k),
            "slope": plan.slope,
            "intercept": plan.intercept,
            "settled": plan.settled,
            **({"carry": plan.row, "own": own} if self.sweeps is None else {"slot": slot}),
        }
        # What the graph drafts behind a narrower window than its own is not read.
        inputs = {name: _widen(value, width) for name, value in by_transition.items()} | {
            "x": plan.x,
            "y": plan.y,
            "guess_before": plan.guess_before,
            "mean_before": plan.mean_before,
            "feature": feature.float(),
        }
        if self.sweeps is not None:
            b, i = plan.asked.nonzero(as_tuple=True)
            carry = plan.row[b, i]
            inputs |= {"asked": b * width + i, "carry": carry}
            if self.sweeps > 1:
                # The drafter's answer one transition before, where that is what the carry is; never
                # at the first, whose carry the teacher always knows.
                before = slot[b, (i - 1).clamp(min=0)] - 1 + len(feature)
                inputs["carry_next"] = torch.where(own[b, i], before, carry)
        out = _run(self.sessions, "draft", inputs, self._scale)
        return out["states"][:, : P + 1].contiguous(), out["means"][:, :P].contiguous()


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
    teachers = {name: session for name, session in sessions.items() if name.startswith("teacher")}
    teacher = EngineTeacher(teachers, config, cost_key)
    if len(teachers) == len(sessions):
        return teacher, frozen_drafter(window)
    return teacher, EngineDrafter(sessions, config, window, sweeps, sampling, cost_key)


def frozen_drafter(window: int) -> FrozenDrafter:
    """The training-free drafter, for graphs that take windows of at most so many rows."""
    frozen = FrozenDrafter()
    frozen.sampling["window"] = min(frozen.sampling["window"], window)
    return frozen


def guidance_scale(guidance: Guidance, channels: int, device: torch.device) -> Tensor:
    """Guidance as graphs take it: a scale for each channel, 1 for those that are not guided.

    Raises
    ------
    ValueError
        If more channels are to be guided than there are.
    """
    scale = torch.ones(channels, dtype=torch.float32, device="cpu")
    scale[: guidance.count(channels)] = guidance.scale
    return scale.to(device)


def _widen(value: Tensor, width: int) -> Tensor:
    """[B, P, ...] -> [B, width, ...]: at the end ones (a sigma is divided by), or index 0."""
    if value.shape[1] == width:
        return value
    shape = (len(value), width - value.shape[1], *value.shape[2:])
    return torch.cat([value, value.new_full(shape, value.is_floating_point())], dim=1)


def _run(
    sessions: dict[str, Session], graph: str, inputs: dict[str, Tensor], scale: Tensor | None
) -> dict[str, Tensor]:
    """Run a graph, or the guided one of that name."""
    if scale is not None:
        graph, inputs = f"{graph}_guided", {**inputs, "cfg_scale": scale}
    if graph not in sessions:
        raise ValueError(
            f"engine must have the graph {graph} for this, got {', '.join(sessions)}: export with "
            "--guidance both"
        )
    return sessions[graph].run(inputs)
