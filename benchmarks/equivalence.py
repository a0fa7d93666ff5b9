"""Do two versions of the code decide alike: rounds, rows, acceptances and samples of fixed seeds.

    python benchmarks/equivalence.py --out before.npz        # run, and keep what was decided
    python benchmarks/equivalence.py --against before.npz    # run again: 1 if any differs

Counts must be equal, samples to rounding; on one machine, since another rounds otherwise. Of the
package only what ``import free`` offers is used, which versions have in common. Rules for windows
are left out: the automatic one goes by the clock, and one's own would have to import more. Exits
with 1 if a configuration differs, or fails.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import random
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import free

#: Samples may differ by so much, relative to ``max(1, |x|)``; other numbers that are no counts.
ROUNDING, RELATIVE = 1e-4, 1e-6
#: Of a report, what the clock and the machine say, and memory, which is no decision.
IGNORED = ("seconds", "seconds_by_phase", "execution", "kept_bytes")

Found = dict[str, tuple[dict[str, Any], Any]]

_ABAR = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000)))
_DDPM = free.Schedule.ddpm(20)
SCHEDULES = {
    "posterior": _DDPM,
    "upper": free.Schedule.ddpm(30, variance="upper"),
    "between": free.Schedule.ddpm(24, variance=0.4),
    "of state": free.Schedule.ddpm(16, variance=lambda x, t: (x.flatten(1).mean(1)).sigmoid()),
    "eta": free.Schedule.ddpm(20, stochasticity=0.5),
    "few": free.Schedule.ddpm(6),
    "many": free.Schedule.ddpm(60),
    "betas": free.Schedule.from_betas(np.linspace(0.01, 0.14, 1000) ** 2, range(999, 98, -50)),
    "vp": free.Schedule.sde("vp", 40, 0.8),
    "linear": free.Schedule.sde("linear", 25, 0.7),
    # Does not say how eps tells x0.
    "bare": free.Schedule(_DDPM.timesteps, _DDPM.a, _DDPM.b, _DDPM.sigma, *np.zeros((2, 20))),
    "ddim": free.Schedule.ddpm(20, stochasticity=0.0),
    "250": free.Schedule.ddpm(250),
}


class Gaussians:
    """The exact eps, or velocity, of data that is six Gaussians, three for each of two classes."""

    num_classes = null_label = 2

    def __init__(self, shape: tuple[int, ...], flow: bool, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(5)
        self.modes = 1.2 * torch.randn(6, math.prod(shape), generator=generator).to(dtype)
        times = torch.linspace(0, 1, 1001, dtype=torch.float64)
        self.flow, self.signal = flow, 1 - times if flow else _ABAR.sqrt()
        self.noise = times if flow else (1 - _ABAR).sqrt()

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> free.TeacherOutput:
        """The null class is the union of the two."""
        state = x.flatten(1).to(self.modes.dtype)
        signal, noise = (column[t, None].to(state.dtype) for column in (self.signal, self.noise))
        offset = state[:, None] - signal[:, None] * self.modes  # [R, 6, D]
        variance = (0.15 * signal).square() + noise.square()
        hidden = (y[:, None] != torch.arange(6) // 3) & (y[:, None] != 2)
        logit = (-offset.square().sum(2) / (2 * variance)).masked_fill(hidden, -torch.inf)
        eps = noise * (logit.softmax(1)[:, :, None] * offset).sum(1) / variance
        image = (state - noise * eps) / signal.clamp(min=1e-3)
        return free.TeacherOutput((eps - image if self.flow else eps).view_as(x))


class RandomDiT(free.DiT):
    """The exact eps of Gaussian data, disturbed by a network with random weights."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> free.TeacherOutput:
        """As of :class:`free.DiT`."""
        out = super().forward(x, t, y)
        noise = (1 - _ABAR[t.clamp(max=999)]).sqrt().to(out.eps.dtype)
        return out._replace(eps=out.eps + noise.view(-1, 1, 1, 1) * x)


class Following:
    """A drafter without changes of x0: eps follows the state by a slope, guess after guess."""

    def begin(self, batch: Any) -> None:
        """It needs nothing of the run."""

    def predict(self, x: Tensor, k: Tensor, y: Tensor, carry: Any) -> tuple[Tensor, Any]:
        """The carry is the last eps and its state."""
        eps = carry["eps"] + 0.2 * (x - carry["x"])
        return eps, {"eps": eps, "x": x}

    def carry_from(self, teacher_output: Any, rows: Tensor) -> Any:
        """What the teacher said."""
        return {"eps": teacher_output.eps[rows].float(), "x": teacher_output.x[rows]}


def _randomized(network: torch.nn.Module, last: float, dtype: torch.dtype) -> Any:
    """Weights by their names; those of the last layer are of size ``last``."""
    for name, weight in network.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        scale = last if name.startswith("final_layer.linear") else 0.2
        weight.data = scale * torch.randn(weight.shape, generator=generator)
    return network.eval().requires_grad_(False).to(dtype)


