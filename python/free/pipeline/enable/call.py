"""A network call that a pipeline makes in every step: what stays of it, and what rows change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from free.arguments import shortened
from free.pipeline.enable.checks import INSTEAD
from free.pipeline.enable.network import UNBATCHED, Arguments, Network, with_values
from free.pipeline.enable.rows import LatentsForm, Rows, leaves, packing_of, places
from free.pipeline.enable.timestep import NAMES, TimestepForm


class NetworkCall:
    """A call as the pipeline makes it, recognised in the first round.

    Parameters
    ----------
    network : Network
    arguments, output
        Of the first round.
    latents : Tensor, shape [B, ...]
        What the pipeline had then.
    timestep : Tensor, scalar
        What it was told the time is.
    forms : TimestepForm

    Raises
    ------
    ValueError
        If no argument is the latents, or none the timestep; names the network.
    """

    def __init__(
        self,
        network: Network,
        arguments: Arguments,
        output: Any,
        *,
        latents: Tensor,
        timestep: Tensor,
        forms: TimestepForm,
    ) -> None:
        self._network, self._first = network, arguments
        self._values = network.named(arguments)
        kind = network.kind
        found = {name: LatentsForm.of(value, latents) for name, value in self._values.items()}
        self._latents = next((name for name, form in found.items() if form is not None), "")
        form = found.get(self._latents)
        if form is None:
            raise ValueError(
                f"the pipeline must give {kind} the latents that scheduler.step is given (through "
                "scale_model_input where the law scales them; cast, repeated, or followed by other "
                f"channels), got none of these among {', '.join(self._values)}"
            )
        self._form = form
        self._timestep = next((name for name in NAMES if name in self._values), "")
        if not self._timestep:
            raise ValueError(
                f"{kind} must be told the time as one of {', '.join(NAMES)}, got "
                f"{', '.join(self._values)}"
            )
        self._times = forms
        forms.recognise(self._values[self._timestep], timestep, self._timestep)
        self.samples = len(latents)
        self._rows = Rows(form.branches * len(latents), form.listed)
        self._versions, self._copies = self._versions_now(), [t.clone() for t in self._unversioned]
        first = torch.zeros(1, dtype=torch.int64, device="cpu")
        self._sentinel = self._rows.take(output, places(first, self.samples, form.branches))
        self._owner: Tensor | None = None
        self._kept: dict[str, Any] = {}

    @property
    def listed(self) -> bool:
        """Whether the network is given a list of rows, and returns one."""
        return self._form.listed

    @property
    def shapes(self) -> list[str]:
        """Shapes of what the network is given: what its time depends on, besides the rows."""
        return [
            f"{name}{path}: {list(leaf.shape)} {leaf.dtype}"
            for name, value in self._values.items()
            for path, leaf in leaves(value)
            if isinstance(leaf, Tensor)
        ]

    def expand(
        self, arguments: Arguments, given: Tensor, timestep: Tensor, rows: tuple[Tensor, ...]
    ) -> Arguments:
        """What to ask the network about ``rows``: states, their timesteps, and their samples.

        ``arguments`` are the pipeline's, which was ``given`` the latents [B, ...] and told that
        the time is ``timestep``.

        Raises ValueError if they are not what they were in the first round; names the argument.
        """
        values = self._network.named(arguments)
        self._require_unchanged(values, given)
        self._times.recognise(values[self._timestep], timestep, self._timestep)
        return with_values(arguments, self._expanded(*rows))

    def ask(self, states: Tensor, timesteps: Tensor, owner: Tensor) -> Any:
        """Call the network about such rows, beside the pipeline."""
        return self._network(with_values(self._first, self._expanded(states, timesteps, owner)))

    def repeat(self) -> Any:
        """Call the network again as the pipeline did in the first round."""
        return self._network(self._first)

    def with_sentinel(self, output: Any, owner: Tensor) -> Any:
        """An output for rows of ``owner [R]``, and one row more: what the first sample was told
        in the first round.

        Lists have an entry for each sample, of its rows and this one (:func:`.rows.pack`): a
        pipeline that is told lists knows how many there are.
        """
        branches, rows = self._form.branches, len(owner)
        longer = Rows(branches * rows, self.listed).append(output, branches, self._sentinel)
        if not self.listed:
            return longer
        packing = packing_of(owner, self.samples)
        return Rows(branches * (rows + 1), self.listed).pack(longer, branches, packing)

    def row(self, output: Any, rows: int, place: int) -> Any:
        """What an output for ``rows`` states says about one of them, in each branch."""
        at = torch.tensor([place], dtype=torch.int64, device="cpu")
        branches = self._form.branches
        return Rows(branches * rows, self.listed).take(output, places(at, rows, branches))

    def _expanded(self, states: Tensor, timesteps: Tensor, owner: Tensor) -> dict[str, Any]:
        branches = self._form.branches
        if self._owner is None or not torch.equal(owner, self._owner):
            at = places(owner, self.samples, branches)
            self._kept = {
                name: value if name in UNBATCHED else self._rows.take(value, at)
                for name, value in self._values.items()
                if name not in (self._latents, self._timestep)
            }
            self._owner = owner
        own = self._values[self._latents]
        return {
            **dict.fromkeys(self._values),
            **self._kept,
            self._latents: self._form.make(states, own, self.samples, owner),
            self._timestep: self._times.make(
                self._values[self._timestep], timesteps.to(states.device), branches
            ),
        }

    def _require_unchanged(self, values: dict[str, Any], given: Tensor) -> None:
        kind = self._network.kind
        if list(values) != list(self._values):
            raise ValueError(
                f"{kind} must be given the same arguments in every step, got "
                f"{', '.join(values)} and before {', '.join(self._values)}"
            )
        latents = values[self._latents]
        if not self._alike(latents, self._values[self._latents]) or not self._form.holds(
            latents, given
        ):
            raise ValueError(
                f"{self._latents} of {kind} must be the latents as scheduler.step returned them, "
                "got others: the pipeline, or a callback, changes them between steps (as blending "
                f"for inpainting does), so that its law is not the scheduler's: {INSTEAD}"
            )
        if self._form.extended(given):
            values = {**values, self._latents: self._rest(latents, given)}
        for name, value in values.items():
            if name == self._timestep or (name == self._latents and not self._form.extended(given)):
                continue
            before = self._values[name]
            if name == self._latents:
                before = self._rest(before, given)
            self._require_same(f"{name} of {kind}", value, before)
        if self._versions != self._versions_now() or not all(
            map(torch.equal, self._unversioned, self._copies)
        ):
            raise ValueError(
                f"arguments of {kind} must not change from step to step, got a tensor that was "
                f"written to: leave it as it is, or {INSTEAD}"
            )

    def _rest(self, argument: Any, given: Tensor) -> Tensor:
        value = torch.stack(argument) if isinstance(argument, list) else argument
        return value[:, given.shape[1] :]

    @staticmethod
    def _alike(value: Any, before: Any) -> bool:
        if isinstance(value, list):
            return isinstance(before, list) and len(value) == len(before)
        return isinstance(value, Tensor) and value.shape == before.shape

    @staticmethod
    def _require_same(name: str, value: Any, before: Any) -> None:
        if value is before:
            return
        own, old = list(leaves(value)), list(leaves(before))
        for (path, leaf), (other, kept) in zip(own, old, strict=False):
            if path != other or not _same(leaf, kept):
                raise ValueError(
                    f"{name}{path} must not change from step to step, so that rows of several "
                    f"steps can be asked about at once, got {_shown(leaf)} after {_shown(kept)}: "
                    f"keep it as it is, or {INSTEAD}"
                )
        if len(own) != len(old):
            raise ValueError(f"{name} must not change from step to step, got other parts")

    @property
    def _lasting(self) -> list[Tensor]:
        """The tensors that must stay as they were in the first round."""
        return [
            leaf
            for name, value in self._values.items()
            for _, leaf in leaves(value)
            if name not in (self._latents, self._timestep) and isinstance(leaf, Tensor)
        ]

    def _versions_now(self) -> list[int]:
        """How often each has been written to."""
        return [leaf._version for leaf in self._lasting if not leaf.is_inference()]

    @property
    def _unversioned(self) -> list[Tensor]:
        """Those of which that is not known: they are compared with copies."""
        return [leaf for leaf in self._lasting if leaf.is_inference()]


def _same(value: Any, before: Any) -> bool:
    if value is before:
        return True
    if isinstance(value, Tensor) and isinstance(before, Tensor):
        return (
            value.dtype == before.dtype
            and value.device == before.device
            and torch.equal(value, before)
        )
    try:
        return type(value) is type(before) and bool(value == before)
    except (TypeError, ValueError, RuntimeError):
        return False


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return shortened(value)
