"""What W states cost the teacher, over what one costs: r_W; and the drafter likewise: d_W.

Published sizes, bf16, random weights. Under guidance a state is two rows of the network. The
drafter has one block, and is asked about W - 1 states in one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from free.drafters import FeatureDrafter
from free.models.dit import DiT
from on_gpu.bench import Bench
from on_gpu.clock import Clock, as_json, first_line
from on_gpu.kernels import ratio
from on_gpu.networks import CFG_CHANNELS, CFG_SCALE, LATENT, TINY, guided, teacher_and_drafter

WIDTHS = (1, 2, 4, 6, 8, 12, 16)
#: The largest first: it is what speculation is for.
MODELS = [
    (f"DiT-{size}/2", image)
    for size, image in [
        *[("XL", image) for image in LATENT],
        *[(size, image) for image in LATENT for size in ("L", "B", "S")],
    ]
]
HOW = ("graph", "eager")


@torch.no_grad()
def run(bench: Bench, record: dict[str, Any]) -> None:
    """Fill ``rows``: one for each model, image size, guidance and W."""
    record["unit"], record["rows"] = "seconds a call", []
    clock = bench.clock(samples=5, sample_seconds=5e-3)
    for name, image in [(TINY, 256)] if bench.small else MODELS:
        if not bench.allows(f"{name} at {image}"):
            continue
        with bench.attempt(f"{name} at {image}"):
            teacher, drafter = teacher_and_drafter(name, image, bench.device)
            for twice in (False, True):
                _ladder(bench, record, clock, teacher, drafter, (name, image, twice))
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


def _ladder(
    bench: Bench,
    record: dict[str, Any],
    clock: Clock,
    teacher: DiT,
    drafter: FeatureDrafter,
    of: tuple[str, int, bool],
) -> None:
    """The rows of one model, from one state on."""
    name, image, twice = of
    title = f"{name} at {image}" + (", guided" if twice else "")
    columns = ("ms, graph", "eager", "r, graph", "eager", "d, graph", "eager")
    print(f"\n{title:<28}{''.join(f'{column:>10}' for column in columns)}")
    one: dict[str, Any] = {}
    for width in WIDTHS[:3] if bench.small else WIDTHS:
        if not bench.allows(f"{title}, W = {width}"):
            continue
        row: dict[str, Any] = {"model": name, "image": image, "guided": twice, "W": width}
        try:
            calls = network_calls(teacher, drafter, CFG_SCALE if twice else 1.0, width)
            found = {
                network: {"graph": clock.replayed(work), "eager": clock.called(work)}
                for network, work in calls.items()
            }
        except torch.OutOfMemoryError as error:
            bench.left_out.append(
                f"{title}, W = {width}: does not fit in memory: {first_line(error)}"
            )
            torch.cuda.empty_cache()
            return  # nor do more states
        one = one or found["teacher"]
        for network, times in found.items():
            row[network] = {how: as_json(time) for how, time in times.items()}
        row["r"] = {how: ratio(found["teacher"][how], one[how]) for how in HOW}
        if width > 1:
            row["d"] = {how: ratio(found["drafter"][how], one[how]) for how in HOW}
        record["rows"].append(row)
        print(_line(row), flush=True)


def network_calls(
    teacher: DiT, drafter: FeatureDrafter, scale: float, width: int
) -> dict[str, Callable[[], Any]]:
    """A teacher call on so many states, and the drafter call that guesses all but the first."""
    device = next(teacher.parameters()).device
    call, guidance = guided(teacher, scale, CFG_CHANNELS)
    x = torch.randn(width, *teacher.sample_shape, device=device)
    t = torch.full((width,), 500, device=device)
    y = torch.arange(width, device=device) % teacher.num_classes
    calls: dict[str, Callable[[], Any]] = {"teacher": lambda: call(x, t, y)}
    if width > 1:
        feature = call(x, t, y).feature[1:]
        asked = (x[1:], t[1:], y[1:])
        seen, times, labels = asked if guidance is None else guidance.expand(*asked)
        given = (seen, torch.randn_like(seen), times, labels, feature, guidance)
        calls["drafter"] = lambda: drafter.step(*given)
    return calls


def _line(row: dict[str, Any]) -> str:
    times = [row["teacher"][how] for how in HOW]
    ms = [None if isinstance(time, str) else 1e3 * time["median"] for time in times]
    ratios = [row[letter][how] if letter in row else None for letter in "rd" for how in HOW]
    cells = [*(_cell(value, 3) for value in ms), *(_cell(value, 2) for value in ratios)]
    return f"{'W = ' + str(row['W']):<28}{''.join(cells)}"


def _cell(value: float | None, digits: int) -> str:
    return f"{'-':>10}" if value is None else f"{value:10.{digits}f}"
