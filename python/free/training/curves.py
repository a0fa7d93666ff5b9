"""A run's loss curves as a picture: the paper's Fig. 7."""

from __future__ import annotations

from pathlib import Path

from free.files import write_atomic
from free.training.log import read_log

__all__ = ["PICTURE", "draw_losses"]

#: Name of the picture in the folder of a run.
PICTURE = "loss.png"
#: Columns of the log that are not losses.
_OTHERS = ("step", "epoch", "seconds", "images_per_second", "learning_rate", "acceptance")


def draw_losses(folder: Path) -> bool:
    """Draw the parts of the loss over the steps, from the folder's log.

    A part has an axis of its own: their sizes are orders of magnitude apart.

    Returns
    -------
    bool
        False, and nothing is drawn, if matplotlib is not installed or the log has less than two
        lines.
    """
    lines = read_log(folder)
    names = [name for name in (lines[0] if lines else {}) if name not in _OTHERS]
    if len(names) > 1:
        names.remove("loss")  # their sum
    if len(lines) < 2:
        return False
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(3.6 * len(names), 3.0), layout="constrained")
    steps = [line["step"] for line in lines]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        values = [line[name] for line in lines]
        axes.plot(steps, values, linewidth=1.0)
        axes.set(title=name, xlabel="step")
        if min(values) > 0:
            axes.set_yscale("log")
        axes.grid(which="both", alpha=0.3)
    write_atomic(folder / PICTURE, lambda path: figure.savefig(path, dpi=120))
    return True
