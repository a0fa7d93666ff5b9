"""Exports of models, made on first use and kept in the cache folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from free.drafters.feature import FeatureDrafter
from free.engines.manifest import Manifest
from free.export.package import export_model
from free.files import cache_folder, writable_cache
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
    replaced. A ValueError names ``FREE_CACHE`` if nothing can be kept there.

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
    name = key.hexdigest()[:16]
    with suppress(OSError, ValueError):
        folder = cache_folder("onnx") / name
        manifest = Manifest.read(folder)
        manifest.check_files(folder)
        # The record of its acceptance is no part of a graph, and may be younger.
        record = drafter.acceptance if drafter is not None else {}
        if record and manifest.sampling.get("acceptance") != record:
            manifest.sampling["acceptance"] = record
            manifest.write(folder)
        return folder
    folder = writable_cache("onnx") / name
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
