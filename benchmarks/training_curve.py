r"""A training run as the paper shows its own: parallel efficiency by epoch, and the loss's parts.

    free train-drafter --model mnist --out runs/paper --recipe paper --steps 120epochs \
        --batch-size 64 --evaluate-every 15epochs --threads 1
    python benchmarks/training_curve.py runs/paper/training/drafter --markdown curve.md \
        --plot docs/training.png

Several runs are drawn beside each other.

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


Run = tuple[list[dict[str, float]], list[dict[str, float]]]  # evaluations and log


def markdown(runs: dict[str, Run]) -> str:
    """Epoch by epoch, run by run."""
    first = next(iter(runs.values()))[0][0]
    names = [name for name in COLUMNS if name in first]
    lines = [["recipe", *(COLUMNS[name] for name in names)], ["---"] * (len(names) + 1)]
    for label, (evaluations, _) in runs.items():
        for row in evaluations:
            form = {"epoch": ".0f", "acceptance": ".3f"}
            lines.append([label, *(format(row[name], form.get(name, ".2f")) for name in names)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def plot(path: Path, runs: dict[str, Run]) -> None:
    """The loss's parts, and the parallel efficiency, by epoch."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 3.2), layout="constrained")
    axes = figure.subplots(1, 4)
    best = 1.0
    for label, (evaluations, log) in runs.items():
        epochs = [row["epoch"] for row in log]
        for place, name in zip(axes, PARTS, strict=False):
            place.plot(epochs, [row[name] for row in log], linewidth=1.0, label=label)
        efficiency = [row["parallel_efficiency"] for row in evaluations]
        axes[3].plot([row["epoch"] for row in evaluations], efficiency, marker="o", label=label)
        best = max(best, *efficiency)
    for place, title in zip(axes, [*PARTS.values(), "steps a round, W = 8"], strict=True):
        scale = "linear" if place is axes[3] else "log"
        place.set(title=title, xlabel="epoch", yscale=scale)
        place.grid(alpha=0.3)
    axes[3].set(ylim=(1, 1.1 * best), xlim=(0, None))
    axes[3].legend(loc="lower right")
    write_atomic(path, lambda file: figure.savefig(file, dpi=130, format="png"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="+", help="folders of runs with evaluations")
    parser.add_argument("--labels", help="of the runs, separated by commas; default their folders")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()

    labels = options.labels.split(",") if options.labels else list(map(str, options.run))
    if len(set(labels)) != len(options.run):
        parser.error(f"--labels must be {len(options.run)} different ones, got {labels}")
    runs = {}
    for label, run in zip(labels, options.run, strict=True):
        files = run / "evaluations.csv", run / "log.csv"
        absent = [path.name for path in files if not path.is_file()]
        if absent:
            parser.error(f"run must be a folder with {' and '.join(absent)}, got {run}")
        runs[label] = read(files[0]), read(files[1])
    table = markdown(runs)
    print(table)
    if options.markdown:
        write_atomic(options.markdown, lambda file: file.write_text(table, encoding="utf-8"))
    if options.plot:
        plot(options.plot, runs)


if __name__ == "__main__":
    main()
