"""Trains the digit classifier: ``python -m free.training.classifier FOLDER``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from free.files import write_atomic, write_json
from free.models.classifier import DigitClassifier
from free.training.dataset.sets import ImageSet, mnist_set


def split_digits(count: int) -> tuple[Tensor, Tensor]:
    """Which of ``count`` images are held out (a fifth), and which are learnt from; int64."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0), device="cpu")
    held, kept = order.split([count // 5, count - count // 5])
    return held, kept


def train_classifier(
    data: ImageSet, steps: int = 2000, *, progress: bool = False
) -> DigitClassifier:
    """Train a classifier on four fifths of the 28x28 digits and measure it on the rest.

    A step is a batch of 64. The weights are rounded to float16, as they are stored.
    """
    held, kept = split_digits(len(data.labels))
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the first weights, and dropout
        with torch.device("cpu"):  # whatever the default is
            network = DigitClassifier()
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in tqdm(range(steps), desc="classifier", disable=not progress):
            batch = kept[torch.randint(len(kept), (64,), generator=generator, device="cpu")]
            images = _jitter(data.images[batch], generator)
            loss = F.cross_entropy(network(images), data.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval().requires_grad_(False)
    for weight in network.parameters():
        weight.copy_(weight.half())
    right = network(data.images[held]).argmax(1) == data.labels[held]
    network.record = {
        "kind": "digit classifier",
        "training": {"steps": steps, "batch_size": 64, "images": len(kept)},
        "held_out": len(held),
        "held_out_accuracy": right.double().mean().item(),
    }
    return network


def _jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image turned, scaled and shifted a little."""
    count = len(images)
    draw = 2 * torch.rand(4, count, generator=generator, dtype=torch.float32, device="cpu") - 1
    angle, scale = 0.2 * draw[0], 1 + 0.12 * draw[1]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    shift = 0.14 * draw[2:]  # of half the width: up to 2 pixels
    theta = torch.stack([cos, -sin, shift[0], sin, cos, shift[1]], 1).view(count, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1  # outside is background


def save_classifier(network: DigitClassifier, folder: str | Path) -> None:
    """Write ``model.safetensors`` (float16) and ``config.json``, each atomically."""
    weights = {name: weight.half() for name, weight in network.state_dict().items()}
    folder = Path(folder)
    write_atomic(folder / "model.safetensors", lambda path: save_file(weights, path))
    write_json(folder / "config.json", network.record)


def main() -> None:
    """Train the classifier and write it to the folder named on the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    network = train_classifier(mnist_set(), progress=True)
    save_classifier(network, folder)
    print(f"{100 * network.record['held_out_accuracy']:.1f} % of the held-out digits")


if __name__ == "__main__":
    main()