@functools.cache
def networks(name: str, output: str, flow: bool) -> tuple[Any, Any]:
    """A teacher, and its trained drafter if it has one."""
    dtype = torch.float64 if output == "float64" else torch.float32
    config = free.DiTConfig(8, 2, 3, hidden_size=32, depth=2, heads=2, num_classes=5)
    if name == "mnist":
        teacher, drafter = free.load_pretrained("mnist", dtype=dtype)
    elif name == "dit":
        teacher = _randomized(RandomDiT(config), 0.02, dtype)
        network = _randomized(free.DrafterNet(config, gate=True), 0.002, dtype)
        drafter = free.FeatureDrafter(network, teacher)
    else:
        teacher, drafter = Gaussians(SHAPES[name], flow, dtype), None
    if output != "bfloat16":
        return teacher, drafter

    def rounded(x: Tensor, t: Tensor, y: Tensor) -> free.TeacherOutput:
        out = teacher(x, t, y)
        return out._replace(eps=out.eps.bfloat16())

    rounded.num_classes, rounded.null_label = teacher.num_classes, teacher.null_label
    return rounded, drafter


SHAPES = {"mnist": (1, 28, 28), "dit": (3, 8, 8), "points": (2,), "images": (3, 4, 4)}
RELAXATIONS: dict[Any, Any] = {
    None: lambda N: None,
    "allow": lambda N: free.Relaxation("allow", 0.5, tv_budget=0.2),
    "temper": lambda N: free.Relaxation("temper", 1.0),
    "variance": lambda N: free.Relaxation("temper", 1.0, uncertainty="learned_variance"),
    "table": lambda N: free.Relaxation("allow", 0.3, 0.5, np.linspace(-0.5, 1.0, N).tolist()),
}
AXES: dict[str, tuple[Any, ...]] = {
    "teacher": tuple(SHAPES),
    "output": ("float32", "float64", "bfloat16"),
    "schedule": tuple(SCHEDULES)[:-2],
    "drafter": ("trained", "frozen", "eps", "following"),
    "window": (2, 3, 5, 8, 16),
    "sweeps": (None, 1, 2, 3),
    "recycle": (False, "response", "reuse", "drafter"),
    "verifier": ("reflection", "block"),
    "relaxation": tuple(RELAXATIONS),
    "guidance": (1.0, 1.5, "channels"),
    "batch": ("1", "3", "5", "alike"),
}
USUAL = {name: values[0] for name, values in AXES.items()} | {"guidance": 1.5, "window": 8}
PLAIN = USUAL | {"drafter": None}  # a window of 0 is the plain sampler
PICKED: list[dict[str, Any]] = [
    *(PLAIN | {"teacher": t, "window": w} for t in AXES["teacher"] for w in (0, 1)),
    *(PLAIN | {"teacher": "dit", "schedule": s, "window": 0} for s in AXES["schedule"][1:]),
    *(PLAIN | {"teacher": "points", "schedule": "ddim", "window": w} for w in (0, 1)),
    *(USUAL | {"sweeps": s, "recycle": r} for s in (None, 1, 2) for r in AXES["recycle"]),
    *(USUAL | {"sweeps": 1, "verifier": "block", "window": w} for w in (8, 16, 40)),
    USUAL | {"sweeps": 1, "recycle": "response", "window": 16, "schedule": "250"},
    USUAL | {"sweeps": 1, "recycle": "response", "window": 16, "drafter": "frozen"},
]


def possible(c: dict[str, Any]) -> bool:
    """Whether a configuration is allowed, and means something."""
    if c["verifier"] == "block" and (c["recycle"] or c["relaxation"]):
        return False
    if c["drafter"] == "trained" and (
        c["teacher"] in ("points", "images") or c["schedule"] == "bare"
    ):
        return False
    if c["relaxation"] == "variance":
        return c["teacher"] == "dit" and c["schedule"] not in ("bare", "linear")
    return (c["teacher"], c["schedule"]) != ("mnist", "linear")


def configurations(drawn: int = 230, candidates: int = 40) -> dict[str, dict[str, Any]]:
    """By name: those picked, and then the candidates with most pairs of values not seen before."""
    draw, seen, chosen = random.Random(0), set(), list(PICKED)
    while len(chosen) < len(PICKED) + drawn:
        some = [{a: draw.choice(v) for a, v in AXES.items()} for _ in range(candidates)]
        pairs = [(c, set(itertools.combinations(c.items(), 2))) for c in some if possible(c)]
        if pairs:
            best, its = max(pairs, key=lambda pair: len(pair[1] - seen))
            seen |= its
            chosen.append(best)
    return {" ".join(f"{axis}={value}" for axis, value in c.items()): c for c in chosen}


