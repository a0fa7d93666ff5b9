"""How likely drafts are to stand, by their place in the window, at the same transitions.

    python benchmarks/positions.py --json positions.json
    python benchmarks/positions.py --window 16 --sweeps 1

A sampler examines a late place only where all earlier drafts stood, which is where drafting is
easy, and short of the run's end. So places are compared elsewhere: windows are drafted from states
of the plain sampler, whether or not their drafts would stand, and each place is averaged over the
same part of the run. What is averaged is 2 Phi(-delta / 2), delta the distance between draft and
target mean, in standard deviations, at the drafted state. Nothing is recycled.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor

from free import DiT, Drafter, Schedule, load_pretrained
from free.drafters import DraftingBatch
from free.files import write_json
from free.machine import machine
from free.models.output import TeacherRows
from free.reference.draft import DRAFTER
from free.rounds.draft import draft_window
from free.rounds.noise import Purpose, normal
from free.rounds.state import Recycled, Samples
from free.rounds.target import Target, guidance_of
from free.schedule.table import Table

#: Every which transition a window starts at.
_EVERY = 3


@torch.no_grad()
def acceptance_by_position(
    network: DiT,
    drafter: Drafter,
    steps: int,
    window: int,
    cfg: float,
    sweeps: int | None,
    images: int,
) -> list[float]:
    """Mean of 2 Phi(-delta / 2) at each of the ``window - 1`` places."""
    guidance = guidance_of(network, cfg, None)
    table = Table.of(Schedule.ddpm(steps), "cpu")
    target = Target(network, guidance, table)
    drafter = drafter.begin(DraftingBatch(table, guidance))
    seeds = torch.arange(images)
    y = seeds % network.num_classes

    def noise(k: int, purpose: Purpose, shape: tuple[int, ...]) -> Tensor:
        return normal(seeds, torch.full_like(seeds, k), torch.zeros_like(seeds), purpose, shape)

    P = window - 1
    sums, windows = torch.zeros(P, dtype=torch.float64), torch.zeros(P)
    x = noise(0, Purpose.INITIAL, network.sample_shape)
    for made in range(steps - 2):
        k = torch.full_like(seeds, made)
        out, mean, guess, _ = target(x, k, y)
        rows = TeacherRows(*out, x, k)
        z = noise(made, Purpose.TRANSITION, x.shape[1:])
        x = torch.addcmul(mean, table.sigma[made], z)
        P_here = min(P, steps - 2 - made)
        if made % _EVERY:
            continue
        row = torch.arange(images)[:, None].repeat(1, window)
        past = Recycled(rows, guess, row, torch.ones_like(seeds))
        z = noise(made + 1, Purpose.TRANSITION, (P_here, *x.shape[1:]))
        samples = Samples.begin(y, seeds, x, window)._replace(k=k + 1, past=past)
        draft = draft_window(
            drafter,
            samples,
            z,
            torch.full_like(seeds, P_here),
            table=table,
            sweeps=sweeps,
            source=DRAFTER,
        )
        at = (k[:, None] + 1 + torch.arange(P_here)).flatten()
        states = draft.states[:, :P_here].flatten(0, 1)
        _, means, *_ = target(states, at, y.repeat_interleave(P_here))
        shift = (draft.means.flatten(0, 1) - means).flatten(1).norm(dim=1)
        accepts = torch.erfc(shift / table.sigma[at] / 8**0.5).view(images, P_here)
        # The part of the run that all places reach.
        counted = at.view(images, P_here)[0] >= P
        sums[:P_here] += torch.where(counted, accepts, 0.0).sum(0)
        windows[:P_here] += counted * images
    return (sums / windows).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--drafter", help="another one's folder")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--cfg", type=float, default=1.5)
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--sweeps", type=int, help="default: autoregression")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--json")
    options = parser.parse_args()

    teacher, drafter = load_pretrained(options.model, options.drafter)
    settings: dict[str, Any] = {
        name: getattr(options, name) for name in ("steps", "window", "cfg", "sweeps", "images")
    }
    found = acceptance_by_position(teacher, drafter, **settings)
    for place, share in enumerate(found, 1):
        print(f"place {place:2d}: {100 * share:.1f} %")
    print(f"the last accepts {100 * (1 - found[-1] / found[0]):.1f} % less than the first")
    if options.json:
        record = {"machine": machine(), "settings": settings, "acceptance": found}
        write_json(options.json, record)


if __name__ == "__main__":
    main()
