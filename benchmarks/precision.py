"""What precision costs: errors of eps, and steps a round.

    python benchmarks/precision.py --json benchmarks/results/precision.json

The embedded model on torch, whose products in fp16 and bf16 really are rounded (ONNX Runtime's CPU
provider computes fp16 graphs in float32). "products": only the blocks' large matrix
products are lower, as ``free export --precision`` makes them; "+ modulation": adaLN's too;
"everything": the whole network. Rounds say what lower precision costs here: a teacher in
another precision is another teacher, and its drafts are checked against itself.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from typing import Any

import torch

from free import DiT, FeatureDrafter, Schedule, SpeculativeSampler, load_pretrained
from free.export.precision import PRECISIONS, lower
from free.files import write_json
from free.machine import machine
from free.models.guidance import Guidance, GuidedTeacher
from free.schedule.table import Table

Model = tuple[DiT, FeatureDrafter]


def variants(teacher: DiT, drafter: FeatureDrafter) -> dict[str, Model]:
    """The model in each precision; of the drafter alone too."""
    made: dict[str, Model] = {"fp32": (teacher, drafter)}
    for precision in ("fp16", "bf16"):
        for parts, modulation in (("products", False), ("+ modulation", True)):
            low = lower(teacher, precision, modulation)
            network = lower(drafter.network, precision, modulation)
            made[f"{precision} {parts}"] = (low, FeatureDrafter(network, low))
        low = copy.deepcopy(teacher).to(PRECISIONS[precision])
        network = copy.deepcopy(drafter.network).to(PRECISIONS[precision])
        made[f"{precision} everything"] = (low, FeatureDrafter(network, low))
        network = lower(drafter.network, precision)
        made[f"{precision} drafter only"] = (teacher, FeatureDrafter(network, teacher))
    return made


@torch.no_grad()
def errors(
    model: DiT, reference: DiT, schedule: Schedule, states: list[torch.Tensor], cfg: float
) -> dict[str, float]:
    """Relative error of the guided eps, and by how many sigma it moves a mean, over states."""
    guidance = Guidance(cfg, None, reference.null_label)
    low, exact = GuidedTeacher(model, guidance), GuidedTeacher(reference, guidance)
    table = Table.of(schedule, "cpu")
    relative, shifts = [], []
    for k, x in enumerate(states[: len(schedule) - 1]):  # the last has no sigma
        row = (x, table.timesteps[[k] * len(x)], torch.arange(len(x)) % 10)
        expected = exact(*row).eps
        difference = (low(*row).eps.float() - expected).flatten(1).norm(dim=1)
        relative.append(float((difference / expected.flatten(1).norm(dim=1)).mean()))
        shifts.append(float((table.of_prediction[k].abs() / table.sigma[k] * difference).mean()))
    return {
        "relative": statistics.mean(relative),
        "sigmas": statistics.mean(shifts),
        "sigmas_late": statistics.mean(shifts[-25:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--cfg", type=float, default=1.5)
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    teacher, drafter = load_pretrained("mnist")
    schedule = Schedule.ddpm(arguments.steps)
    labels = [i % 10 for i in range(arguments.images)]

    states: list[torch.Tensor] = []
    settings: dict[str, Any] = {
        "window": arguments.window,
        "sweeps": 1,
        "recycle": "response",
        "cfg_scale": arguments.cfg,
    }
    plain = SpeculativeSampler(teacher, None, schedule, window=1, cfg_scale=arguments.cfg)
    plain.sample([0, 1, 2, 3], seed=77, observer=lambda made, x: states.append(x.clone()))
    # After round j the states are those of transition j + 1.
    states.insert(
        0, torch.randn(4, *teacher.sample_shape, generator=torch.Generator().manual_seed(0))
    )

    record: dict[str, Any] = {"machine": machine(), "arguments": vars(arguments), "rows": {}}
    print("                       teacher MB   eps error   sigmas   late   steps a round    s.e.")
    for name, (low, low_drafter) in variants(teacher, drafter).items():
        size = sum(value.nbytes for value in low.parameters()) / 1e6
        found = errors(low, teacher, schedule, states, arguments.cfg)
        sampler = SpeculativeSampler(low, low_drafter, schedule, **settings)
        reports = [sampler.sample([label], seed=i).report for i, label in enumerate(labels)]
        efficiencies = [report.parallel_efficiency for report in reports]
        mean = statistics.mean(efficiencies)
        error = statistics.stdev(efficiencies) / len(labels) ** 0.5
        print(
            f"{name:22s}{size:11.1f}{found['relative']:12.1e}{found['sigmas']:9.3f}"
            f"{found['sigmas_late']:7.3f}{mean:16.2f}{error:8.2f}",
            flush=True,
        )
        record["rows"][name] = {
            "teacher_megabytes": size,
            **found,
            "steps_a_round": mean,
            "standard_error": error,
        }
    if arguments.json:
        write_json(arguments.json, record)


if __name__ == "__main__":
    main()
