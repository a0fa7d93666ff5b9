"""Devices: which ones can be had, and where networks are."""

from __future__ import annotations

from typing import Any

import torch

from free.ops import require_kernels

__all__ = ["device_of", "find_device", "require_device"]


def find_device(
    name: torch.device | str, argument: str = "device", kernels: bool = True
) -> torch.device:
    """A device that can be worked on here.

    Parameters
    ----------
    name : torch.device or str
    argument : str
        What the error calls it.
    kernels : bool
        Whether this package's own kernels are needed there, as for all sampling and training.

    Raises
    ------
    ValueError
        If torch cannot put a tensor there, or the kernels are needed and are not in this build or
        not for this GPU; says why, and what helps.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises all three
        reason = str(error).splitlines()[0]
        if reason.startswith("Expected one of"):
            reason = "expected cpu, cuda or cuda:0, say"
        elif "cuda" in str(name) and torch.version.cuda is None:
            reason = (
                "Torch not compiled with CUDA enabled: take cpu, or install a torch that is built "
                "with CUDA (pytorch.org)"
            )
        raise _absent(argument, name, reason) from error
    if kernels and device.type == "cuda":
        try:
            require_kernels(device)
        except RuntimeError as error:
            raise _absent(argument, name, str(error).splitlines()[0]) from error
    return device


def _absent(argument: str, name: torch.device | str, reason: str) -> ValueError:
    return ValueError(f"{argument} must be one that this machine has, got {str(name)!r}: {reason}")


def device_of(network: Any) -> torch.device | None:
    """Where a network is: a module's first weight, else its attribute ``device``; None for what
    has neither.
    """
    if isinstance(network, torch.nn.Module):
        weight = next(network.parameters(), None)
        if weight is not None:
            return weight.device
    device = getattr(network, "device", None)
    return None if device is None else torch.device(device)


def require_device(device: torch.device, **networks: Any) -> None:
    """Refuse networks that are not where the states are.

    Parameters
    ----------
    device : torch.device
        Of the states: the teacher's, or the labels' if the teacher does not tell.
    **networks
        By the name that an error calls them; those that do not tell where they are pass.

    Raises
    ------
    ValueError
        Naming both devices.
    """
    for name, network in networks.items():
        place = device_of(network)
        if place is not None and not _same(place, device):
            raise ValueError(
                f"{name} must be on the device of teacher and states, {device}, got {place}"
            )


def _same(one: torch.device, other: torch.device) -> bool:
    """Whether they are one; without an index it is the current one, which may be any."""
    return one.type == other.type and (None in (one.index, other.index) or one.index == other.index)
