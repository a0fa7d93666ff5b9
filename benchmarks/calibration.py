"""Whether drafts are accepted as often as Eq. 40 says: 2 Phi(-delta / 2), along real trajectories.

    free train-variance --out runs/sigma --threads 1
    python benchmarks/calibration.py --network runs/sigma --plot docs/calibration.png \
        --json benchmarks/results/calibration.json

Every draft that is decided on is recorded, with ``delta = |m_hat - m| / sigma`` and its fate, for
every member of the family on one model. Counts do not depend on the machine.
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import erfc, ndtri
from torch import Tensor

import free.sampling.speculative
from free import Schedule, SpeculativeSampler, load_pretrained
from free.files import digest, write_json
from free.machine import machine
from free.models.sigma import SigmaNet

#: Edges of the bins of delta, and how many of either fate must be expected in one: those with
#: fewer, for which standard errors mean little, are joined to the next.
EDGES = [0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.2, 1.6, 2.0, 2.5, 3.0, 4.0, np.inf]
EXPECTED = 10.0


def members(steps: int, network: str | None) -> dict[str, Schedule]:
    """The family, by label."""
    ddpm = functools.partial(Schedule.ddpm, steps)
    posterior = ddpm().sigma
    family = {
        "posterior": ddpm(),
        "upper": ddpm(variance="upper"),
        "mixture 1/2": ddpm(variance=0.5),
        "array: 1.5 posterior": ddpm(variance=1.5 * posterior**2),
        "DDIM, eta 1/2": ddpm(stochasticity=0.5),
    }
    for epsilon in (0.25, 0.5, 1.0, 1.5, 2.0):
        family[f"SDE, epsilon {epsilon:g}"] = Schedule.sde("vp", steps, epsilon)
    if network is not None:
        family["network sigma(x, t)"] = ddpm(variance=SigmaNet.from_pretrained(network))
    return family


def record(
    sampler: SpeculativeSampler, labels: Tensor, seed: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """``delta [n]`` and whether accepted [n], of all drafts that were decided on."""
    deltas, fates = [], []
    verify_window = free.sampling.speculative.verify_window

    def observed(*arguments: Any) -> Any:
        _, drafts, targets, sigma, length, *_ = arguments
        out = verify_window(*arguments)
        P = drafts.shape[1]
        gap = (drafts - targets[:, :P]).double().flatten(2).norm(dim=2)
        step = torch.arange(P)
        # Examined are the accepted ones and the first that was not.
        examined = (step <= out.accepted[:, None]) & (step < length[:, None] - 1)
        deltas.append((gap / sigma[:, :P])[examined].numpy())
        fates.append((step < out.accepted[:, None])[examined].numpy())
        return out

    free.sampling.speculative.verify_window = observed
    try:
        sampler.sample(labels, seed, progress=True)
    finally:
        free.sampling.speculative.verify_window = verify_window
    return np.concatenate(deltas), np.concatenate(fates)


def bins(delta: NDArray[Any], accepted: NDArray[Any]) -> list[dict[str, float]]:
    """One row for each bin.

    ``expected`` is the mean of 2 Phi(-delta / 2) over the bin's own drafts. Given its delta a draft
    is accepted independently of what went before, so the variance of their number is the sum of
    p (1 - p), also along a trajectory.
    """
    p = erfc(delta / np.sqrt(8.0))
    place = np.digitize(delta, EDGES) - 1
    joined, groups = np.zeros(len(delta), dtype=bool), []
    for index in range(len(EDGES) - 1):
        joined = joined | (place == index)
        if min(p[joined].sum(), (1 - p[joined]).sum()) >= EXPECTED:
            groups.append(joined)
            joined = np.zeros_like(joined)
    groups[-1:] = [groups[-1] | joined] if groups else [joined]
    rows = []
    for own in groups:
        count, error = int(own.sum()), float(np.sqrt((p[own] * (1 - p[own])).sum()))
        excess = float(accepted[own].sum() - p[own].sum())
        rows.append(
            {
                "delta": float(delta[own].mean()),
                "drafts": count,
                "accepted": float(accepted[own].mean()),
                "expected": float(p[own].mean()),
                "standard_error": error / count,
                "z": excess / error if error > 0 else 0.0,
            }
        )
    return rows


def plot(path: str, rows: list[dict[str, Any]]) -> None:
    """Left: acceptance against delta. Right: deviations in standard errors."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    line = np.linspace(0.0, 6.0, 300)
    left.plot(line, erfc(line / np.sqrt(8.0)), color="0.6", label="2 Phi(-delta / 2)", zorder=0)
    right.axhspan(-4, 4, color="0.93", zorder=0)
    right.axhline(0, color="0.6", zorder=0)
    for index, row in enumerate(rows):
        style: dict[str, Any] = {"color": plt.get_cmap("tab20")(index), "marker": "o"}
        expected, accepted, error, z = (
            np.array([part[name] for part in row["bins"]])
            for name in ("expected", "accepted", "standard_error", "z")
        )
        delta = -2.0 * ndtri(expected / 2.0)  # where the curve has the bin's mean
        left.errorbar(
            delta, accepted, error, label=row["label"], markersize=3, linestyle="", **style
        )
        right.plot(delta, z, markersize=4, linestyle="", **style)
    left.set(xlabel="delta", ylabel="share of drafts accepted", xlim=(0, 5), ylim=(0, 1.02))
    right.set(xlabel="delta", ylabel="deviation, standard errors", ylim=(-5, 5))
    right.set_xscale("symlog", linthresh=0.1)
    right.set_xlim(0, None)
    left.legend(fontsize="x-small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--cfg", type=float, default=1.5)
    parser.add_argument("--network", help="folder of free train-variance")
    parser.add_argument("--json")
    parser.add_argument("--plot")
    options = parser.parse_args()

    teacher, drafter = load_pretrained(options.model)
    labels = torch.arange(options.images) % teacher.num_classes
    names = ("model", "steps", "window", "images", "cfg")
    settings = {name: getattr(options, name) for name in names}
    if options.network is not None:
        settings["network"] = digest(f"{options.network}/model.safetensors")
    rows: list[dict[str, Any]] = []
    family = members(options.steps, options.network)
    for index, (label, schedule) in enumerate(family.items()):
        # The paper's way: every round draws anew, so drafts are independent given their delta.
        sampler = SpeculativeSampler(teacher, drafter, schedule, options.window, options.cfg)
        own = bins(*record(sampler, labels, seed=10**6 * index))
        drafts = sum(row["drafts"] for row in own)
        accepted = sum(row["drafts"] * row["accepted"] for row in own) / drafts
        worst = max((row["z"] for row in own), key=abs)
        rows.append({"label": label, "drafts": drafts, "accepted": accepted, "bins": own})
        print(
            f"{label:22s} {drafts:7d} drafts  {100 * accepted:5.1f} % accepted  "
            f"largest deviation of {len(own)} bins: {worst:+.2f} standard errors"
        )
        if options.json:
            write_json(options.json, {"machine": machine(), "settings": settings, "rows": rows})
    if options.plot:
        plot(options.plot, rows)


if __name__ == "__main__":
    main()
