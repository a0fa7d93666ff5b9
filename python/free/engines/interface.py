"""What a graph takes and gives, and what runs it.

Exporters write contracts, engines check files and calls against them, parity checks draw inputs
from them. Nothing here knows a network or an engine.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

_DTYPES = {"float32": torch.float32, "int64": torch.int64, "bool": torch.bool}


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One input or output.

    Parameters
    ----------
    name : str
    dtype : {"float32", "int64", "bool"}
    shape : tuple of int or str
        A string is the name of an axis whose size may change from call to call.
    low, high : float
        Of an input: where its values lie. Integers are in ``low .. high - 1``; of floats the
        default is the whole line.
    below : tuple of str
        Axes that integers index into, one after the other; then ``high`` is their size.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    low: float = -math.inf
    high: float = math.inf
    below: tuple[str, ...] = ()

    def sized(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape where axes have these sizes."""
        return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in self.shape)


@dataclasses.dataclass(frozen=True)
class Profile:
    """Sizes of one axis: what must work, and what to tune for."""

    minimum: int
    optimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise ValueError(
                "profile must satisfy 1 <= minimum <= optimum <= maximum, "
                f"got {self.minimum}, {self.optimum}, {self.maximum}"
            )


@dataclasses.dataclass(frozen=True)
class Contract:
    """Inputs and outputs of a graph, in order, and the ranges of its axes.

    Parameters
    ----------
    graph : str
        Its name, and that of its file.
    inputs, outputs : tuple of TensorSpec
    axes : dict of str to Profile
        Every axis that a shape names.
    """

    graph: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: dict[str, Profile]

    def sizes(self, inputs: Mapping[str, Tensor]) -> dict[str, int]:
        """Sizes of the axes in a call.

        Raises
        ------
        ValueError
            If an input is missing or unexpected, of another type or shape than agreed, or an
            axis is outside its profile.
        """
        names = [spec.name for spec in self.inputs]
        if inputs.keys() != set(names):
            raise ValueError(f"{self.graph} must be given {names}, got {list(inputs)}")
        sizes: dict[str, int] = {}
        for spec in self.inputs:
            value = inputs[spec.name]
            fits = value.dim() == len(spec.shape) and all(
                sizes.get(axis, size) == size if isinstance(axis, str) else axis == size
                for axis, size in zip(spec.shape, value.shape, strict=True)
            )
            if not fits or value.dtype is not _DTYPES[spec.dtype]:
                shape = ", ".join(
                    f"{axis} = {sizes[axis]}" if axis in sizes else str(axis) for axis in spec.shape
                )
                dtype = str(value.dtype).removeprefix("torch.")
                raise ValueError(
                    f"{spec.name} of {self.graph} must be {spec.dtype} of shape [{shape}], "
                    f"got {dtype} of {list(value.shape)}"
                )
            pairs = zip(spec.shape, value.shape, strict=True)
            sizes |= {axis: size for axis, size in pairs if isinstance(axis, str)}
        for axis, size in sizes.items():
            profile = self.axes[axis]
            if not profile.minimum <= size <= profile.maximum:
                remedy = ": export with a larger --window or --max-batch"
                raise ValueError(
                    f"{axis} of {self.graph} must be in {profile.minimum}..{profile.maximum}, as "
                    f"it was exported, got {size}{remedy if size > profile.maximum else ''}"
                )
        return sizes

    def require_device(self, inputs: Mapping[str, Tensor], device: torch.device) -> None:
        """Raise a ValueError unless inputs are on ``device``; without an index, on any of its type.

        The address of another device's memory would mean nothing to an engine.
        """
        for name, value in inputs.items():
            if value.device.type != device.type or device.index not in (None, value.device.index):
                raise ValueError(f"{name} of {self.graph} must be on {device}, got {value.device}")

    def require_graph(
        self, path: str | Path, tensors: Mapping[str, tuple[str, tuple[int | str, ...]]]
    ) -> None:
        """Compare a file's inputs and outputs with what was agreed.

        Parameters
        ----------
        path : str or Path
            For the message.
        tensors : mapping of str to (str, tuple of int or str)
            Types and shapes by name; -1 is an axis of any size.

        Raises
        ------
        ValueError
            If one is missing, unexpected, or of another type or shape.
        """
        agreed = {spec.name: spec for spec in (*self.inputs, *self.outputs)}
        if tensors.keys() != agreed.keys():
            raise ValueError(
                f"{path} must be the graph {self.graph} with {', '.join(agreed)}, got "
                f"{', '.join(tensors) or 'an empty one'}"
            )
        for name, (dtype, shape) in tensors.items():
            spec = agreed[name]
            fits = len(shape) == len(spec.shape) and all(
                size in (-1, axis) for axis, size in zip(spec.shape, shape, strict=True)
            )
            if not fits or dtype != spec.dtype:
                raise ValueError(
                    f"{name} in {path} must be {spec.dtype} of shape {list(spec.shape)}, as in the "
                    f"contract of {self.graph}, got {dtype} of {list(shape)}"
                )

    def corners(self) -> list[dict[str, int]]:
        """Sizes at which a check is worth most: all axes smallest, as tuned for, and largest."""
        corners: list[dict[str, int]] = []
        for end in ("minimum", "optimum", "maximum"):
            sizes = {axis: getattr(profile, end) for axis, profile in self.axes.items()}
            if sizes not in corners:
                corners.append(sizes)
        return corners

    def sample_inputs(self, sizes: Mapping[str, int], seed: int = 0) -> dict[str, Tensor]:
        """Random inputs of these sizes, on the CPU: normals, or uniform where there are bounds."""
        generator = torch.Generator().manual_seed(seed)
        uniform = partial(torch.rand, generator=generator, dtype=torch.float32, device="cpu")
        normal = partial(torch.randn, generator=generator, dtype=torch.float32, device="cpu")
        integers = partial(torch.randint, generator=generator, dtype=torch.int64, device="cpu")
        drawn = {}
        for spec in self.inputs:
            shape = spec.sized(sizes)
            high = sum(sizes[axis] for axis in spec.below) if spec.below else spec.high
            if spec.dtype == "bool":
                drawn[spec.name] = uniform(shape) < 0.5
            elif spec.dtype == "int64":
                low = int(max(spec.low, 0))
                drawn[spec.name] = integers(low, int(high), shape)
            elif math.isinf(high):
                drawn[spec.name] = normal(shape)
            else:
                drawn[spec.name] = spec.low + (high - spec.low) * uniform(shape)
        return drawn

    def empty_outputs(self, sizes: Mapping[str, int], device: torch.device) -> dict[str, Tensor]:
        """Uninitialised outputs for a call with these sizes."""
        return {
            spec.name: torch.empty(spec.sized(sizes), dtype=_DTYPES[spec.dtype], device=device)
            for spec in self.outputs
        }

    def to_record(self) -> dict[str, Any]:
        """The contract as JSON values."""
        record = dataclasses.asdict(self)
        for spec in (*record["inputs"], *record["outputs"]):
            for bound in ("low", "high"):
                if math.isinf(spec[bound]):
                    del spec[bound]
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Contract:
        """The inverse of :meth:`to_record`.

        Raises
        ------
        ValueError
            If the record is not of this form.
        """
        try:
            specs = {
                side: tuple(
                    TensorSpec(
                        **{**spec, "shape": tuple(spec["shape"]), "below": tuple(spec["below"])}
                    )
                    for spec in record[side]
                )
                for side in ("inputs", "outputs")
            }
            axes = {axis: Profile(**sizes) for axis, sizes in record["axes"].items()}
            contract = cls(record["graph"], axes=axes, **specs)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"contract must have graph, inputs, outputs and axes: {error!r}"
            ) from error
        for spec in (*contract.inputs, *contract.outputs):
            named = [axis for axis in spec.shape if isinstance(axis, str)]
            unknown = {*named, *spec.below} - contract.axes.keys()
            if unknown or spec.dtype not in _DTYPES:
                raise ValueError(
                    f"{spec.name} of {contract.graph} must have a dtype of {list(_DTYPES)} and "
                    f"axes of {list(contract.axes)}, got {spec.dtype} and "
                    f"{[*spec.shape, *spec.below]}"
                )
        return contract


class Session(Protocol):
    """One graph, ready to run on an engine.

    Attributes
    ----------
    contract : Contract
    device : torch.device
        Where inputs are and outputs come.
    """

    contract: Contract
    device: torch.device

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph.

        Parameters
        ----------
        inputs : mapping of str to Tensor
            Those of the contract, on ``device``.

        Returns
        -------
        dict of str to Tensor
            The outputs, in memory of their own.

        Raises
        ------
        ValueError
            If an input is not as agreed.
        """
