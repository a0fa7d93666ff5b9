"""The rows of a sweep in words: what differs between settings, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["describe", "label", "varied"]

_LAW = ("steps", "variance", "stochasticity", "sde")


def varied(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of what is not the same in all of them. The sequential sampler is one by itself: its
    window and its drafting do not count beside others.
    """
    drafted = [setting for setting in settings if setting["window"] != 1]
    return [
        name
        for name in settings[0]
        if len({str(s[name]) for s in (settings if name in _LAW else drafted)}) > 1
    ]


def label(setting: Mapping[str, Any], names: Sequence[str]) -> str:
    """Its values of these names, in words."""
    if setting["window"] == 1:
        own = [_word(name, setting[name]) for name in names if name in _LAW]
        return ", ".join(["sequential", *own])
    return ", ".join(_word(name, setting[name]) for name in names)


def _word(name: str, value: Any) -> str:
    """One value in words."""
    if name == "sde":
        return "SDE" if value else "DDPM"
    if name == "relax":
        return "exact" if value == "none" else str(value)
    if name == "steps":
        return f"{value} steps"
    if name == "sweeps":
        return "autoregression" if value is None else f"sweeps {value}"
    if name == "recycle":
        if value is False:
            return "nothing recycled"
        return "recycled: " + ("best so far" if value is True else value)
    if name in ("variance", "verifier"):
        return str(value)
    return f"{name} {value}"


def describe(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table, a line for each row: ± is a standard error, brackets hold 95 % intervals."""
    settings = [row["setting"] for row in rows]
    names = varied(settings)
    table = [["", "rounds", "steps/round", "accepted", "s/image", "Frechet", "named right",
              "tv_bound", "tv_estimate"]]  # fmt: skip
    for row in rows:
        quality = row["quality"] or {}
        accepted = row["acceptance"]
        table.append(
            [
                label(row["setting"], names or ["window"]),
                _spread(row["rounds"], "{:.1f}"),
                f"{row['steps_a_round']:.2f}",
                "" if accepted is None else f"{100 * accepted:.1f} %",
                f"{row['seconds']:.3f}",
                _interval(quality.get("frechet"), "{:.1f}"),
                _interval(quality.get("accuracy"), "{:.3f}"),
                _spread(row["tv_bound"], "{:.3g}"),
                _spread(row["tv_estimate"], "{:.2f}"),
            ]
        )
    used = [column for column in zip(*table, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in used]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in zip(*used, strict=True)
    ]


def _interval(figure: Mapping[str, float | None] | None, form: str) -> str:
    if figure is None or figure["value"] is None:
        return ""
    text = form.format(figure["value"])
    if figure["low"] is None or figure["high"] is None:
        return text
    return f"{text} [{form.format(figure['low'])}, {form.format(figure['high'])}]"


def _spread(figure: Mapping[str, float | None], form: str) -> str:
    """A mean with its standard error, where there is one."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    assert value is not None
    text = form.format(value)
    if low is None or high is None or high == low:
        return text
    return f"{text} ± {form.format((high - low) / (2 * 1.96))}"
