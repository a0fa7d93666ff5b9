"""Loading a teacher with its drafter."""

from __future__ import annotations

from pathlib import Path

import torch

from free.drafters.feature import FeatureDrafter
from free.models.checkpoint import bundle_path, load_network, load_sampling
from free.models.dit import DiT
from free.models.drafter import DrafterNet

__all__ = ["load_pretrained"]


def load_pretrained(
    model: str | Path, device: torch.device | str = "cpu"
) -> tuple[DiT, FeatureDrafter]:
    """Load a teacher and its drafter.

    Parameters
    ----------
    model : str or Path
        ``"mnist"``, the embedded model, or a folder with ``teacher/`` and ``drafter/``.
    device : torch.device or str

    Returns
    -------
    teacher : DiT
    drafter : FeatureDrafter
        Its ``sampling`` are the settings measured to serve it best:
        ``SpeculativeSampler(teacher, drafter, schedule, **drafter.sampling)``.

    Raises
    ------
    ValueError
        If the folder or a file is missing, truncated or does not fit.
    """
    folder = bundle_path(model)
    teacher = load_network(folder / "teacher", "dit", device)
    network = load_network(folder / "drafter", "drafter", device)
    assert isinstance(teacher, DiT)
    assert isinstance(network, DrafterNet)
    return teacher, FeatureDrafter(network, teacher, load_sampling(folder / "drafter"))
