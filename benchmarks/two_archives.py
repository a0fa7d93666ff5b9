"""Whether two sets of images can be told apart: FREE's and the plain sampler's, by many tests.

    free generate --model emoji --sampler plain --num 1010 --steps 50 --cfg 2 --out plain.npz
    free generate --model emoji --num 1010 --steps 50 --cfg 2 --seed 5000 --out free.npz
    python benchmarks/two_archives.py plain.npz free.npz --features emoji

Two-sample tests of the mean intensity, of random directions and of the first principal components
of the pixels, of the classes that the model's classifier sees, and of all its features together
(energy distance). Each has a p-value; by Bonferroni the smallest must be below .01 over their
number for the sets to differ. The sets must be of other seeds: equal noise would hide a difference.
``--planted`` shows what is found: the second set with one in so many images replaced by another's
mirror image, and slightly darker.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from free.evaluation.feature_networks import load_network
from free.evaluation.image_stream import open_images
from free.evaluation.measured import measure
from free.files import write_json
from free.machine import machine

#: Directions of each kind.
_DIRECTIONS = 20
#: Level of all tests together.
_LEVEL = 0.01


def pixels_of(source: Any) -> Tensor:
    """The images of a set, [n, D] float64 in [0, 1]."""
    images = open_images(source, "archive")
    return torch.from_numpy(np.concatenate(list(images.chunks(1000)))).flatten(1).double() / 255.0


def directions(one: Tensor, two: Tensor) -> dict[str, Tensor]:
    """What the sets are projected onto, [D, n], by kind."""
    both = torch.cat([one, two])
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(both.shape[1], _DIRECTIONS, generator=generator, dtype=torch.float64)
    centred = both - both.mean(0)
    _, _, principal = torch.svd_lowrank(centred, q=_DIRECTIONS)
    mean = torch.full((both.shape[1], 1), 1.0 / both.shape[1], dtype=torch.float64)
    return {"mean intensity": mean, "random direction": random, "principal component": principal}


def compare(one: Tensor, two: Tensor, seen: tuple[Any, Any]) -> dict[str, list[float]]:
    """The p-values of each kind of test; ``seen`` are the sets as a classifier sees them."""
    found = {
        kind: [
            float(stats.ks_2samp((one @ axis).numpy(), (two @ axis).numpy()).pvalue)
            for axis in axes.T
        ]
        for kind, axes in directions(one, two).items()
    }
    classes = [measured.probabilities.argmax(1) for measured in seen]
    named = _padded(classes)
    most = 1 + max(int(some.max()) for some in named)
    counts = np.stack([np.bincount(some.numpy(), minlength=most) for some in named])
    counts = counts[:, counts.sum(0) > 0]
    found["classes"] = [float(stats.chi2_contingency(counts).pvalue)]
    found["features"] = [energy_p(*(measured.pooled.double() for measured in seen))]
    return found


def _padded(classes: list[Tensor]) -> list[Tensor]:
    """Class numbers, those that hardly occur taken as one, so that the counts are large enough."""
    both = torch.cat(classes).bincount()
    rare = both < 10
    return [torch.where(rare[named], len(both), named) for named in classes]


def energy_p(one: Tensor, two: Tensor, permutations: int = 999) -> float:
    """Energy distance of two sets of features, by permutations."""
    n = min(len(one), len(two))
    both = torch.cat([one[:n], two[:n]])
    both = both / both.std(0).clamp_min(1e-6)
    distances = torch.cdist(both, both)
    generator = torch.Generator().manual_seed(0)
    signs = torch.ones(2 * n, permutations + 1, dtype=torch.float64)
    signs[n:] = -1.0
    for column in range(1, permutations + 1):
        signs[:, column] = signs[torch.randperm(2 * n, generator=generator), column]
    statistic = -(signs * (distances @ signs)).sum(0)
    return float((statistic >= statistic[0]).double().mean())


def planted(two: np.ndarray, share: int) -> np.ndarray:
    """A set in which one image of so many is mirrored and darker."""
    changed = two.copy()
    changed[::share] = (changed[::share, :, ::-1].astype(np.float64) * 0.9).astype(np.uint8)
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one")
    parser.add_argument("two")
    parser.add_argument("--features", default="auto")
    parser.add_argument("--planted", type=int, help="spoil one in so many images of the second")
    parser.add_argument("--json")
    options = parser.parse_args()
    two: Any = options.two
    if options.planted:
        two = planted(np.concatenate(list(open_images(two, "two").chunks(1000))), options.planted)
    network = load_network(options.features, open_images(options.one, "one").shape)
    seen = (measure(options.one, network), measure(two, network))
    found = compare(pixels_of(options.one), pixels_of(two), seen)
    tests = sum(map(len, found.values()))
    least = min(min(values) for values in found.values())
    for kind, values in found.items():
        print(f"{kind:20s} {len(values):3d} tests, least p {min(values):.4f}")
    verdict = "differ" if least < _LEVEL / tests else "cannot be told apart"
    print(
        f"{len(seen[0])} and {len(seen[1])} images {verdict}: least p {least:.5f} of {tests} tests"
    )
    if options.json:
        record = {"machine": machine(), "command": " ".join(sys.argv), "p": found, "tests": tests}
        images = {"images": [len(measured) for measured in seen]}
        write_json(options.json, {**record, **images, "verdict": verdict, "least": least})


if __name__ == "__main__":
    main()
