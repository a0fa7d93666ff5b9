"""Whether images show what was asked for, equally often from both samplers.

    python benchmarks/quality.py --json benchmarks/results/quality.json

The classifier that the package carries for an embedded model names the generated images
(``free.training.classifier``).
"""

from __future__ import annotations

import argparse

import torch
from scipy.stats import fisher_exact
from torch import Tensor
from tqdm import tqdm

from free import Schedule, SequentialSampler, SpeculativeSampler, load_pretrained
from free.files import write_json
from free.machine import machine
from free.models.classifier import Classifier


def draw(
    sampler: SequentialSampler | SpeculativeSampler, labels: Tensor, seed: int, name: str
) -> Tensor:
    parts = []
    with tqdm(total=len(labels) * len(sampler.schedule), desc=name) as bar:
        for start in range(0, len(labels), 100):
            batch = labels[start : start + 100]
            parts.append(sampler.sample(batch, seed + start, progress=bar.update).samples)
    return torch.cat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--window", type=int, help="another than the model's own")
    parser.add_argument("--cfg", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=0, help="another one draws other images")
    parser.add_argument(
        "--fewer-steps", default="4,10", help="also the plain sampler with steps over these"
    )
    parser.add_argument("--json")
    options = parser.parse_args()

    classifier = Classifier.embedded("emoji" if options.model == "emoji" else "mnist")
    held_out = classifier.record["accuracy"]
    kind = "held-out" if classifier.record["held_out"] else "learnt"
    print(f"classifier: {100 * held_out:.1f} % of the {kind} real images")
    teacher, drafter = load_pretrained(options.model)
    schedule = Schedule.ddpm(options.steps)
    plain = f"plain, {options.steps} steps"
    drafting = drafter.sampling | ({"window": options.window} if options.window else {})
    free = SpeculativeSampler(teacher, drafter, schedule, cfg_scale=options.cfg, **drafting)
    samplers: dict[str, SequentialSampler | SpeculativeSampler] = {
        plain: SequentialSampler(teacher, schedule, options.cfg),
        f"FREE, W = {free.window}": free,
    }
    for part in map(int, filter(None, options.fewer_steps.split(","))):
        samplers[f"plain, {options.steps // part} steps"] = SequentialSampler(
            teacher, Schedule.ddpm(options.steps // part), options.cfg
        )
    labels = torch.arange(options.images) % classifier.classes
    rows: list[dict[str, object]] = []
    right: dict[str, int] = {}
    for index, (name, sampler) in enumerate(samplers.items()):
        images = draw(sampler, labels, seed=10**7 * options.seed + 10**6 * (index + 1), name=name)
        right[name] = int((classifier(images).argmax(1) == labels).sum())
        table = [[count, options.images - count] for count in (right[name], right[plain])]
        p = float(fisher_exact(table).pvalue)
        rows.append({"name": name, "right": right[name], "of": options.images, "p": p})
        print(
            f"{name:22s} {100 * right[name] / options.images:5.1f} % named as asked for"
            + ("" if name == plain else f"   (p = {p:.2f} against the plain sampler)")
        )
    if options.json:
        settings = {k: v for k, v in vars(options).items() if k != "json"}
        payload = {"machine": machine(), "settings": settings, "classifier": held_out, "rows": rows}
        write_json(options.json, payload)


if __name__ == "__main__":
    main()
