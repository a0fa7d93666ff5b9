"""Devices that this machine has."""

from __future__ import annotations

import torch

__all__ = ["find_device"]


def find_device(text: str, argument: str = "device") -> torch.device:
    """A device that this machine has.

    Parameters
    ----------
    text : str
        As ``torch.device`` takes it.
    argument : str
        What the error calls it.

    Raises
    ------
    ValueError
        If torch cannot put a tensor there; says why.
    """
    try:
        device = torch.device(text)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises all three
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{argument} must be one that this machine has, got {text!r}: {reason}"
        ) from error
    return device
