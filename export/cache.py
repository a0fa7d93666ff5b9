"""Exports of models, made on first use and kept in the cache folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from free.drafters.feature import FeatureDrafter
from free.engines.manifest import MANIFEST, Manifest
from free.export.package import export_model
from free.files import cache_folder
from free.models.dit import DiT
from free.version import __version__


def cached_export(
    teacher: DiT,
    drafter: FeatureDrafter | None,
    window: int,
    sweeps: int | None,
    max_batch: int,
    guided: bool,
    *,
    precision: str = "fp32",
    progress: Callable[[str], object] = lambda graph: None,
) -> Path:
    """Find the folder of a model's graphs in the cache; export the model if it is not there.

    Its name is a digest of weights, settings and the version of the package. A damaged export is
    replaced.

    Parameters are those of :func:`free.export.package.export_model`; ``guided`` chooses one kind
    of graphs.
    """
    key = hashlib.sha256()
    config = dataclasses.asdict(teacher.config)
    settings = [__version__, window, sweeps, max_batch, guided, precision]
    key.update(json.dumps([*settings, config]).encode())
    for network in (teacher, *([] if drafter is None else [drafter.network])):
        for name, value in network.state_dict().items():
            key.update(name.encode())
            key.update(value.detach().cpu().contiguous().numpy().tobytes())
    folder = cache_folder() / "onnx" / key.hexdigest()[:16]
    if (folder / MANIFEST).is_file():
        try:
            manifest = Manifest.read(folder)
            manifest.check_files(folder)
        except ValueError:
            pass
        else:
            # The record of its acceptance is no part of a graph, and may be younger.
            record = drafter.acceptance if drafter is not None else {}
            if record and manifest.sampling.get("acceptance") != record:
                manifest.sampling["acceptance"] = record
                manifest.write(folder)
            return folder
    export_model(
        teacher,
        drafter,
        folder,
        window,
        sweeps,
        max_batch,
        precision=precision,
        guidance=(guided,),
        progress=progress,
    )
    return folder
