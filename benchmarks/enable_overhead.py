"""What a round of an enabled pipeline costs besides its network, on one CPU thread.

    python benchmarks/enable_overhead.py --json benchmarks/results/enable-overhead.json

Stable Diffusion 3's own loop, whose transformer is replaced by a multiplication: what is left is
the pipeline's arithmetic, the checks, and the round. 50 steps by ``law="renoise"``, guided, windows
of 8. It is the processor's time, all of a call without that in the network, and the fastest of
several calls: others may use the machine.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import free
from free.machine import machine
from free.pipeline.tiny import TINY
from free.pipeline.tiny.record import WIDTH, network

#: Images, channels, height and width.
SHAPES = ((1, 4, 32, 32), (4, 4, 32, 32), (1, 16, 32, 32), (4, 16, 32, 32))
STEPS, CALLS, WINDOW = 50, 8, 8


class Free:
    """A network that costs next to nothing, and how long it took."""

    seconds = 0.0

    def __call__(self, hidden_states: torch.Tensor, **given: Any) -> tuple[torch.Tensor]:
        """What the latents are, halved."""
        began = time.process_time()
        output = (0.5 * hidden_states,)
        self.seconds += time.process_time() - began
        return output


def measure(shape: tuple[int, int, int, int]) -> dict[str, float]:
    """Milliseconds of a step of the plain loop, and of a round, and how many rounds there are."""
    images, channels, height, width = shape
    pipe, arguments, _ = TINY["StableDiffusion3Pipeline"](images)
    pipe.transformer = network(
        "SD3Transformer2DModel",
        num_attention_heads=2,
        attention_head_dim=8,
        sample_size=height,
        in_channels=channels,
        out_channels=channels,
        num_layers=1,
        joint_attention_dim=WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        pos_embed_max_size=height,
    )
    forward = pipe.transformer.forward = Free()
    size = {"num_inference_steps": STEPS, "height": 8 * height, "width": 8 * width}

    def call() -> float:
        forward.seconds, began = 0.0, time.process_time()
        pipe(**arguments | size)
        return time.process_time() - began - forward.seconds

    plain = min(call() for _ in range(CALLS)) / STEPS
    with free.enabled(pipe, WINDOW, law="renoise"):
        calls = [(call(), free.summary(pipe).rounds) for _ in range(CALLS)]
    seconds, rounds = min(calls, key=lambda each: each[0] / each[1])
    return {"plain step": 1e3 * plain, "round": 1e3 * seconds / rounds, "rounds": rounds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    path = parser.parse_args().json
    torch.set_num_threads(1)
    figures = {}
    for shape in SHAPES:
        figures[name := " x ".join(map(str, shape))] = found = measure(shape)
        print(f"{name:>16}: a step {found['plain step']:.2f} ms, a round {found['round']:.2f} ms")
    if path is not None:
        record = {"machine": machine(), "milliseconds": figures}
        path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
