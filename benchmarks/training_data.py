"""Images a second: decoded and cropped, encoded by the VAE, and used up by the teacher.

    OMP_NUM_THREADS=1 python benchmarks/training_data.py --json training-data.json
    python benchmarks/training_data.py --device cuda --images 64 --dtype bfloat16

JPEGs of ImageNet's usual 500 x 375 are made for this, with the spectrum of photographs and the
size of ImageNet's files; the VAE is Stable Diffusion's in shape, the teacher DiT-XL/2, both with
random weights, which speed does not depend on. Training passes each image through the VAE once and
through the teacher twice; what the drafter costs comes on top, so training asks for fewer images
than the teacher alone would use up. Files are in the page cache, as they were just written.

The last lines are what the supplement's machine (section A: four RTX 4090, 120 epochs of 30 % of
ImageNet at 256 in 56.8 h, 60 epochs at 512 in 138 h) asked of its loaders, and how many cores such
as this machine's they would have kept busy. They are computed, not measured.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from free import DiT, DiTConfig
from free.bench.timing import timed
from free.files import write_json
from free.images.autoencoder import LatentCoder
from free.machine import machine
from free.training.dataset.open import open_images

#: ImageNet-1K's training split, and the supplement's runs: side, epochs, hours.
IMAGENET = 1_281_167
RUNS = ((256, 120, 56.8), (512, 60, 138.0))


def photograph(seed: int, width: int = 500, height: int = 375) -> Image.Image:
    """Noise whose amplitude falls as the inverse of the frequency, as it does in photographs."""
    random = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)
    frequency = np.maximum(np.hypot(fy, fx), 1 / width)
    grey = random.normal(size=(height, width, 1))
    noise = np.fft.fft2(grey + 0.4 * random.normal(size=(height, width, 3)), axes=(0, 1))
    image = np.fft.ifft2(noise / frequency[..., None], axes=(0, 1)).real
    image = 127.5 + 60 * (image - image.mean()) / image.std()
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def loaders(folder: Path, batch: int, threads: list[int]) -> dict[str, Callable[[], Any]]:
    """A batch, with nothing ahead, for each crop and number of threads."""
    functions: dict[str, Callable[[], Any]] = {}
    for side, _, _ in RUNS:
        for count in threads:
            teacher = SimpleNamespace(sample_shape=(3, side, side), num_classes=1)
            data = open_images(
                folder, teacher, subset=1.0, upscale=True, flip=True, threads=count, prefetch=0
            )
            step = iter(range(1 << 31))
            functions[f"decode {side}, {count} threads"] = lambda data=data, step=step: data.batch(
                0, next(step), range(batch), batch
            )
    return functions


def watched(call: Callable[[], Any], seconds: list[float]) -> Callable[[], Any]:
    """``call``, which notes the CPU seconds of all its threads: the same on a busy machine."""

    def run() -> None:
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)

    return run


def ready(folder: Path, batch: int) -> Callable[[], Any]:
    """A batch at 256 that was decoded in time: what is left to the trainer's own thread."""
    teacher = SimpleNamespace(sample_shape=(3, 256, 256), num_classes=1)
    data = open_images(folder, teacher, subset=1.0, flip=True, threads=1, prefetch=0)
    pixels = data._decoder.pixels(0, 0, range(batch), batch)
    data._decoder = SimpleNamespace(pixels=lambda *request: pixels)
    return lambda: data.batch(0, 0, range(batch), batch)


def networks(device: torch.device, dtype: torch.dtype, images: int) -> dict[str, Callable[[], Any]]:
    """The encoder and two passes of the teacher at 256, of so many images."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=256,
    )
    coder = LatentCoder(vae.eval().requires_grad_(False)).to(device)
    teacher = DiT(DiTConfig.named("DiT-XL/2")).to(device, dtype).eval().requires_grad_(False)
    pixels = torch.rand(images, 3, 256, 256, device=device) * 2 - 1
    x = torch.randn(images, *teacher.sample_shape, device=device)
    t = torch.full((images,), 500, device=device)

    @torch.no_grad()
    def passes() -> None:
        for _ in range(2):
            teacher(x, t, t).eps.sum().item()  # waits for the GPU

    return {
        "encode 256": lambda: coder.encode(pixels).sum().item(),
        "teacher 256, two passes": passes,
    }


def measured(
    functions: dict[str, Callable[[], Any]], images: int, repeats: int
) -> dict[str, dict[str, Any]]:
    """Images a second, core milliseconds an image, and the timings behind them."""
    cpu: dict[str, list[float]] = {name: [] for name in functions}
    timed_functions = {name: watched(call, cpu[name]) for name, call in functions.items()}
    timings = timed(timed_functions, repeats, warmup=1)
    return {
        name: {
            "images_per_second": images / timing.median,
            "core_ms": 1e3 * statistics.median(cpu[name]) / images,
            "images": images,
            **timing._asdict(),
        }
        for name, timing in timings.items()
    }


def asked(rows: dict[str, Any]) -> list[dict[str, Any]]:
    """What the supplement's runs ask of their loaders: images a second, and cores of decoding."""
    found = []
    for side, epochs, hours in RUNS:
        need = epochs * 0.3 * IMAGENET / (3600 * hours)
        core = rows[f"decode {side}, 1 threads"]["core_ms"]
        found.append({"side": side, "epochs": epochs, "hours": hours, "images_per_second": need})
        found[-1]["cores"] = need * core / 1e3
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--threads", default="1,2", help="of decoding; 1 is needed")
    parser.add_argument("--device", default="cpu", help="of VAE and teacher")
    parser.add_argument("--dtype", default="float32", help="of the teacher")
    parser.add_argument("--images", type=int, default=1, help="per call of VAE and teacher")
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "class"
        folder.mkdir()
        for seed in range(arguments.files):
            photograph(seed).save(folder / f"{seed}.jpeg", quality=90)
        size = sum(path.stat().st_size for path in folder.iterdir()) / arguments.files
        threads = [int(count) for count in arguments.threads.split(",")]
        functions = loaders(Path(name), arguments.files, threads)
        functions["batch 256, decoded ahead"] = ready(Path(name), arguments.files)
        rows = measured(functions, arguments.files, arguments.repeats)
    functions = networks(device, getattr(torch, arguments.dtype), arguments.images)
    rows |= measured(functions, arguments.images, max(2, arguments.repeats // 2))

    print(f"JPEGs of 500 x 375, {size / 1e3:.0f} kB each; {torch.get_num_threads()} torch threads")
    for name, row in rows.items():
        print(
            f"{name:28s}{row['images_per_second']:9.2f} images/s"
            f"{row['core_ms']:10.1f} core-ms an image"
            f"  (of {row['samples']}{'' if row['clean'] else ', not clean'})"
        )
    required = asked(rows)
    for run in required:
        print(
            f"the supplement at {run['side']}: {run['epochs']} epochs in {run['hours']} h are "
            f"{run['images_per_second']:.0f} images/s, {run['cores']:.1f} cores of decoding"
        )
    if arguments.json:
        record = {"machine": machine(), "arguments": vars(arguments), "bytes_a_file": size}
        write_json(arguments.json, {**record, "rows": rows, "supplement": required})


if __name__ == "__main__":
    main()