def sampled(name: str, c: dict[str, Any], seed: int) -> tuple[dict[str, Any], Any]:
    """What the report of one configuration counts, and its samples."""
    schedule, shape = SCHEDULES[c["schedule"]], SHAPES[c["teacher"]]
    teacher, trained = networks(c["teacher"], c["output"], c["schedule"] == "linear")
    guidance = {"cfg_scale": c["guidance"]}
    if c["guidance"] == "channels":
        guidance = {"cfg_scale": 1.5, "cfg_channels": max(shape[0] - 1, 1)}
    sampler: Any = free.SequentialSampler(teacher, schedule, **guidance)
    if c["window"]:
        drafters = {"trained": trained, "eps": free.FrozenDrafter("eps"), "following": Following()}
        drafter = drafters.get(c["drafter"], c["drafter"])
        settings = {axis: c[axis] for axis in ("window", "verifier", "sweeps", "recycle")}
        settings |= {"relaxation": RELAXATIONS[c["relaxation"]](len(schedule)), **guidance}
        sampler = free.SpeculativeSampler(teacher, drafter, schedule, **settings)
    first = zlib.crc32(name.encode()) + seed
    seeds = {"3": [first, 2**64 - 1 - first, -first], "alike": [first] * 3}.get(c["batch"])
    size = len(seeds) if seeds else int(c["batch"])
    labels = [(first + 3 * i) % (teacher.num_classes + 1) for i in range(size)]  # also no class
    samples, report = sampler.sample(labels, seeds or first, shape)
    counts = json.loads(report.to_json())
    return {key: value for key, value in counts.items() if key not in IGNORED}, samples.numpy()


def write(path: Path, found: Found) -> None:
    """Counts as JSON, and samples by their place there; atomically."""
    record = json.dumps({name: counts for name, (counts, _) in found.items()}, allow_nan=False)
    samples = {str(i): samples for i, (_, samples) in enumerate(found.values())}
    with tempfile.TemporaryDirectory(dir=path.resolve().parent, prefix=".equivalence-") as folder:
        temporary = Path(folder) / "written.npz"
        np.savez_compressed(temporary, record=np.array(record), **samples)
        temporary.replace(path.resolve())


def read(path: Path) -> Found:
    """What :func:`write` wrote."""
    with np.load(path, allow_pickle=False) as file:
        record = json.loads(str(file["record"]))
        return {n: (counts, file[str(i)]) for i, (n, counts) in enumerate(record.items())}


def same(old: Any, new: Any) -> bool:
    """Counts exactly, other numbers to rounding."""
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(same, old, new))
    if isinstance(old, float) and isinstance(new, float):
        return math.isclose(old, new, rel_tol=RELATIVE, abs_tol=1e-12)
    return type(old) is type(new) and old == new


def differences(before: Found, now: Found) -> tuple[dict[str, list[str]], float]:
    """In words, by configuration; and the largest distance of samples."""
    found, largest, absent = {}, 0.0, ({}, np.zeros(0))
    for name in {**before, **now}:
        (old, x), (new, z) = before.get(name, absent), now.get(name, absent)
        keys = sorted((old or new).keys() - set(IGNORED))
        keys = [key for key in keys if not same(old.get(key), new.get(key))]
        words = [f"{key}: {old.get(key)} -> {new.get(key)}" for key in keys]
        apart = math.inf
        if x.shape == z.shape and np.isfinite([x, z]).all():
            apart = float((np.abs(z - x) / np.maximum(1.0, np.abs(x))).max(initial=0.0))
        if apart > ROUNDING:
            words.append(f"samples: {apart:.2g} apart")
        largest = max(largest, apart)
        if words:
            found[name] = words
    return found, largest


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="file to write what was decided to")
    parser.add_argument("--against", type=Path, help="file of --out to compare with")
    parser.add_argument("--seed", type=int, default=0, help="added to every seed (%(default)s)")
    parser.add_argument("--json", type=Path, help="file for the counts")
    options = parser.parse_args(arguments)
    if options.out is None and options.against is None:
        parser.error("one of --out and --against is needed")
    torch.set_num_threads(1)
    before = None if options.against is None else read(options.against)
    now: Found = {}
    for name, configuration in configurations().items():
        try:
            now[name] = sampled(name, configuration, options.seed)
        except Exception as error:  # the others may still be compared
            now[name] = ({"error": f"{type(error).__name__}: {error}"}, np.zeros(0))
    failed, largest = ({}, 0.0) if before is None else differences(before, now)
    failed |= {n: [counts["error"]] for n, (counts, _) in now.items() if "error" in counts}
    for name, words in failed.items():
        print(name, *(f"{word:.100}" for word in words), sep="\n    ")
    if options.out is not None:
        write(options.out, now)
    rounds = sum(counts.get("rounds", 0) for counts, _ in now.values())
    print(
        f"{len(now)} configurations, {rounds} rounds, {len(failed)} differ or fail"
        + ("" if before is None else f", largest sample difference {largest:.2g}")
    )
    if options.json is not None:
        from free.files import write_json
        from free.machine import machine

        found = {"configurations": len(now), "rounds": rounds, "differ": failed, "largest": largest}
        write_json(options.json, {"machine": machine(), **found})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
