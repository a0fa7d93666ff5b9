"""Whether digits show what was asked for, equally often from both samplers.

    python benchmarks/quality.py --json benchmarks/results/quality.json

A small convolutional network learns the real digits (4,000 of them; 1,000 are held out) and
names the generated ones.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from scipy.stats import fisher_exact
from torch import Tensor, nn
from tqdm import tqdm

from _measure import machine
from free import Schedule, SequentialSampler, SpeculativeSampler, load_pretrained
from free.files import write_json
from free.training.data import ImageSet, load_mnist


def jitter(images: Tensor) -> Tensor:
    """Each image turned, scaled and shifted a little."""
    count = len(images)
    angle = 0.2 * (2 * torch.rand(count) - 1)
    scale = 1 + 0.12 * (2 * torch.rand(count) - 1)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    shift = 0.14 * (2 * torch.rand(2, count) - 1)  # of half the width: up to 2 pixels
    theta = torch.stack([cos, -sin, shift[0], sin, cos, shift[1]], 1).view(count, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1  # outside is background


def train_classifier(data: ImageSet, steps: int = 2000) -> tuple[nn.Module, float]:
    """A classifier and its accuracy on the held-out fifth."""
    order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(0))
    held, kept = order.split([len(order) // 5, len(order) - len(order) // 5])
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 24, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 48, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.4), nn.Linear(48 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in tqdm(range(steps), desc="classifier"):
        batch = kept[torch.randint(len(kept), (64,))]
        loss = F.cross_entropy(network(jitter(data.images[batch])), data.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval().requires_grad_(False)
    correct = network(data.images[held]).argmax(1) == data.labels[held]
    return network, correct.float().mean().item()


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

    classifier, held_out = train_classifier(load_mnist())
    print(f"classifier: {100 * held_out:.1f} % of the held-out real digits")
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
    labels = torch.arange(options.images) % 10
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
