"""The samplers: the plain one, and the speculative one with the same law.

States are float32 and all randomness comes from the counter-based noise of
:mod:`free.random`, so a sample depends on its own seed and label, not on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from free import random
from free.drafters.protocol import Drafter, DraftingBatch
from free.drafting import draft_window
from free.models.guidance import Guidance, GuidedTeacher
from free.models.output import Teacher, TeacherRows, checked, require_finite
from free.ops import check_verifier, verify_window
from free.progress import Progress, progress_bar
from free.random import Purpose
from free.report import Recorder, Report
from free.request import check_request
from free.schedule import Schedule, Table
from free.window import window_lengths

__all__ = ["SamplingResult", "SequentialSampler", "SpeculativeSampler"]

Labels = Tensor | Sequence[int]
Seeds = int | Tensor | Sequence[int]


class SamplingResult(NamedTuple):
    """Samples and what it took to draw them.

    Attributes
    ----------
    samples : Tensor, shape [B, ...], float32
    report : Report
    """

    samples: Tensor
    report: Report


class SequentialSampler:
    """The plain sampler: one teacher call a transition.

    Parameters
    ----------
    teacher : callable
        ``teacher(x [R, ...], t [R], y [R]) -> TeacherOutput``.
    schedule : Schedule
    cfg_scale : float
        Classifier-free guidance; 1 is none. Otherwise the teacher needs ``null_label``.
    cfg_channels : int or None
        How many leading channels are guided; None for all, 3 for the original DiT's figures.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """

    def __init__(
        self,
        teacher: Teacher,
        schedule: Schedule,
        cfg_scale: float = 1.0,
        cfg_channels: int | None = None,
    ) -> None:
        self.teacher = teacher
        self.schedule = schedule
        self.guidance = _guidance(teacher, cfg_scale, cfg_channels)

    @torch.no_grad()
    def sample(
        self,
        labels: Labels,
        seed: Seeds = 0,
        shape: Sequence[int] | None = None,
        progress: Progress = False,
    ) -> SamplingResult:
        """Draw one sample per label; the arguments are those of ``SpeculativeSampler.sample``."""
        y, seeds, x = check_request(self.teacher, labels, seed, shape)
        teacher = _guided(self.teacher, self.guidance)
        table, N = Table.of(self.schedule, x.device), len(self.schedule)
        recorder = Recorder(N, seeds)
        samples = torch.arange(len(y), device=x.device)
        one = torch.ones_like(samples)
        with progress_bar(progress, N * len(y)) as report_progress:
            for step in range(N):
                k = step * one
                with recorder.phase("teacher"):
                    eps = teacher(x, table.timesteps[k], y).eps
                    require_finite(eps, "teacher", k, samples)
                with recorder.phase("bookkeeping"):
                    noise = random.normal(seeds, k, k, Purpose.TARGET, x.shape[1:])
                    x = table.mean(k, x, eps) + table.sigma[step] * noise
                    recorder.round(samples, k, one, one - 1)
                    report_progress(len(y))
        return SamplingResult(x, recorder.finish())


