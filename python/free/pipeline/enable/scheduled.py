"""Arguments of pipelines that switch guidance or conditioning on the way, by their names.

Most go by the count of a loop's iterations, which are rounds here. The checks of a round see many
of them switch, but not in a loop without ``interrupt``, nor within the last window.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from free.arguments import shortened

#: What leaves all steps alike.
_ALIKE: dict[str, Any] = {
    "adapter_conditioning_factor": 1.0,  # T2I adapters
    "cfg_interval_end": 1.0,  # ACE-Step
    "cfg_interval_start": 0.0,
    "cfg_trunc_ratio": 1.0,  # Lumina 2
    "cfg_truncation": 1.0,  # Z-Image
    "denoising_end": None,  # Stable Diffusion XL
    "editing_prompt": None,  # SEGA, LEDITS++
    "enable_temporal_reasoning": False,  # ChronoEdit
    "gligen_scheduled_sampling_beta": 1.0,
    "guidance_schedule": None,  # Ideogram 4
    "skip_guidance_layers": None,  # Stable Diffusion 3
    "use_dynamic_cfg": False,  # CogVideoX
}


def refuse_scheduled(pipeline: str, given: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the argument, if what a pipeline was ``given`` switches steps."""
    for name, alike in _ALIKE.items():
        value = given.get(name, alike)
        if value is None or value is alike or value == alike:
            continue
        raise ValueError(
            f"{name} must be {alike} for an enabled {pipeline}, so that all steps are guided and "
            f"conditioned alike, got {shortened(value)}: leave it out, or call free.disable first"
        )
