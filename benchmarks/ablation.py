r"""Drafters trained by different recipes, at an equal budget, on the embedded teacher.

    python benchmarks/ablation.py --out runs/ablation --steps 1200 \
        --json benchmarks/results/recipes.json --markdown recipes.md --plot docs/recipes.png
    python benchmarks/ablation.py --out runs/ablation --variants paper,delta --seeds 0 --steps 300
    python benchmarks/ablation.py --draw benchmarks/results/recipes.json --plot docs/recipes.png
    python benchmarks/ablation.py --count

The last two train nothing: one draws what was found, one counts each variant's operations and
steps.

Every variant gets as many floating-point operations, forward and backward, of both networks, as
``--steps`` batches of the paper's recipe take; hence fewer steps where a step is heavier. Otherwise
all settings are the same. Each run has a folder below ``--out``; one that is finished is not
trained again, one that was stopped goes on, and several processes may share the work by
``--variants`` and ``--seeds``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from free import DiT, DrafterNet, FeatureDrafter, Schedule, SpeculativeSampler
from free.bench.style import COLOURS, PALE, Label, label_ends, name_axes, panels, save
from free.files import write_atomic, write_json
from free.machine import machine
from free.training.dataset.sets import embedded_set
from free.training.losses import drafter_loss
from free.training.parallel import Ranks
from free.training.precision import choose_precision
from free.training.randomness import RowRandom
from free.training.recipe import Recipe
from free.training.trainer import TrainConfig, train
from positions import acceptance_by_position
from rounds import standard_error

#: Sampling as the paper does, and as we recommend.
WAYS: dict[str, dict[str, Any]] = {
    "paper": {"window": 8},
    "recommended": {"window": 16, "sweeps": 1, "recycle": "response"},
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """A recipe, and what is said of it.

    Attributes
    ----------
    label : str
    recipe : Recipe
    rates : dict
        Other settings of the optimiser than all have.
    trained : bool
        False for what training starts from: x0 and the feature stay.
    """

    label: str
    recipe: Recipe = dataclasses.field(default_factory=Recipe)
    rates: dict[str, Any] = dataclasses.field(default_factory=dict)
    trained: bool = True


VARIANTS = {
    "untrained": Variant("none: x0 and the feature stay", trained=False),
    "paper": Variant("the paper's"),
    "paper-rate": Variant(
        "the paper's, its rate of 1e-4 and EMA of .9999",
        rates={"learning_rate": 1e-4, "decay": "constant", "ema_decay": 0.9999},
    ),
    "delta": Variant("log(1 + delta)", Recipe(objective="delta")),
    "depth2": Variant("2 blocks", Recipe(depth=2)),
    "depth3": Variant("3 blocks", Recipe(depth=3)),
    "gate": Variant("gated", Recipe(gate=True)),
    "delta-gate": Variant("log(1 + delta), gated", Recipe(objective="delta", gate=True)),
    "delta-gate-depth2": Variant(
        "log(1 + delta), gated, 2 blocks", Recipe(objective="delta", gate=True, depth=2)
    ),
}


def new_drafter(teacher: DiT, recipe: Recipe, seed: int) -> DrafterNet:
    """A drafter as training starts."""
    torch.manual_seed(seed)
    drafter = DrafterNet(teacher.config, recipe.depth, recipe.gate)
    drafter.initialize_from(teacher)
    return drafter


def operations(teacher: DiT, variant: Variant, batch: int) -> int:
    """Floating-point operations of a step: both networks, forward and backward."""
    data, recipe = embedded_set("mnist"), variant.recipe
    rows = range(batch)
    drafter = new_drafter(teacher, recipe, 0)
    with FlopCounterMode(display=False) as counter:
        x0, labels = data.batch(0, 0, rows, len(rows))
        random = RowRandom(0, 0, rows)
        loss = drafter_loss(drafter, x0, labels, random, teacher=teacher, recipe=recipe)
        loss["loss"].backward()
    return counter.get_total_flops()


def steps_of(teacher: DiT, variant: Variant, options: argparse.Namespace) -> int:
    """How many steps a variant's budget is."""
    budget = options.steps * operations(teacher, VARIANTS["paper"], options.batch)
    return round(budget / operations(teacher, variant, options.batch))