class SpeculativeSampler:
    """Draws from the plain sampler's law in fewer rounds (supplement, section B).

    A round drafts ``window - 1`` states, evaluates the teacher on them and on the current
    state in one call, keeps the longest prefix that reflection maximal coupling accepts and
    repairs the first failure. It advances each sample by 1 to ``window`` transitions.

    Parameters
    ----------
    teacher : callable
        ``teacher(x [R, ...], t [R], y [R]) -> TeacherOutput``.
    drafter : Drafter or None
        None needs ``window=1``.
    schedule : Schedule
    window : int
        Teacher rows of a round, >= 1; 1 is the plain sampler.
    cfg_scale : float
        Classifier-free guidance; 1 is none. Otherwise the teacher needs ``null_label``.
    cfg_channels : int or None
        How many leading channels are guided; None for all, 3 for the original DiT's figures.
    verifier : {"reflection"}

    Raises
    ------
    ValueError
        If an argument is out of its range, or a transition before the last is
        deterministic (no noise, no coupling) and ``window`` is not 1.
    """

    def __init__(
        self,
        teacher: Teacher,
        drafter: Drafter | None,
        schedule: Schedule,
        window: int = 8,
        cfg_scale: float = 1.0,
        cfg_channels: int | None = None,
        verifier: str = "reflection",
    ) -> None:
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ValueError(f"window must be an integer >= 1, got {window!r}")
        if window > 1 and not isinstance(drafter, Drafter):
            raise TypeError(
                "drafter must have begin, predict and carry_from for window > 1, "
                f"got {type(drafter).__name__}"
            )
        if window > 1 and (schedule.sigma[:-1] == 0).any():
            raise ValueError(
                "schedule must have sigma > 0 before its last transition to be speculated, "
                f"got sigma = 0 at step {int((schedule.sigma[:-1] == 0).argmax())}"
            )
        check_verifier(verifier)
        self.teacher = teacher
        self.drafter = drafter
        self.schedule = schedule
        self.window = window
        self.guidance = _guidance(teacher, cfg_scale, cfg_channels)
        self.verifier = verifier

    @torch.no_grad()
    def sample(
        self,
        labels: Labels,
        seed: Seeds = 0,
        shape: Sequence[int] | None = None,
        progress: Progress = False,
    ) -> SamplingResult:
        """Draw one sample per label.

        Parameters
        ----------
        labels : Tensor or sequence of int, shape [B]
            Classes, ``0 .. num_classes``; the last is the null class.
        seed : int, or Tensor or sequence of int of shape [B]
            64-bit noise seeds; with one integer, sample ``i`` has ``seed + i``.
        shape : sequence of int, optional
            Shape of one sample; default ``teacher.sample_shape``.
        progress : bool or callable
            True shows a bar; a function is called with the number of transitions made.

        Returns
        -------
        SamplingResult
            ``samples [B, ...]`` and the report.

        Raises
        ------
        ValueError
            If the request is malformed.
        FloatingPointError
            If a network returns NaN or inf; names the step and the samples.
        """
        y, seeds, x = check_request(self.teacher, labels, seed, shape)
        teacher = _guided(self.teacher, self.guidance)
        table, N = Table.of(self.schedule, x.device), len(self.schedule)
        recorder = Recorder(N, seeds)
        predict = recorder.counted(getattr(self.drafter, "predict", None))
        if self.drafter is not None:
            self.drafter.begin(DraftingBatch(table, self.guidance))

        result = torch.empty_like(x)
        samples = torch.arange(len(y), device=x.device)  # the unfinished ones
        k, rounds = torch.zeros_like(samples), torch.zeros_like(samples)
        carry, W = None, 1  # nothing is verified yet to draft from: one row in the first round
        with progress_bar(progress, N * len(y)) as report_progress:
            while len(samples):
                with recorder.phase("bookkeeping"):
                    length = window_lengths(k, W, N)
                    z, u, fresh = _round_noise(seeds, k, rounds, length, x.shape[1:])
                with recorder.phase("draft"):
                    states, draft_means = draft_window(predict, table, x, k, y, carry, z, length)
                with recorder.phase("teacher"):
                    b, j = _real_rows(length)
                    x_rows, k_rows = states[b, j], k[b] + j
                    out = teacher(x_rows, table.timesteps[k_rows], y[b])
                    require_finite(out.eps, "teacher", k_rows, samples[b])
                with recorder.phase("verify"):
                    means = torch.zeros_like(states)
                    means[b, j] = table.mean(k_rows, x_rows, out.eps)
                    sigma = states.new_ones(states.shape[:2])
                    sigma[b, j] = table.sigma[k_rows]
                    x, advance, accepted, _ = verify_window(
                        states, draft_means, means, sigma, length, u, fresh, self.verifier
                    )
                with recorder.phase("bookkeeping"):
                    recorder.round(samples, k, length, accepted)
                    report_progress(int(advance.sum()))
                    k, rounds, W = k + advance, rounds + 1, self.window
                    going = k < N
                    result[samples[~going]] = x[~going]
                    # The teacher row of the last transition made is where drafting starts.
                    kept = (length.cumsum(0) - length + advance - 1)[going]
                    if W > 1 and self.drafter is not None and len(kept):
                        carry = self.drafter.carry_from(TeacherRows(*out, x_rows, k_rows), kept)
                    live = (samples, seeds, x, k, rounds, y)
                    samples, seeds, x, k, rounds, y = (column[going] for column in live)
        return SamplingResult(result, recorder.finish())


def _guidance(teacher: Teacher, scale: float, channels: int | None) -> Guidance | None:
    guidance = Guidance(scale, channels, getattr(teacher, "null_label", 0))
    if scale == 1.0:
        return None
    null_label = getattr(teacher, "null_label", None)
    if null_label is None:
        raise ValueError(
            f"teacher must have a null_label to be guided (cfg_scale {scale}), got {teacher!r}"
        )
    return guidance


def _guided(teacher: Teacher, guidance: Guidance | None) -> Teacher:
    return GuidedTeacher(checked(teacher), guidance) if guidance else checked(teacher)


def _round_noise(
    seeds: Tensor, k: Tensor, rounds: Tensor, length: Tensor, shape: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Noises [B, W-1, ...] and uniforms [B, W-1] of the drafts, and the noise [B, ...] of the
    transition that is sampled from the target if every draft is accepted.
    """
    batch, drafts = len(k), int(length.max()) - 1
    at = (k[:, None] + torch.arange(drafts, device=k.device)).flatten()
    of = (seeds.repeat_interleave(drafts), at, rounds.repeat_interleave(drafts))
    z = random.normal(*of, Purpose.DRAFT, shape).view(batch, drafts, *shape)
    u = random.uniform(*of, Purpose.DECISION, ()).view(batch, drafts)
    return z, u, random.normal(seeds, k + length - 1, rounds, Purpose.TARGET, shape)


def _real_rows(length: Tensor) -> tuple[Tensor, Tensor]:
    """Sample and position of every row within its sample's length, sample by sample."""
    inside = torch.arange(int(length.max()), device=length.device) < length[:, None]
    b, j = inside.nonzero(as_tuple=True)
    return b, j
