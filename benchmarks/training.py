"""Where a step of training a drafter goes, and what it takes at DiT-XL/2's shape.

    OMP_NUM_THREADS=1 python benchmarks/training.py --json benchmarks/results/training.json
    python benchmarks/training.py --shapes DiT-XL/2 --device cuda --precision bf16 --batch-size 64

Each shape runs through free.training.train, with a teacher of random weights (the embedded one for
mnist), whose speed is that of trained ones. A step is split into the networks' forward passes, the
backward pass, the data, and the rest, which is the trainer's own: what the loss computes around
the networks, the optimiser, the averaged weights, shortening gradients, the log. Figures are
medians over steps. On a GPU each part is waited for, which a run does not do.

From the networks' operations (counted, not measured) follows what a run of the supplement's length
would take here, and what its machine achieved: 120 epochs of 30 % of ImageNet at 256 in 56.8 h on
four RTX 4090.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.flop_counter import FlopCounterMode

from free import DiT, DiTConfig, DrafterNet, load_pretrained
from free.devices import peak, reset_peak
from free.files import write_json
from free.machine import machine
from free.training.dataset.sets import ImageSet, TrainingImages
from free.training.losses import drafter_loss
from free.training.parallel import Ranks
from free.training.precision import choose_precision
from free.training.recipe import recipe_named
from free.training.trainer import TrainConfig, train

#: Rows of a batch and steps that are measured, for a CPU.
SIZES = {"mnist": (128, 12), "DiT-S/4": (8, 8), "DiT-XL/2": (1, 2)}
#: The supplement's run: images in all, hours, GPUs.
PAPER = (120 * 0.3 * 1_281_167, 56.8, 4)


class Stopwatch:
    """Seconds of each part of each step; a step begins when data are asked for."""

    def __init__(self, device: torch.device) -> None:
        self.steps: list[dict[str, float]] = []
        self._device = device
        self._begun = 0.0

    def now(self) -> float:
        """Seconds, when the device is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def begin(self) -> None:
        """The step before ends, and a new one begins."""
        now = self.now()
        if self.steps:
            self.steps[-1]["step"] = now - self._begun
        self.steps.append({})
        self._begun = now

    def add(self, name: str, seconds: float) -> None:
        """To a part of this step."""
        self.steps[-1][name] = self.steps[-1].get(name, 0.0) + seconds

    def timing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, its time noted under ``name``."""

        def timed(*arguments: Any, **options: Any) -> Any:
            start = self.now()
            result = function(*arguments, **options)
            self.add(name, self.now() - start)
            return result

        return timed


class Asked:
    """Images that tell the stopwatch when they are asked for."""

    def __init__(self, images: TrainingImages, watch: Stopwatch) -> None:
        self._images, self._watch = images, watch
        self.record, self.skipped = images.record, images.skipped
        self.num_classes, self.sample_shape = images.num_classes, images.sample_shape

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, *arguments: Any) -> Any:
        """Images and labels of a step."""
        self._watch.begin()
        return self._watch.timing("data", self._images.batch)(*arguments)


@contextmanager
def watched(watch: Stopwatch) -> Iterator[None]:
    """Backward passes and the optimiser's steps are timed."""
    backward, started = torch.Tensor.backward, [0.0]

    def before(*_: Any) -> None:
        started[0] = watch.now()

    def after(*_: Any) -> None:
        watch.add("optimiser", watch.now() - started[0])

    hooks = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    torch.Tensor.backward = watch.timing("backward", backward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.backward = backward  # type: ignore[method-assign]
        for hook in hooks:
            hook.remove()


def measure(name: str, teacher: DiT, images: TrainingImages, options: Any) -> dict[str, Any]:
    """Medians over the steps of a short run, and the most memory it takes."""
    device = torch.device(options.device)
    batch_size, count = SIZES.get(name, (8, 8))
    batch_size, count = options.batch_size or batch_size, options.steps or count
    steps = options.warmup + count + 1  # the last one also writes the checkpoint
    recipe = recipe_named(options.recipe)
    drafter = DrafterNet(teacher.config, recipe.depth)
    drafter.initialize_from(teacher)
    teacher.to(device)
    watch, ranks = Stopwatch(device), Ranks(device=device)
    precision = choose_precision(options.precision, ranks)
    teacher.forward = watch.timing("teacher", teacher.forward)  # type: ignore[method-assign]
    drafter.forward = watch.timing("drafter", drafter.forward)  # type: ignore[method-assign]

    loss = partial(drafter_loss, teacher=teacher, recipe=recipe)
    config = TrainConfig(
        steps, batch_size, precision=precision.name, save_every=steps, log_every=max(1, count // 2)
    )
    reset_peak(device)
    with tempfile.TemporaryDirectory() as folder, watched(watch):
        train(
            drafter,
            watch.timing("loss", loss),
            Asked(images, watch),
            config,
            folder,
            ranks=ranks,
            progress=False,
        )
    memory = peak(device)
    kept = watch.steps[options.warmup : -1]
    for step in kept:
        step["networks"] = step["teacher"] + step["drafter"] + step["backward"]
        step["loss arithmetic"] = step.pop("loss") - step["teacher"] - step["drafter"]
        step["own"] = step["step"] - step["networks"] - step["data"]
        step["share"] = step["own"] / step["step"]
    medians = {part: statistics.median(step[part] for step in kept) for part in kept[0]}
    return {
        "shape": name,
        "batch_size": batch_size,
        "precision": precision.name,
        "steps": len(kept),
        "seconds": medians,
        "images_per_second": batch_size / medians["step"],
        "bytes": memory,
        "parameters": sum(weight.numel() for weight in drafter.parameters()),
    }


def operations(config: DiTConfig, depth: int) -> dict[str, float]:
    """Floating-point operations of one row's forward pass, of each network."""
    with torch.device("meta"):
        teacher, drafter = DiT(config), DrafterNet(config, depth)
        x = torch.empty(1, *teacher.sample_shape)
        t = torch.zeros(1, dtype=torch.int64)
        tokens = (config.image_size // config.patch_size) ** 2
        feature = torch.empty(1, tokens, config.hidden_size)
        calls = {
            "teacher": partial(teacher, x, t, t),
            "drafter": partial(drafter, x, x, t, feature[:, 0], feature),
        }
        found = {}
        for name, call in calls.items():
            with FlopCounterMode(display=False) as counter:
                call()
            found[name] = float(counter.get_total_flops())
    # Two passes of the teacher; a backward pass costs two forward ones.
    return {**found, "image": 2 * found["teacher"] + 3 * found["drafter"]}


def inputs(name: str) -> tuple[DiT, TrainingImages]:
    """Teacher and images of a shape."""
    if name == "mnist":
        from free.training.dataset.sets import embedded_set

        return load_pretrained("mnist")[0], embedded_set("mnist")
    torch.manual_seed(0)
    teacher = DiT(DiTConfig.named(name)).eval().requires_grad_(False)
    images = torch.randn(64, *teacher.sample_shape)
    return teacher, ImageSet(images, torch.arange(64), 1000, {"source": "noise"})


def show(row: dict[str, Any]) -> None:
    seconds, memory = row["seconds"], row["bytes"]
    print(f"\n{row['shape']}, batch {row['batch_size']}, {row['precision']}")
    for part in ("step", "teacher", "drafter", "backward", "data", "own"):
        print(f"  {part:10s} {1e3 * seconds[part]:10.1f} ms")
    own = ", ".join(
        f"{part} {1e3 * seconds[part]:.1f}" for part in ("loss arithmetic", "optimiser")
    )
    print(f"  own share  {100 * seconds['share']:10.1f} %   ({own} ms)")
    size = "unknown" if memory is None else f"{memory / 2**30:.2f} GiB"
    print(f"  {row['images_per_second']:.3g} images/s, peak memory {size}")


def predict(row: dict[str, Any], counted: dict[str, float]) -> dict[str, float]:
    """What the run of the supplement takes at this speed, and what its own GPUs achieved."""
    images, hours, gpus = PAPER
    here = row["images_per_second"]
    there = images / (hours * 3600) / gpus
    found = {
        "operations_per_image": counted["image"],
        "achieved_here": here * counted["image"],
        "hours_of_the_paper_s_run_on_four": images / (4 * here) / 3600,
        "paper_images_per_second_and_gpu": there,
        "paper_achieved_per_gpu": there * counted["image"],
    }
    speed, hours_here = found["achieved_here"] / 1e12, found["hours_of_the_paper_s_run_on_four"]
    print(f"  {counted['image'] / 1e9:.0f} GFLOP an image, {speed:.3g} TFLOP/s")
    print(f"  the paper's run on four of this device: {hours_here:,.0f} h")
    theirs = found["paper_achieved_per_gpu"] / 1e12
    print(f"  on its own four: {hours} h, {there:.0f} images/s and {theirs:.1f} TFLOP/s each")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default="mnist,DiT-S/4,DiT-XL/2")
    parser.add_argument("--batch-size", type=int, help="of all shapes; by default by shape")
    parser.add_argument("--steps", type=int, help="that are counted; by default by shape")
    parser.add_argument("--warmup", type=int, default=1, help="steps that are not counted")
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--precision", default="auto", help="auto, fp32, tf32 or bf16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]  # of other processes: figures want it near 0

    rows, depth = [], recipe_named(options.recipe).depth
    for name in options.shapes.split(","):
        teacher, images = inputs(name)
        row = measure(name, teacher, images, options)
        show(row)
        if name == "DiT-XL/2":
            row["prediction"] = predict(row, operations(DiTConfig.named(name), depth))
        rows.append(row)
        del teacher
    if options.json:
        record = {
            "machine": machine(),
            "command": sys.argv,
            "settings": vars(options),
            "load": load,
        }
        write_json(options.json, {**record, "rows": rows})


if __name__ == "__main__":
    main()
