"""Draw the picture of docs/verification.md: ``python docs/verifiers.py [PATH]``."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from scipy.stats import norm

DELTA = 1.5
SHARE = 0.45
DRAFT, TARGET, KEPT, LEFT = "C0", "C3", "0.82", "C1"

S = np.linspace(-3.6, 5.6, 1200)


def panel(axes: Axes, share: float, title: str) -> float:
    """Both densities, what the draft covers and what is left; where the half line starts."""
    draft, target = norm.pdf(S), share * norm.pdf(S - DELTA)
    start = DELTA / 2 - np.log(share) / DELTA
    axes.fill_between(S, np.minimum(draft, target), color=KEPT, lw=0)
    axes.fill_between(S, draft, target, where=target > draft, color=LEFT, alpha=0.55, lw=0)
    axes.plot(S, draft, DRAFT, label="draft $p = \\varphi(s)$")
    name = "q" if share == 1 else "\\lambda q"
    factor = "" if share == 1 else "\\lambda\\,"
    axes.plot(S, target, TARGET, label=f"target ${name} = {factor}\\varphi(s - \\delta)$")
    axes.axvline(start, color="0.3", lw=0.8, ls="--")
    axes.annotate("", (5.5, -0.022), (start, -0.022), arrowprops={"arrowstyle": "->", "lw": 1.6})
    axes.set_title(title, fontsize=10)
    axes.set(xlabel="$s$, along $e$", ylim=(-0.045, 0.47), yticks=[], xlim=(-3.6, 5.6))
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    axes.spines[["left", "right", "top"]].set_visible(False)
    return start


def main() -> None:
    """Two panels: reflection, and block verification with a share of the target."""
    path = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_name("verifiers.png")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.7), layout="constrained")

    middle = panel(left, 1.0, "Reflection: one transition, all of the target")
    rejected = np.minimum(S, middle)
    left.fill_between(
        rejected, norm.pdf(rejected - DELTA), norm.pdf(rejected), color=DRAFT, alpha=0.2, lw=0
    )
    left.annotate(
        "",
        (middle + 0.95, 0.24),
        (middle - 0.95, 0.24),
        arrowprops={"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.3"},
    )
    left.text(middle + 0.06, 0.30, "mirrored", fontsize=9)
    left.text(middle, 0.06, "accepted", fontsize=9, ha="center")
    left.text(2.05, 0.12, "residual\n$(q - p)_+$", fontsize=9, ha="center")
    left.text(-0.55, 0.14, "rejected\n$(p - q)_+$", fontsize=9, ha="center")
    left.text(middle, -0.04, "$\\delta/2$ ", fontsize=9, ha="right")

    start = panel(right, SHARE, f"Block: a share $\\lambda = p_\\tau = {SHARE}$ of it is left over")
    right.text(2.75, 0.09, "residual\n$(\\lambda q - p)_+$, mass $R$", fontsize=9)
    right.annotate("", (2.35, 0.055), (2.9, 0.085), arrowprops={"arrowstyle": "->", "lw": 0.8})
    right.text(start, -0.04, "$c = \\delta/2 - \\ln\\lambda\\,/\\,\\delta$", fontsize=9, ha="right")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
