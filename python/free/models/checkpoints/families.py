"""SiT's and REPA's files: the names of DiT's, and what else they hold and say.

Both predict a velocity at times in [0, 1]. SiT's time runs from noise to image (Ma et al.,
2401.08740), REPA's from image to noise (Yu et al., 2410.06940).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from free.files import shown
from free.models.checkpoints.tensors import StoredTensor

#: What the arguments of their training scripts say: the path, and what is predicted.
_ARGUMENTS = {("Linear", "velocity"): "sit", ("linear", "v"): "repa"}
#: REPA's heads that align a block's output with an encoder's.
_PROJECTORS = "projectors."


def split_projectors(
    tensors: Mapping[str, StoredTensor],
) -> tuple[dict[str, StoredTensor], dict[str, StoredTensor]]:
    """The network's tensors, and those of REPA's projectors, which serve its training alone."""
    sides: tuple[dict[str, StoredTensor], dict[str, StoredTensor]] = {}, {}
    for name, tensor in tensors.items():
        sides[name.startswith(_PROJECTORS)][name] = tensor
    return sides


def told_family(arguments: Mapping[str, Any], path: Path) -> str | None:
    """The family that a training's arguments name, or None; ``path`` is for messages.

    DiT's training has no path between noise and image. Raises ValueError if it was another path
    than the linear one, or another prediction than the velocity.
    """
    if "path_type" not in arguments:
        return None
    told = arguments["path_type"], arguments.get("prediction")
    for known, family in _ARGUMENTS.items():
        if told == known:
            return family
    raise ValueError(
        f"args.path_type and args.prediction of {path} must be Linear and velocity, as SiT's, or "
        f"linear and v, as REPA's, got {shown(told[0])} and {shown(told[1])}"
    )
