"""Rows of a pipeline's network calls: what it is asked about B samples, about any states of theirs.

A call has ``m B`` rows, B samples in each of m branches (with the prompt and without). It is built
of tensors, lists with one entry a row, and containers. Nothing is known here of what they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """What is in a tree of containers, each with where it is, as a message names it."""
    if isinstance(tree, dict):
        for key, part in tree.items():
            yield from leaves(part, f"{path}[{key!r}]")
    elif isinstance(tree, (list, tuple)):
        for place, part in enumerate(tree):
            yield from leaves(part, f"{path}[{place}]")
    else:
        yield path, tree


@dataclass(frozen=True)
class Rows:
    """What has ``count`` rows in a tree: tensors along their first axis, and lists.

    A list of tensors is one of rows if the network is given its states as such (``listed``), else
    a container of tensors.
    """

    count: int
    listed: bool

    def in_list(self, tree: Any) -> bool:
        """Whether it is a list of rows."""
        if not isinstance(tree, list) or len(tree) != self.count:
            return False
        return self.listed or not all(isinstance(part, Tensor) for part in tree)

    def in_tensor(self, tree: Any) -> bool:
        """Whether it is a tensor of rows."""
        return isinstance(tree, Tensor) and tree.dim() > 0 and tree.shape[0] == self.count

    def take(self, tree: Any, places: Tensor) -> Any:
        """``places`` of everything that has rows; the rest as it is."""
        if self.in_tensor(tree):
            return tree[places.to(tree.device)]
        if self.in_list(tree):
            return [tree[place] for place in places.tolist()]
        return _rebuilt(tree, lambda part: self.take(part, places))

    def append(self, tree: Any, branches: int, extra: Any) -> Any:
        """One row more at the end of each branch: those of ``extra``, which is built alike."""
        if self.in_tensor(tree):
            blocks = tree.unflatten(0, (branches, -1))
            return torch.cat([blocks, extra.unsqueeze(1).to(tree.dtype)], dim=1).flatten(0, 1)
        if self.in_list(tree):
            made = []
            for branch, last in zip(_branches(tree, branches), extra, strict=True):
                made += [*branch, last]
            return made
        return _rebuilt(tree, lambda part, other: self.append(part, branches, other), extra)

    def pack(self, tree: Any, branches: int, packing: Tensor) -> Any:
        """Lists of rows as lists of one entry a sample: its rows, one after the other in axis 0.

        For pipelines that loop over their samples. ``packing [B, P]`` says which rows of a branch
        are a sample's; see :func:`packing_of`.
        """
        if self.in_list(tree):
            return [
                torch.cat([branch[row] for row in sample])
                for branch in _branches(tree, branches)
                for sample in packing.tolist()
            ]
        return _rebuilt(tree, lambda part: self.pack(part, branches, packing))


def _branches(rows: list[Any], branches: int) -> list[list[Any]]:
    size = len(rows) // branches
    return [rows[place * size : (place + 1) * size] for place in range(branches)]


def packing_of(owner: Tensor, samples: int) -> Tensor:
    """Which rows are each sample's, [B, P] on the CPU: those of ``owner [R]``, sorted, then row R.

    Every sample has at least one row R.
    """
    counts = owner.cpu().bincount(minlength=samples)
    first = counts.cumsum(0) - counts
    place = torch.arange(int(counts.max()) + 1, device="cpu")
    return torch.where(place < counts[:, None], first[:, None] + place, len(owner))


def _rebuilt(tree: Any, function: Callable[..., Any], *others: Any) -> Any:
    """A container like ``tree`` of ``function`` of its parts, and of those in their place."""
    if isinstance(tree, dict):
        parts = {key: function(part, *(o[key] for o in others)) for key, part in tree.items()}
        # The outputs of diffusers and transformers are dataclasses, and dicts of what is not None.
        return parts if type(tree) is dict else type(tree)(**parts)
    if isinstance(tree, (list, tuple)):
        made = [function(*group) for group in zip(tree, *others, strict=True)]
        return type(tree)(*made) if hasattr(tree, "_fields") else type(tree)(made)
    return tree


class LatentsForm(NamedTuple):
    """How a pipeline turns latents ``[B, ...]`` into an argument of its network.

    They are repeated ``branches`` times, cast, given axes of length 1 or followed by more channels,
    or handed over as a list of rows.
    """

    branches: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    listed: bool

    @classmethod
    def of(cls, argument: Any, latents: Tensor) -> LatentsForm | None:
        """The form of an argument that was made of these latents; None if it was not."""
        listed = isinstance(argument, list)
        value = argument
        if listed:
            same = all(isinstance(r, Tensor) and r.shape == argument[0].shape for r in argument)
            value = torch.stack(argument) if argument and same else None
        samples = len(latents)
        if not isinstance(value, Tensor) or value.dim() < 2 or not value.is_floating_point():
            return None
        if value.shape[0] % samples or not value.shape[0]:
            return None
        form = cls(value.shape[0] // samples, value.dtype, tuple(value.shape[1:]), listed)
        return form if form._fits(latents) and form.holds(argument, latents) else None

    def _fits(self, latents: Tensor) -> bool:
        own, rest = self.shape, tuple(latents.shape[1:])
        if len(own) == len(rest) and own[0] > rest[0] and not self.listed:
            return own[1:] == rest[1:]
        return [n for n in own if n > 1] == [n for n in rest if n > 1]

    def holds(self, argument: Any, latents: Tensor) -> bool:
        """Whether the argument is what becomes of these latents, bit for bit."""
        value = torch.stack(argument) if self.listed else argument
        blocks = value.unflatten(0, (self.branches, -1))
        if self.extended(latents):
            blocks = blocks[:, :, : latents.shape[1]]
        expected = latents.to(self.dtype)
        return torch.equal(
            blocks.reshape(self.branches, *expected.shape),
            expected.expand(self.branches, *expected.shape),
        )

    def extended(self, latents: Tensor) -> bool:
        """Whether other channels follow those of the latents."""
        own = self.shape
        return not self.listed and len(own) == latents.dim() - 1 and own[0] > latents.shape[1]

    def make(self, states: Tensor, argument: Any, samples: int, owner: Tensor) -> Any:
        """The argument for ``states [R, ...]`` of the samples ``owner [R]``, in each branch.

        ``argument`` was for ``samples`` latents; channels that follow theirs are taken from it.
        """
        rows = states.to(self.dtype)
        rows = rows.expand(self.branches, *rows.shape).flatten(0, 1)
        if self.extended(states):
            rest = argument[places(owner, samples, self.branches).to(argument.device)]
            rows = torch.cat([rows, rest[:, rows.shape[1] :]], dim=1)
        rows = rows.reshape(len(rows), *self.shape)
        return list(rows.unbind()) if self.listed else rows


def places(owner: Tensor, samples: int, branches: int) -> Tensor:
    """Rows of a call of ``samples`` in ``branches`` that belong to ``owner [R]``: [m R]."""
    offset = torch.arange(branches, device=owner.device) * samples
    return (offset[:, None] + owner).flatten()
