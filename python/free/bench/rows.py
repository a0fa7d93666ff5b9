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
_PARTS = (2, 4, 10)
_RELAXATION = Relaxation("allow", 0.3, 0.05)


class Row(NamedTuple):
    """A sampler of the table, named as ``--rows`` calls it.

    Attributes
    ----------
    group : str
        Which rows differ in one setting alone.
    label : str
        What tables call it.
    window : int or "auto"
        1 is the plain sampler.
    drafter : {"trained", "image", "eps"} or None
        The model's, or what :class:`free.FrozenDrafter` keeps; None for the plain sampler.
    sweeps, recycle, verifier, relaxation
        As of :class:`free.SpeculativeSampler`.
    part : int
        The schedule has one N-th of the steps asked for.
    stochasticity : float
        Of the schedule; 0 is DDIM.
    """

    name: str
    group: str
    label: str
    window: int | str = 1
    drafter: str | None = None
    sweeps: int | str | None = 1
    recycle: bool | str = False
    verifier: str = "reflection"
    relaxation: Relaxation | None = None
    part: int = 1
    stochasticity: float = 1.0

    @property
    def lossless(self) -> bool:
        """Whether its law is that of the plain sampler with all steps."""
        return self.part == 1 and self.stochasticity == 1.0 and self.relaxation is None

    def law(self, steps: int) -> str:
        """Name the distribution that it draws from, N being ``steps``: rows of one law share it."""
        if self.relaxation is not None:
            return self.name
        return f"{'DDPM' if self.stochasticity else 'DDIM'}, {steps // self.part} steps"

    @property
    def settings(self) -> dict[str, Any]:
        """What a :class:`free.SpeculativeSampler` is given."""
        names = ("window", "sweeps", "recycle", "verifier", "relaxation")
        return {name: getattr(self, name) for name in names}


def _fewer(name: str, stochasticity: float) -> list[Row]:
    group, label = f"{name.upper()}, fewer steps", f"{name.upper()}, N / {{}} steps"
    return [
        Row(f"{name}-{part}", group, label.format(part), part=part, stochasticity=stochasticity)
        for part in _PARTS
    ]


def _ours(name: str, group: str, drafter: str) -> list[Row]:
    return [
        Row(
            f"{name}-{window}",
            group,
            f"{group}, W = {window}",
            window,
            drafter,
            sweeps="auto" if window == "auto" else 1 if drafter == "trained" else 0,
            recycle="response",
        )
        for window in _WINDOWS
    ]


ROWS: tuple[Row, ...] = (
    Row(PLAIN, "plain sampler", "plain sampler"),
    *_fewer("ddpm", 1.0),
    *_fewer("ddim", 0.0),
    Row("eps", "frozen target (De Bortoli et al.)", "frozen target (De Bortoli et al.), W = 8",
        PAPER_WINDOW, "eps"),
    Row("eps-recycled", "frozen target (De Bortoli et al.)", "frozen target, recycled, W = 8",
        PAPER_WINDOW, "eps", recycle="reuse"),
    Row("paper", "FREE as in the paper", "FREE as in the paper: autoregression, W = 8",
        PAPER_WINDOW, "trained", sweeps=None),
    *_ours("free", "one sweep, recycled", "trained"),
    *_ours("frozen", "no training, recycled", "image"),
    Row("block", "block verifier", "one sweep, block verifier, W = 8",
        PAPER_WINDOW, "trained", verifier="block"),
    Row("relaxed", "relaxed", "one sweep, recycled, relaxed (allow 0.3, budget 0.05), W = 16",
        16, "trained", recycle="response", relaxation=_RELAXATION),
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
