"""Behaviour cloning: both denoisers learn the noise in chunks of the pilot's actions.

    python -m examples.policy.train                    # into runs/policy
    python -m examples.policy.train --only mlp --steps 500

The loss is that of DDPM: the mean square of the error in the predicted noise.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from examples.policy.demonstrations import Demonstrations, record
from examples.policy.networks import Denoiser, PolicyConfig, build, save
from examples.policy.sampler import noise_levels

#: The two policies.
CONFIGS = {
    "mlp": PolicyConfig("mlp", width=1024, depth=4),
    "transformer": PolicyConfig("transformer", width=128, depth=4),
}
#: Updates of each, and chunks of one update.
UPDATES = {"mlp": 5000, "transformer": 4000}
BATCH = {"mlp": 128, "transformer": 64}


def train(
    config: PolicyConfig,
    demonstrations: Demonstrations,
    steps: int,
    *,
    batch: int,
    rate: float = 5e-4,
    seed: int = 0,
    every: int = 100,
) -> Denoiser:
    """Train a denoiser on demonstrations; the average of its weights over time is returned.

    Parameters
    ----------
    config : PolicyConfig
    demonstrations : Demonstrations
    steps, batch, rate
        Updates, chunks of one, and AdamW's largest rate, which rises for 100 updates and falls
        along a cosine.
    seed : int
        Of weights and order.
    every : int
        Updates between two lines of the log.
    """
    torch.manual_seed(seed)
    network = build(config)
    network.normalise(demonstrations.observations)
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    warm = min(100, steps)

    def share(step: int) -> float:
        return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)

    plan = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
    signal, spread = (level[:, None, None] for level in noise_levels(config.steps))
    began, losses = time.perf_counter(), []
    for step in range(steps):
        rows = torch.randint(len(demonstrations.actions), (batch,))
        clean, seen = demonstrations.actions[rows], demonstrations.observations[rows]
        t, noise = torch.randint(config.steps, (batch,)), torch.randn(clean.shape)
        noisy = signal[t] * clean + spread[t] * noise
        loss = F.mse_loss(network(noisy, t, seen), noise)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        plan.step()
        kept = min(0.999, (step + 1) / (step + 10))
        with torch.no_grad():
            for old, new in zip(average.parameters(), network.parameters(), strict=True):
                old.lerp_(new, 1 - kept)
        losses.append(float(loss.detach()))
        if (step + 1) % every == 0:
            mean = sum(losses[-every:]) / every
            print(
                f"{config.kind} {step + 1}/{steps}: loss {mean:.4f}, "
                f"{time.perf_counter() - began:.0f} s",
                flush=True,
            )
    return average.eval().requires_grad_(False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Record demonstrations, train what is asked for, and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/policy"), help="%(default)s")
    parser.add_argument("--only", choices=CONFIGS, help="one of the two")
    parser.add_argument("--episodes", type=int, default=300, help="demonstrations, %(default)s")
    parser.add_argument("--steps", type=int, help=f"updates, by default {UPDATES}")
    parser.add_argument("--batch", type=int, help=f"chunks of an update, by default {BATCH}")
    parser.add_argument("--seed", type=int, default=0, help="%(default)s")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    one = CONFIGS["mlp"]
    demonstrations = record(
        options.episodes, history=one.history, horizon=one.horizon, seed=options.seed
    )
    print(
        f"{len(demonstrations.returns)} of {options.episodes} demonstrations kept, "
        f"{len(demonstrations.actions)} steps, mean return {demonstrations.returns.mean():.0f}"
    )
    for name in [options.only] if options.only else CONFIGS:
        steps, batch = options.steps or UPDATES[name], options.batch or BATCH[name]
        network = train(CONFIGS[name], demonstrations, steps, batch=batch, seed=options.seed)
        path = options.out / f"{name}.safetensors"
        notes = {"updates": steps, "batch": batch, "episodes": options.episodes}
        save(network, path, **notes, seed=options.seed)
        print(f"{path} written")


if __name__ == "__main__":
    main()
