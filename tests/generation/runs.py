"""A small run, and what its archive holds."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from free import DiT, DiTConfig, Schedule, SequentialSampler, SpeculativeSampler
from free.generation import Generated, generate
from tests.networks import randomized

#: Images of 8 x 8 pixels and three classes.
CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)
NUM, BATCH, CHUNKS = 10, 3, 4


def sampler(
    steps: int = 5,
    weights: int = 0,
    dtype: torch.dtype = torch.float32,
    drafter: Any = "frozen",
    **options: Any,
) -> SpeculativeSampler:
    """A speculative one, of a random teacher."""
    settings = {"window": 4, "sweeps": 1, "recycle": "response", "cfg_scale": 1.5, **options}
    teacher = randomized(DiT(CONFIG), weights).to(dtype)
    return SpeculativeSampler(teacher, drafter, Schedule.ddpm(steps), **settings)


def plain() -> SequentialSampler:
    """The sequential one."""
    return SequentialSampler(randomized(DiT(CONFIG)), Schedule.ddpm(5))


def draw(out: Path, draws: Any = None, num: int = NUM, **options: Any) -> Generated:
    """Generate, in chunks of three."""
    return generate(draws or sampler(), out, num, **{"batch_size": BATCH, **options})


def images(out: Path) -> NDArray[np.uint8]:
    """``arr_0``."""
    with np.load(out, allow_pickle=False) as archive:
        return archive["arr_0"]
