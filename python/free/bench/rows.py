"""The rows of ``free bench``: a table of samplers."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from free.rounds.relaxation import Relaxation

PLAIN = "plain"
#: Rows of the paper's windows.
PAPER_WINDOW = 8
#: The most that any row, and an automatic window, has.
WIDEST = 32
_WINDOWS = (2, 4, 8, 16, WIDEST, "auto")
_RELAXATION = Relaxation("allow", 0.3, 0.05)


class Row(NamedTuple):
    """A sampler of the table, named as ``--rows`` calls it.

    Attributes
    ----------
    method : str
        Rows of one method differ in the window, or what they recycle, alone.
    label : str
        What tables call it.
    window : int or "auto"
        1 is the plain sampler.
    drafter : {"own", "trained", "image", "eps"} or None
        The model's, which has to be a trained one if it says so; or what
        :class:`free.FrozenDrafter` keeps; None for the plain sampler.
    sweeps, recycle, verifier, relaxation
        As of :class:`free.SpeculativeSampler`.
    deterministic : bool
        Sampled without noise, DDIM, whatever the law of the others.
    """

    name: str
    method: str
    label: str
    window: int | str = 1
    drafter: str | None = None
    sweeps: int | str | None = 1
    recycle: bool | str = False
    verifier: str = "reflection"
    relaxation: Relaxation | None = None
    deterministic: bool = False

    @property
    def lossless(self) -> bool:
        """Whether its law is that of the plain sampler."""
        return self.relaxation is None and not self.deterministic

    @property
    def settings(self) -> dict[str, Any]:
        """What a :class:`free.SpeculativeSampler` is given."""
        names = ("window", "sweeps", "recycle", "verifier", "relaxation")
        return {name: getattr(self, name) for name in names}


def _windows(name: str, method: str, label: str, drafter: str) -> list[Row]:
    return [
        Row(
            f"{name}-{window}",
            method,
            f"{label}, {'automatic W' if window == 'auto' else f'W = {window}'}",
            window,
            drafter,
            sweeps="auto" if window == "auto" else 1 if drafter == "own" else 0,
            recycle="response",
        )
        for window in _WINDOWS
    ]


ROWS: tuple[Row, ...] = (
    Row(PLAIN, "plain", "plain sampler"),
    Row("ddim", "ddim", "plain sampler, no noise", deterministic=True),
    Row("eps", "eps", "eps kept, W = 8", PAPER_WINDOW, "eps"),
    Row("eps-recycled", "eps", "eps kept, recycled, W = 8", PAPER_WINDOW, "eps", recycle="reuse"),
    Row("paper", "paper", "the paper's FREE, W = 8", PAPER_WINDOW, "trained", sweeps=None),
    *_windows("free", "trained", "FREE", "own"),
    *_windows("frozen", "recycled", "no training", "image"),
    Row("block", "block", "FREE, block, W = 8", PAPER_WINDOW, "own", verifier="block"),
    Row("relaxed", "relaxed", "FREE, relaxed, W = 16", 16, "own", recycle="response",
        relaxation=_RELAXATION),
)  # fmt: skip


def chosen_rows(patterns: str) -> list[Row]:
    """Rows by their names, in the table's order; the plain sampler is always among them.

    Patterns are names or shell patterns, ``"paper,free-*"``; a ValueError if one names no row.
    """
    names: set[str] = {PLAIN}
    for pattern in (part.strip() for part in patterns.split(",")):
        matches = {row.name for row in ROWS if fnmatchcase(row.name, pattern)}
        if not matches:
            every = ", ".join(row.name for row in ROWS)
            raise ValueError(f"--rows must be of {every}, or patterns of these, got {pattern!r}")
        names |= matches
    return [row for row in ROWS if row.name in names]
