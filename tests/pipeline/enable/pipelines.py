"""What the tests of enabled pipelines share."""

from typing import Any

import torch
from torch import Tensor, nn

import free
from free.pipeline.tiny import TINY

SD3, SD, DIT, DDPM = (
    "StableDiffusion3Pipeline",
    "StableDiffusionPipeline",
    "DiTPipeline",
    "DDPMPipeline",
)


def law_for(pipe: Any) -> str:
    """The name of a stochastic law for a tiny pipeline, whose own is mostly deterministic."""
    config = pipe.scheduler.config
    flow = config.get("prediction_type") == "flow_prediction"
    flow |= type(pipe.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"
    return "renoise" if flow else "ddpm"


def tiny(name: str = SD3, prompts: int = 2, steps: int = 12) -> tuple[Any, dict[str, Any]]:
    """A tiny pipeline, and arguments for so many steps."""
    pipe, arguments, _ = TINY[name](prompts)
    return pipe, arguments | {"num_inference_steps": steps}


def enabled(
    name: str = SD3, prompts: int = 2, steps: int = 12, window: Any = 4, **settings: Any
) -> tuple[Any, dict[str, Any]]:
    """A tiny pipeline that is enabled, and arguments."""
    pipe, arguments = tiny(name, prompts, steps)
    free.enable(pipe, window, **{"law": law_for(pipe)} | settings)
    return pipe, arguments


def seeded(*seeds: int) -> Any:
    """A generator, or a list of several."""
    made = [torch.Generator().manual_seed(seed) for seed in seeds]
    return made[0] if len(made) == 1 else made


def denoiser(pipe: Any) -> nn.Module:
    return pipe.unet if getattr(pipe, "transformer", None) is None else pipe.transformer


def rows_asked(pipe: Any) -> list[int]:
    """Rows of each call that really reaches the network, from now on: by a hook inside of it."""
    rows: list[int] = []
    inner = next(m for m in denoiser(pipe).modules() if isinstance(m, (nn.Conv2d, nn.Linear)))

    def count(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        rows.append(len(given[0]))

    inner.register_forward_pre_hook(count)
    return rows
