"""Parsing that the commands share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import typer

from free.sources import SOURCES

__all__ = ["PAPER", "bad_input_to_usage_error", "drafting_settings", "parse_device", "parse_labels"]

#: The paper's settings, and those of a drafter that recommends none.
PAPER: dict[str, Any] = {"window": 8, "sweeps": None, "recycle": False}


def parse_labels(text: str) -> list[int]:
    """``"0-9"``, ``"3"``, ``"1,4-6"`` -> the labels.

    Raises
    ------
    ValueError
        If the text is not such a list.
    """
    labels: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ValueError(f"labels must look like 0-9 or 1,4-6, got {text!r}")
        labels.extend(range(first, last + 1))
    return labels


def drafting_settings(
    recommended: dict[str, Any],
    paper: bool,
    window: int | None,
    sweeps: int | None,
    recycle: str | None,
) -> dict[str, Any]:
    """``window``, ``sweeps`` and ``recycle`` of the sampler from the command line's options.

    Parameters
    ----------
    recommended : dict
        The drafter's own, where no option is given.
    paper : bool
        The paper's settings instead; only the window may be chosen besides.
    window, sweeps, recycle
        As given, or None. ``sweeps`` 0 is autoregression; ``recycle`` also takes "off" and
        "best".

    Raises
    ------
    ValueError
        If ``paper`` is joined by ``sweeps`` or ``recycle``, or ``recycle`` is none of these.
    """
    if paper and (sweeps is not None or recycle is not None):
        raise ValueError("--paper must come without --sweeps and --recycle, which it sets")
    settings = PAPER | ({} if paper else recommended)
    if window is not None:
        settings["window"] = window
    if sweeps is not None:
        settings["sweeps"] = sweeps or None
    if recycle is not None:
        if recycle not in (*SOURCES, "best", "off"):
            raise ValueError(
                f"--recycle must be one of {', '.join(SOURCES)}, best or off, got {recycle!r}"
            )
        settings["recycle"] = {"off": False, "best": True}.get(recycle, recycle)
    return settings


def parse_device(text: str) -> torch.device:
    """A device that this machine has.

    Raises
    ------
    ValueError
        If torch cannot put a tensor there; says why.
    """
    try:
        device = torch.device(text)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device must be one that this machine has, got {text!r}: {reason}"
        ) from error
    return device


@contextmanager
def bad_input_to_usage_error() -> Iterator[None]:
    """Show a ValueError as one line and exit with 2, instead of a traceback."""
    try:
        yield
    except (ValueError, ImportError) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(2) from error
