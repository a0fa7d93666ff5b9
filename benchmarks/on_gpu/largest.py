"""A whole round at DiT-XL/2's shapes: the share of what is not a network call.

Random weights: how many drafts stand means nothing here, what a round costs does not depend on it.
"""

from __future__ import annotations

from typing import Any

import torch

from free import Schedule
from on_gpu.bench import Bench
from on_gpu.networks import CFG_CHANNELS, CFG_SCALE, TINY, teacher_and_drafter
from on_gpu.parts import PARTS, breakdown, parts
from on_gpu.samplers import Draws, interleaved, sampler_of

NAME, IMAGE = "DiT-XL/2", 256
WINDOW, SWEEPS, BATCH = 8, 1, 1
STEPS, SMALL_STEPS, SMALL_WINDOW = 60, 6, 3


@torch.no_grad()
def run(bench: Bench, record: dict[str, Any]) -> None:
    """Fill ``rows``: with and without guidance."""
    record |= {"unit": "seconds a round", "rows": []}
    name = TINY if bench.small else NAME
    teacher, drafter = teacher_and_drafter(name, IMAGE, bench.device)
    schedule = Schedule.ddpm(SMALL_STEPS if bench.small else STEPS)
    window = SMALL_WINDOW if bench.small else WINDOW
    for guidance in ((1.0, None), (CFG_SCALE, CFG_CHANNELS)):
        title = f"{name} at {IMAGE}, W = {window}" + (", guided" if guidance[0] != 1 else "")
        if not bench.allows(title):
            continue
        with bench.attempt(title):
            networks = (teacher, drafter, schedule)
            sampler = sampler_of(*networks, guidance, window, SWEEPS)
            draw = Draws(sampler, BATCH, teacher.num_classes, bench.clock())
            draw()
            timing, report = interleaved({"": draw}, 2 if bench.small else 5)[""]
            seconds = timing.median * len(draw.reports) / report.rounds
            work = parts(*networks, guidance, BATCH, window, SWEEPS)
            found = breakdown(bench.clock(), work, seconds)
            row = {"model": name, "image": IMAGE, "guided": guidance[0] != 1, "W": window}
            row |= {"sweeps": SWEEPS, "batch": BATCH, "execution": report.execution} | found
            record["rows"].append(row)
            pieces = ", ".join(f"{name} {found['share'][name]:.1%}" for name in (*PARTS, "rest"))
            print(f"{title}: {1e3 * seconds:.3f} ms a round: {pieces}  {row['execution']}")
