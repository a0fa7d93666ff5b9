r"""A training run as the paper shows its own: parallel efficiency by epoch, and the loss's parts.

    free train-drafter --model mnist --out runs/paper --recipe paper --steps 120epochs \
        --batch-size 64 --evaluate-every 15epochs --threads 1
    python benchmarks/training_curve.py runs/paper/training/drafter --markdown curve.md \
        --plot docs/training.png

The first command trains and evaluates (supplement, Table 5 and Fig. 7: W = 8, guidance 1.5, on the
averaged weights); this one reads what it has written down, and may be called while it runs.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from free.files import write_atomic

#: The parts, and what multiplies them in the loss.
PARTS = {"noise": "L_noise", "feature": "L_feat", "smooth": "L_smooth"}
#: Columns of the table: of the evaluations, and their headings.
COLUMNS = {
    "epoch": "epoch",
    "parallel_efficiency": "steps a round, W = 8",
    "recommended_efficiency": "recommended drafting",
    "acceptance": "drafts accepted, of those examined",
}


def read(path: Path) -> list[dict[str, float]]:
    """A table of numbers; empty fields are left out."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return [{name: float(value) for name, value in row.items() if value} for row in rows]


def markdown(evaluations: list[dict[str, float]]) -> str:
    """Epoch by epoch."""
    names = [name for name in COLUMNS if name in evaluations[0]]
    lines = [[COLUMNS[name] for name in names], ["---"] * len(names)]
    for row in evaluations:
        form = {"epoch": ".0f", "acceptance": ".3f"}
        lines.append([format(row[name], form.get(name, ".2f")) for name in names])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def plot(path: Path, log: list[dict[str, float]], evaluations: list[dict[str, float]]) -> None:
    """The loss's parts, and the parallel efficiency, by epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 3.2), layout="constrained")
    axes = figure.subplots(1, 4)
    for name, label in PARTS.items():
        place = axes[list(PARTS).index(name)]
        place.plot([row["epoch"] for row in log], [row[name] for row in log], linewidth=1.0)
        place.set(title=label, yscale="log", xlabel="epoch")
    axes[3].plot(
        [row["epoch"] for row in evaluations],
        [row["parallel_efficiency"] for row in evaluations],
        marker="o",
    )
    axes[3].set(title="steps a round, W = 8", xlabel="epoch", ylim=(1, None))
    for place in axes:
        place.grid(alpha=0.3)
    write_atomic(path, lambda file: figure.savefig(file, dpi=130, format="png"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run with evaluations")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()

    files = options.run / "evaluations.csv", options.run / "log.csv"
    absent = [path.name for path in files if not path.is_file()]
    if absent:
        parser.error(f"run must be a folder with {' and '.join(absent)}, got {options.run}")
    evaluations, log = map(read, files)
    table = markdown(evaluations)
    print(table)
    if options.markdown:
        write_atomic(options.markdown, lambda file: file.write_text(table, encoding="utf-8"))
    if options.plot:
        plot(options.plot, log, evaluations)


if __name__ == "__main__":
    main()
