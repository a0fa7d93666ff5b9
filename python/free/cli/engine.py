"""Putting a model on the engine that the command line asks for."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from torch import nn

from free.devices import device_of
from free.drafters.feature import FeatureDrafter
from free.drafters.frozen import FrozenDrafter
from free.engines.load import ENGINES as ON_FOLDERS
from free.engines.load import load_engine
from free.engines.manifest import Manifest
from free.engines.networks import EngineDrafter, EngineTeacher
from free.engines.tensorrt import FLAVOURS
from free.models.checkpoints import EMBEDDED
from free.models.dit import DiT
from free.window import AutoWindow

__all__ = ["ENGINES", "choose_engine", "put_on_engine", "unavailable_to_usage_error"]

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
ENGINES = ("auto", "torch", *ON_FOLDERS)


def choose_engine(engine: str, model: str, device: str, dtype: str) -> str:
    """What ``auto`` stands for: ONNX Runtime for embedded models in float32 on the CPU, where it
    is installed; there it is the fastest measured. Else torch.

    Raises
    ------
    ValueError
        If there is no such engine.
    """
    if engine not in ENGINES:
        raise ValueError(f"--engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if engine != "auto":
        return engine
    if model not in EMBEDDED or (device, dtype) != ("cpu", "float32"):
        return "torch"
    modules = ("onnx", "onnxruntime", "onnxscript")
    installed = all(importlib.util.find_spec(name) is not None for name in modules)
    return "onnxruntime" if installed else "torch"


def put_on_engine(
    engine: str,
    teacher: DiT,
    drafter: FeatureDrafter | FrozenDrafter,
    settings: dict[str, Any],
    guided: bool,
    max_batch: int,
    device: str,
    dtype: str,
) -> tuple[DiT | EngineTeacher, FeatureDrafter | EngineDrafter | FrozenDrafter]:
    """Teacher and drafter on ``engine``; exported now, unless they were before.

    Parameters
    ----------
    engine : str
        From :func:`choose_engine`.
    teacher : DiT
    drafter : FeatureDrafter or FrozenDrafter
    settings : dict
        ``window`` and ``sweeps``; where they are "auto", the drafter's own are exported.
    guided : bool
    max_batch : int
    device : str
    dtype : {"float32", "float16", "bfloat16"}
        Precision of the graphs' products.
    """
    if engine == "torch":
        return teacher, drafter
    from free.export.cache import cached_export

    window, sweeps = settings["window"], settings["sweeps"]
    if window == "auto":  # the drafter's graph is as wide as was found to serve best
        has_width = isinstance(drafter, FeatureDrafter) and "window" in drafter.sampling
        window = drafter.sampling["window"] if has_width else AutoWindow().largest
    if sweeps == "auto":
        sweeps = drafter.sampling.get("sweeps", 1)
    trained = drafter if isinstance(drafter, FeatureDrafter) and window > 1 else None
    with _on_cpu(teacher, *([] if trained is None else [trained.network])):
        folder = cached_export(
            teacher,
            trained,
            window,
            sweeps if trained is not None else None,
            max_batch,
            guided,
            precision=_PRECISIONS[dtype],
            progress=lambda graph: typer.echo(
                f"exporting {graph} for {engine}, once ...", err=True
            ),
        )
    with unavailable_to_usage_error():
        if engine in FLAVOURS:
            from free.export.tensorrt import load_or_build

            for graph in Manifest.read(folder).graphs.values():
                typer.echo(f"building {graph.file} for {engine}, if need be ...", err=True)
                load_or_build(folder / graph.file, graph.contract, flavour=engine)
        on_engine, own = load_engine(folder, engine, device)
    if trained is None:
        return on_engine, drafter
    assert own is not None
    return on_engine, own


@contextmanager
def _on_cpu(*networks: nn.Module) -> Iterator[None]:
    """Networks are exported from the CPU; afterwards they are where they were."""
    places = [device_of(network) for network in networks]
    for network in networks:
        network.cpu()
    try:
        yield
    finally:
        for network, place in zip(networks, places, strict=True):
            network.to(place)


@contextmanager
def unavailable_to_usage_error() -> Iterator[None]:
    """An engine that cannot be had on this machine is the caller's to know, in one line."""
    try:
        yield
    except RuntimeError as error:
        raise ValueError(str(error)) from error
