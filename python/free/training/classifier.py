"""Trains an embedded model's classifier: ``python -m free.training.classifier MODEL FOLDER``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from free.files import write_atomic, write_json
from free.images.real import REAL_IMAGES
from free.models.classifier import Classifier
from free.training.dataset.sets import ImageSet, embedded_set


def split_images(count: int, share: float = 0.2) -> tuple[Tensor, Tensor]:
    """Which of ``count`` images are held out (a share), and which are learnt from; int64."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0), device="cpu")
    few = int(count * share)
    held, kept = order.split([few, count - few])
    return held, kept


def train_classifier(
    data: ImageSet, steps: int = 2000, held_out: float = 0.2, *, progress: bool = False
) -> Classifier:
    """Train a classifier on all but a share of the images and measure it on that share.

    With none held out it is measured on what it has seen. A step is a batch of 64. The weights are
    rounded to float16, as they are stored.
    """
    held, kept = split_images(len(data.labels), held_out)
    channels, side, _ = data.sample_shape
    classes = data.num_classes
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the first weights, and dropout
        with torch.device("cpu"):  # whatever the default is
            network = Classifier(channels, side, classes)
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
    judged = held if len(held) else kept
    right = network(data.images[judged]).argmax(1) == data.labels[judged]
    network.record = {
        "kind": "classifier",
        "shape": [channels, side, classes],
        "training": {"steps": steps, "batch_size": 64, "images": len(kept)},
        "held_out": len(held),
        "accuracy": right.double().mean().item(),
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


def save_classifier(network: Classifier, folder: str | Path) -> None:
    """Write ``model.safetensors`` (float16) and ``config.json``, each atomically."""
    weights = {name: weight.half() for name, weight in network.state_dict().items()}
    folder = Path(folder)
    write_atomic(folder / "model.safetensors", lambda path: save_file(weights, path))
    write_json(folder / "config.json", network.record)


def main() -> None:
    """Train the classifier of an embedded model and write it to a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", choices=REAL_IMAGES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--held-out", type=float, default=0.2, help="share; 0 for none")
    given = parser.parse_args()
    data = embedded_set(given.model)
    network = train_classifier(data, given.steps, given.held_out, progress=True)
    save_classifier(network, given.folder)
    judged = network.record["held_out"] or len(data)
    print(f"right on {100 * network.record['accuracy']:.1f} % of {judged} images")


if __name__ == "__main__":
    main()
