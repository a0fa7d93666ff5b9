"""Predicted, not measured: the speed-up of large models, from what their calls cost here and from
how many steps a round some other model's drafts make.

    speed-up = steps a round / (r_W + d_W)

with r_W and d_W of section ``rows``: the teacher on W states and the drafter on W - 1, over the
teacher on one. The coupling is left out, and so is everything else (section ``largest``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from on_gpu.bench import Bench

#: Steps a round of the embedded model, from which they are taken if not given.
ROUNDS = Path(__file__).parents[1] / "results" / "rounds.json"
#: Labels there, and whether the drafter is called.
DRAFTERS = {
    "trained drafter": ("1 sweep, recycled: response", True),
    "no training": ("no training, recycled: response", False),
}


def run(bench: Bench, record: dict[str, Any]) -> None:
    """Fill ``rows``, from those of section ``rows``."""
    given = parse(bench.options.steps_a_round) if bench.options.steps_a_round else None
    steps = {"as given": (given, True)} if given else embedded_steps(ROUNDS)
    source = "--steps-a-round" if given else f"embedded model, {ROUNDS.name}"
    record |= {"predicted": True, "steps_a_round_from": source}
    record["rows"] = predictions(bench.record["rows"]["rows"], steps)
    print(f"\nPREDICTED, not measured; steps a round: {source}")
    print(f"{'speed-up':<28}{'drafter':<18}{'W':>4}{'graph':>9}{'eager':>9}")
    for row in record["rows"]:
        title = f"{row['model']} at {row['image']}" + (", guided" if row["guided"] else "")
        cells = [
            f"{'-':>9}" if (value := row["speedup"][how]) is None else f"{value:9.2f}"
            for how in ("graph", "eager")
        ]
        print(f"{title:<28}{row['drafter']:<18}{row['W']:>4}{''.join(cells)}")


def parse(text: str) -> dict[int, float]:
    """``"4:3.6,8:6.2"``: steps a round by window.

    Raises
    ------
    ValueError
        If it is of another form, or a window does not make 1 to W steps.
    """
    steps = {}
    for part in text.split(","):
        window, _, value = part.partition(":")
        try:
            steps[int(window)] = float(value)
        except ValueError:
            steps[-1] = 0.0
    if not all(1 <= value <= window for window, value in steps.items()):
        raise ValueError(f"--steps-a-round must be like 4:3.6,8:6.2 (W:1..W), got {text!r}")
    return steps


def embedded_steps(path: Path) -> dict[str, tuple[dict[int, float], bool]]:
    """Of the embedded model, by drafter: steps a round by window, and whether it is called."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {
        name: (
            {row["window"]: row["parallel_efficiency"] for row in rows if row["label"] == label},
            called,
        )
        for name, (label, called) in DRAFTERS.items()
    }


def predictions(
    rows: list[dict[str, Any]], steps: dict[str, tuple[dict[int, float], bool]]
) -> list[dict[str, Any]]:
    """One for each row with a window whose steps a round are known."""
    return [
        {name: row[name] for name in ("model", "image", "guided", "W")}
        | {"drafter": drafter, "steps_a_round": by_window[row["W"]]}
        | {
            "speedup": {
                how: speedup(by_window[row["W"]], row["r"][how], row["d"][how] if called else 0.0)
                for how in ("graph", "eager")
            }
        }
        for row in rows
        for drafter, (by_window, called) in steps.items()
        if row["W"] in by_window and row["W"] > 1
    ]


def speedup(steps: float, r: float | None, d: float | None) -> float | None:
    """Over the plain sampler; None where a cost is not known."""
    return None if r is None or d is None else steps / (r + d)
