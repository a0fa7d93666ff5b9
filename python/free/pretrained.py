"""Loading a teacher with a drafter."""

from __future__ import annotations

from pathlib import Path

import torch

from free.drafters.feature import FeatureDrafter
from free.drafters.frozen import FrozenDrafter
from free.models.checkpoints import bundled_drafter, locate, read_drafter
from free.models.dit import DiT
from free.models.drafter import DrafterNet


def load_pretrained(
    model: str | Path,
    drafter: str | Path | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    constants: str | None = None,
) -> tuple[DiT, FeatureDrafter | FrozenDrafter]:
    """Load a teacher and a drafter for it.

    Parameters
    ----------
    model : str or Path
        ``"mnist"``, the embedded model, or a teacher's checkpoint of any format; see
        :meth:`free.DiT.from_pretrained`. A folder with ``teacher/`` and ``drafter/`` is a bundle.
    drafter : str or Path, optional
        A drafter's folder or hub id, or a bundle with one; or ``"frozen"``, which needs no
        training. By default the bundle's own, and frozen where there is none.
    dtype, device, constants
        See :meth:`free.DiT.from_pretrained`; the first two are of both networks.

    Returns
    -------
    teacher, drafter
        The drafter's ``sampling`` are the settings measured to serve it best:
        ``SpeculativeSampler(teacher, drafter, schedule, **drafter.sampling)``.

    Raises
    ------
    ValueError, ImportError
        See :meth:`free.DiT.from_pretrained`; ValueError also if the drafter does not fit.
    """
    path = locate(model, "model")
    teacher = DiT.from_pretrained(path, dtype=dtype, device=device, constants=constants)
    folder = bundled_drafter(path) if drafter is None else drafter
    if folder is None or folder == "frozen":
        return teacher, FrozenDrafter()
    network, sampling = read_drafter(
        DrafterNet, folder, dtype=dtype, device=device, argument="drafter"
    )
    return teacher, FeatureDrafter(network, teacher, sampling)
