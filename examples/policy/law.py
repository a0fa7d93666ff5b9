"""Whether speculated chunks have the plain sampler's law, at fixed observations.

    python -m examples.policy.law --json benchmarks/results/policy-law.json

At each of a few places of a pilot's flight, chunks are drawn by both samplers with
different seeds. Every number of a chunk, and its component along directions drawn at random, is
compared by a Kolmogorov-Smirnov test; the smallest p of all, times their count, is reported
(Bonferroni). So that a pass means something, the same is done for fewer steps, whose law is
another, and for chunks of the plain sampler with other seeds, whose law is the same.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.policy.act import Policy
from examples.policy.flights import seen_by_pilot
from examples.policy.latency import ENGINES, NETWORKS, on_engine
from examples.policy.networks import load
from free.files import write_json
from free.machine import machine

#: Directions drawn at random, beside each number of a chunk.
DIRECTIONS = 16


def draw(policy: Policy, observations: Tensor, count: int, first: int, batch: int = 512) -> Tensor:
    """``count`` chunks at each observation, [places, count, horizon * actions].

    ``observations [places, history, numbers]`` are mixed in every batch, so that a mistake in who
    is conditioned on what would show. Noise seeds are counted from ``first``.
    """
    places = len(observations)
    requests = observations.repeat(count, 1, 1)
    seeds = range(first, first + len(requests))
    chunks = torch.cat(
        [
            policy.plan(requests[at : at + batch], seeds[at : at + batch])
            for at in range(0, len(requests), batch)
        ]
    )
    return chunks.flatten(1).view(count, places, -1).transpose(0, 1)


def p_of(one: Tensor, other: Tensor) -> float:
    """The corrected p that ``one [n, D]`` and ``other [m, D]`` have one law; at most 1."""
    from scipy import stats

    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(one.shape[1], DIRECTIONS, generator=generator)
    pairs = zip(
        torch.cat([one, one @ directions], dim=1).T.double().numpy(),
        torch.cat([other, other @ directions], dim=1).T.double().numpy(),
        strict=True,
    )
    found = [float(stats.ks_2samp(a, b, method="asymp").pvalue) for a, b in pairs]
    return min(1.0, min(found) * len(found))


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare both networks' chunks, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=Path, default=Path("runs/policy"), help="%(default)s")
    parser.add_argument("--only", choices=NETWORKS, help="one of the two")
    parser.add_argument("--engine", choices=ENGINES, default="onnxruntime", help="%(default)s")
    parser.add_argument("--places", type=int, default=3, help="observations, %(default)s")
    parser.add_argument("--samples", type=int, default=5000, help="chunks of each, %(default)s")
    parser.add_argument("--window", type=int, default=16, help="%(default)s")
    parser.add_argument("--json", type=Path)
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    observations = seen_by_pilot(options.places, 2, flights=1)
    found: dict[str, Any] = {}
    for name in [options.only] if options.only else NETWORKS:
        network = load(options.networks / f"{name}.safetensors")
        denoise = on_engine(options.engine, network, options.networks / "onnx" / name)
        count, policies = (
            options.samples * options.places,
            {
                "plain": Policy(denoise, network.config),
                "speculated": Policy(denoise, network.config, window=options.window),
                "a quarter of the steps": Policy(
                    denoise, network.config, steps=network.config.steps // 4
                ),
            },
        )
        expected = draw(policies["plain"], observations, options.samples, 0)
        found[name] = {"spread": [float(chunks.std(0).mean()) for chunks in expected]}
        for number, (what, policy) in enumerate(policies.items(), 1):
            drawn = draw(policy, observations, options.samples, number * count)
            found[name][what] = [p_of(a, b) for a, b in zip(expected, drawn, strict=True)]
        for what, values in found[name].items():
            print(f"{name}, {what}: {', '.join(f'{value:.3g}' for value in values)}", flush=True)
    if options.json:
        record = {
            "command": shlex.join(["python", "-m", "examples.policy.law", *given]),
            "machine": machine(),
            "samples": options.samples,
            "window": options.window,
            "p": found,
        }
        write_json(options.json, record)


if __name__ == "__main__":
    main()
