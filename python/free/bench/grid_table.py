"""The rows of a sweep in words: what differs between settings, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from free.bench.columns import aligned, drop_empty, with_interval
from free.bench.grid import LAW
from free.evaluation.bootstrap import QUANTILE


def varied(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of what is not the same in all of them.

    The sequential sampler stands for itself: its window and drafting do not count beside others.
    """
    speculative = [setting for setting in settings if setting["window"] != 1]
    return [
        name
        for name in settings[0]
        if len({str(s[name]) for s in (settings if name in LAW else speculative)}) > 1
    ]


def label(setting: Mapping[str, Any], names: Sequence[str]) -> str:
    """Its values of these names, in words."""
    if setting["window"] == 1:
        own = [_word(name, setting[name]) for name in names if name in LAW]
        return ", ".join(["sequential", *own])
    return ", ".join(_word(name, setting[name]) for name in names)


def _word(name: str, value: Any) -> str:
    """One value in words."""
    if name == "sde":
        return "SDE" if value else "DDPM"
    if name == "relax" and value == "none":
        return "exact"
    if name == "steps":
        return f"{value} steps"
    if name == "sweeps" and value is None:
        return "autoregression"
    if name == "recycle":
        return f"recycled: {value}" if value else "nothing recycled"
    if name in ("relax", "variance", "verifier", "law"):
        return str(value)
    return f"{name} {value}"


def describe(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table, a line for each row: ± is a standard error, brackets hold 95 % intervals."""
    names = varied([row["setting"] for row in rows]) or ["window"]
    table = [["", "rounds", "steps/round", "accepted", "s/image", "Frechet", "named right",
              "tv_bound", "tv_estimate"]]  # fmt: skip
    for row in rows:
        quality = row["quality"] or {}
        accepted = row["acceptance"]
        table.append(
            [
                label(row["setting"], names),
                _with_error(row["rounds"], ".1f"),
                f"{row['steps_a_round']:.2f}",
                "" if accepted is None else f"{100 * accepted:.1f} %",
                f"{row['seconds']:.3f}",
                with_interval(**quality["frechet"], form=".1f") if "frechet" in quality else "",
                with_interval(**quality["accuracy"], form=".3f") if "accuracy" in quality else "",
                _with_error(row["tv_bound"], ".3g"),
                _with_error(row["tv_estimate"], ".2f"),
            ]
        )
    return aligned(drop_empty(table))


def _with_error(figure: Mapping[str, Any], form: str) -> str:
    """A mean with its standard error, where there is one."""
    value, low, high = figure["value"], figure["low"], figure["high"]
    if low is None or high == low:
        return format(value, form)
    return f"{value:{form}} ± {(high - low) / (2 * QUANTILE):{form}}"