def run(teacher: DiT, name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate a drafter, or read what was found before."""
    variant, folder = VARIANTS[name], options.out / f"{name}-{seed}"
    steps = steps_of(teacher, variant, options)
    rates = {
        "learning_rate": 1e-3,
        "decay": "cosine",
        # Averaged over the last tenth of the run, of the embedded drafter's length at most.
        "ema_decay": min(0.999, 1.0 - 10.0 / steps),
        "warmup": min(200, steps // 10),
        **variant.rates,
    }
    precision = choose_precision("auto", Ranks()).name
    config = TrainConfig(
        steps, options.batch, seed=seed, precision=precision, save_every=100, **rates
    )
    settings = {
        "training": dataclasses.asdict(config),
        "recipe": dataclasses.asdict(variant.recipe),
        "evaluation": {"images": options.images, "steps": 250, "cfg": 1.5},
    }
    path = folder / "result.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["settings"] != settings:
            raise SystemExit(f"{path} is of other settings, {found['settings']}: another --out")
        return found
    network, record = new_drafter(teacher, variant.recipe, seed).eval(), {"seconds": 0.0}
    if variant.trained:
        network, record = train(
            network,
            partial(drafter_loss, teacher=teacher, recipe=variant.recipe),
            embedded_set("mnist"),
            config,
            folder,
            extra={"recipe": dataclasses.asdict(variant.recipe)},
            progress=False,
        )
    assert isinstance(network, DrafterNet)
    network.save_pretrained(folder / "drafter", training=record)
    result = {
        "variant": name,
        "label": variant.label,
        "seed": seed,
        "settings": settings,
        "seconds": record["seconds"],
        "steps": steps * variant.trained,
        "rows": config.batch_size,
        "operations": steps * variant.trained * operations(teacher, variant, options.batch),
        **evaluate(teacher, network, options.images),
    }
    write_json(path, result)
    return result


def evaluate(teacher: DiT, network: DrafterNet, images: int) -> dict[str, Any]:
    """Steps a round both ways, and acceptance by place; noises are the same for all drafters."""
    drafter = FeatureDrafter(network, teacher)
    found: dict[str, Any] = {}
    for way, settings in WAYS.items():
        sampler = SpeculativeSampler(
            teacher, drafter, Schedule.ddpm(250), cfg_scale=1.5, **settings
        )
        labels = [image % teacher.num_classes for image in range(images)]
        report = sampler.sample(labels, seed=0).report
        found[way] = {
            "parallel_efficiency": report.parallel_efficiency,
            "standard_error": standard_error(report),
            "rounds": report.rounds_by_sample,
        }
    places = acceptance_by_position(teacher, drafter, 250, 8, 1.5, None, max(1, images // 5))
    return {**found, "acceptance_by_position": places}


def summarise(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each variant: means over its seeds.

    Standard errors are of the images, of all seeds together, with the spread between seeds where
    that is larger.
    """
    rows = []
    for name in dict.fromkeys(result["variant"] for result in results):
        own = [result for result in results if result["variant"] == name]
        row = {key: own[0][key] for key in ("variant", "label", "steps", "rows", "operations")}
        row["seeds"] = [result["seed"] for result in own]
        row["seconds"] = statistics.mean(result["seconds"] for result in own)
        for way in WAYS:
            values = [result[way]["parallel_efficiency"] for result in own]
            errors = [result[way]["standard_error"] for result in own]
            error = math.sqrt(sum(e * e for e in errors)) / len(own)
            if len(own) > 1:
                error = max(error, statistics.stdev(values) / math.sqrt(len(own)))
            row[way] = {"mean": statistics.mean(values), "error": error, "by_seed": values}
        places = zip(*(result["acceptance_by_position"] for result in own), strict=True)
        row["acceptance_by_position"] = [statistics.mean(place) for place in places]
        rows.append(row)
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    base = next((row["paper"]["mean"] for row in rows if row["variant"] == "paper"), math.nan)
    heading = (
        "recipe", "steps x rows", "seconds", "steps a round, W = 8", "over the paper's",
        "recommended drafting, W = 16", "accepted at place 1", "at place 7", "fall",
    )  # fmt: skip
    lines = [heading, ("---",) * len(heading)]
    for row in rows:
        paper, ours = row["paper"], row["recommended"]
        first, last = row["acceptance_by_position"][0], row["acceptance_by_position"][-1]
        lines.append(
            (
                row["label"],
                f"{row['steps']} x {row['rows']}",
                f"{row['seconds']:.0f}",
                f"{paper['mean']:.2f} ± {paper['error']:.2f}",
                f"{100 * (paper['mean'] / base - 1):+.0f} %",
                f"{ours['mean']:.2f} ± {ours['error']:.2f}",
                f"{100 * first:.1f} %",
                f"{100 * last:.1f} %",
                f"{100 * (1 - last / first):.1f} %",
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """Steps a round of each recipe, the best first, the paper's as a grey line; acceptance by place
    of three of them, the others in grey.
    """
    rows = sorted(rows, key=lambda row: -row["paper"]["mean"])
    figure, (*ways, right) = panels(3, width=4.6, height=1.2 + 0.24 * len(rows))
    places = range(len(rows))
    for axis, way, label, method in (
        (ways[0], "paper", "autoregression, W = 8", "paper"),
        (ways[1], "recommended", "1 sweep, recycled, W = 16", "trained"),
    ):
        means = [row[way]["mean"] for row in rows]
        errors = [row[way]["error"] for row in rows]
        axis.errorbar(means, places, xerr=errors, fmt="o", markersize=5, color=COLOURS[method])
        own = next((row[way]["mean"] for row in rows if row["variant"] == "paper"), None)
        if own is not None:
            axis.axvline(own, color=PALE, linewidth=1, zorder=0)
        axis.set_yticks(places, [row["label"] for row in rows] if axis is ways[0] else [])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        name_axes(axis, "steps a round", label, grid="both")
    named = {
        rows[0]["variant"]: (rows[0]["label"], COLOURS["trained"]),
        "paper": ("the paper's", COLOURS["paper"]),
        "untrained": ("none", COLOURS["image"]),
    }
    ends = []
    for row in rows:
        shares = row["acceptance_by_position"]
        text, colour = named.get(row["variant"], ("", PALE))
        right.plot(range(1, len(shares) + 1), shares, color=colour, zorder=2 if text else 1)
        if text:
            ends.append(Label(len(shares), shares[-1], text, colour))
    name_axes(right, "place in the window", "probability that a draft stands")
    label_ends(right, ends)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="of: " + ", ".join(VARIANTS))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--steps", type=int, default=1200, help="of the paper's recipe")
    parser.add_argument("--batch", type=int, default=64, help="rows of a batch")
    parser.add_argument("--images", type=int, default=30, help="drawn for each figure")
    parser.add_argument("--count", action="store_true", help="only count operations")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--draw", type=Path, metavar="JSON", help="plot its rows, train nothing")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()

    if options.draw:
        plot(options.plot, json.loads(options.draw.read_text(encoding="utf-8"))["rows"])
        return
    names = options.variants.split(",")
    unknown = sorted(set(names) - VARIANTS.keys())
    if unknown:
        parser.error(f"--variants must be of {', '.join(VARIANTS)}, got {', '.join(unknown)}")
    if options.images < 2:
        parser.error(f"--images must be at least 2, got {options.images}")
    torch.set_num_threads(1)
    teacher = DiT.from_pretrained("mnist")
    if options.count:
        for name in names:
            variant = VARIANTS[name]
            count = operations(teacher, variant, options.batch) / 1e9
            steps = steps_of(teacher, variant, options)
            print(f"{name:20s} {count:6.1f} GFLOP a step  {steps:6d} steps")
        return
    if options.out is None:
        parser.error("--out is needed, the folder of the runs")
    results = []
    for seed in map(int, options.seeds.split(",")):
        for name in names:
            result = run(teacher, name, seed, options)
            results.append(result)
            figures = [
                f"{result[way]['parallel_efficiency']:.2f} +- {result[way]['standard_error']:.2f}"
                for way in WAYS
            ]
            print(
                f"{name:20s} seed {seed}  {result['steps']:6d} steps  {result['seconds']:7.0f} s  "
                f"{'  '.join(figures)}",
                flush=True,
            )
    rows = summarise(results)
    table = markdown(rows)
    print(table)
    if options.json:
        settings = {key: getattr(options, key) for key in ("steps", "batch", "images")}
        record = {"machine": machine(), "settings": settings, "rows": rows, "runs": results}
        write_json(options.json, record)
    if options.markdown:
        write_atomic(options.markdown, lambda file: file.write_text(table, encoding="utf-8"))
    if options.plot:
        plot(options.plot, rows)


if __name__ == "__main__":
    main()
