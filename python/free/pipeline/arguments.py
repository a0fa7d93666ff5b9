"""What a caller asks of a pipeline, checked and in the sampler's terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from free.arguments import as_number, shortened
from free.images.labels import class_ids
from free.sampling.request import Observer
from free.schedule.schedule import Schedule

_SETTINGS = ("window", "sweeps", "recycle", "verifier", "tolerance", "graph")


def classes(class_labels: Any, teacher: Any, names: Mapping[str, int]) -> list[int]:
    """Ids of the classes asked for, [B], by id or by a name of ``names``.

    The teacher's ``num_classes`` and ``null_label``, if it has them, bound the ids; a ValueError if
    there is none, or one that it does not know.
    """
    if isinstance(class_labels, (Tensor, np.ndarray)):
        class_labels = class_labels.tolist()
    if isinstance(class_labels, str) or not isinstance(class_labels, Sequence):
        class_labels = [class_labels]
    if not class_labels:
        raise ValueError("class_labels must be at least one class, got none")
    count = getattr(teacher, "num_classes", None)
    null = getattr(teacher, "null_label", None)
    ids = []
    label: Any
    for label in class_ids(class_labels, names):
        if isinstance(label, bool) or not isinstance(label, Integral):
            raise ValueError(f"class_labels must be ids or names of classes, got {label!r}")
        ids.append(int(label))
        if count is not None and not (0 <= ids[-1] < count or ids[-1] == null):
            allowed = f"0..{count - 1}" + ("" if null is None else f" or {null} (the null class)")
            raise ValueError(f"class_labels must be in {allowed}, got {label}")
    return ids


def cfg_scale(guidance_scale: float) -> float:
    """The sampler's guidance: as in diffusers there is none up to 1; a ValueError unless finite."""
    return max(1.0, as_number(guidance_scale, "guidance_scale must be a finite number"))


def seeds(generator: Any, count: int) -> list[int]:
    """One 64-bit seed for each of ``count`` images, drawn from its generator.

    The generator is a ``torch.Generator``, a sequence of ``count`` of them, or None. One serves
    all images, in turn; None is torch's global one. A ValueError if they are not as many as the
    images, or something else.
    """
    several = isinstance(generator, Sequence) and not isinstance(generator, str)
    generators = list(generator) if several else [generator] * count
    if len(generators) != count:
        raise ValueError(f"generator must have one for each image ({count}), got {len(generators)}")
    if (several or generator is not None) and not all(
        isinstance(each, torch.Generator) for each in generators
    ):
        raise ValueError(
            "generator must be a torch.Generator, a list of one for each image, or None, "
            f"got {generator!r}"
        )
    generators = [each or torch.default_generator for each in generators]
    return [
        int(torch.randint(-(2**63), 2**63 - 1, (), generator=each, device=each.device))
        for each in generators
    ]


def observer(callback: Callable[..., Any], pipe: Any, schedule: Schedule) -> Observer:
    """The sampler's observer that calls ``callback(pipe, step, timestep, {"latents": ...})``.

    It raises a ValueError if the callback changes the latents or returns others, and
    :class:`Interrupted` after one that set ``pipe._interrupt``.
    """

    def observe(step: int, states: Tensor) -> None:
        latents = {"latents": states.clone()}
        answer = callback(pipe, step - 1, schedule.timesteps[step - 1].item(), latents)
        for record in (latents, answer if isinstance(answer, Mapping) else {}):
            if not torch.equal(record.get("latents", states), states):
                raise ValueError(
                    "callback_on_step_end must leave the latents as they are (others would "
                    f"change the law), got others at step {step - 1}"
                )
        if pipe.interrupt:
            raise Interrupted(states)

    return observe


class Interrupted(Exception):  # noqa: N818
    """Ends a run at a callback's wish; ``states [B, ...]`` are how far it had come."""

    def __init__(self, states: Tensor) -> None:
        super().__init__("a callback set pipe._interrupt")
        self.states = states


def sampler_settings(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """A pipeline's ``sampling``, whose values the sampler checks; a ValueError for other keys, and
    for what is no mapping.
    """
    if not isinstance(sampling, Mapping):
        raise ValueError(
            f"sampling must be a dict with keys among {', '.join(_SETTINGS)}, "
            f"got {shortened(sampling)}"
        )
    unknown = [key for key in sampling if key not in _SETTINGS]
    if unknown:
        raise ValueError(f"sampling must have keys among {', '.join(_SETTINGS)}, got {unknown}")
    return dict(sampling)


def sampler_key(
    networks: tuple[object, ...], schedule: Schedule, settings: Mapping[str, Any]
) -> tuple[object, ...]:
    """Equal for samplers that do the same, as long as one of them keeps the networks."""
    return (*map(id, networks), id(schedule.mixture), str(settings), *schedule.key())
