"""Loading what a command samples with, and putting it on the engine that the command line names."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import typer
from torch import nn

from free.cli import options
from free.cli.records import EngineOptions, ModelOptions
from free.devices import device_of
from free.drafters import FeatureDrafter, FrozenDrafter
from free.engines.load import ENGINES as ON_FOLDERS
from free.engines.load import load_engine
from free.engines.manifest import MANIFEST, Manifest
from free.engines.networks import EngineDrafter, EngineTeacher, frozen_drafter
from free.engines.tensorrt import FLAVOURS
from free.files import writable_cache
from free.images.autoencoder import LatentCoder, PixelCoder, load_autoencoder, own_vae
from free.images.labels import imagenet_names, label_table
from free.images.picture import check_drawable
from free.models.checkpoints import EMBEDDED, locate, open_source
from free.models.dit import DiT
from free.pretrained import load_pretrained
from free.window import AutoWindow

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
ENGINES = ("auto", "torch", *ON_FOLDERS)


class Models(NamedTuple):
    """A teacher and what belongs to it; ``engine`` is what is to run the networks.

    They are in torch, or, of exported graphs, on their engine already. The coder makes images of
    the teacher's samples.
    """

    teacher: DiT | EngineTeacher
    drafter: FeatureDrafter | FrozenDrafter | EngineDrafter
    coder: LatentCoder | PixelCoder
    engine: str = "torch"
    names: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C) of its images."""
        return self.coder.image_shape(self.teacher.sample_shape)

    @property
    def class_names(self) -> Mapping[str, int]:
        """Classes by name: the model's own; else ImageNet's, for one of 1000 classes; else none."""
        if self.names:
            return {name: label for label, name in enumerate(self.names)}
        return label_table(imagenet_names()) if self.teacher.num_classes == 1000 else {}


def load_models(model: ModelOptions) -> Models:
    """Load what the options name; errors are those of :func:`free.load_pretrained`."""
    dtype = options.parse_dtype(model.dtype)
    device = options.parse_device(model.device)
    teacher: DiT | EngineTeacher
    drafter: FeatureDrafter | FrozenDrafter | EngineDrafter
    names: tuple[str, ...] = ()
    if is_exported(model.model):
        engine, teacher, drafter = _load_exported(model)
    else:
        engine = choose_engine(model) if isinstance(model, EngineOptions) else "torch"
        teacher, drafter = load_pretrained(
            model.model,
            None if model.drafter == "trained" else model.drafter,
            device=device,
            # Graphs have a precision of their own.
            dtype=dtype if engine == "torch" else torch.float32,
            constants=model.constants,
        )
        names = open_source(locate(model.model), "teacher").class_names
    vae = own_vae(model.model) if model.vae is None else model.vae
    if vae is None:
        try:
            check_drawable(teacher.sample_shape)
        except ValueError as error:
            shape = " x ".join(map(str, teacher.sample_shape))
            raise ValueError(
                f"--vae must be given for a model of latents ({shape}), such as "
                "--vae stabilityai/sd-vae-ft-ema, got none"
            ) from error
    coder = load_autoencoder(vae, device, dtype)
    coder.require_fit(teacher.sample_shape)
    return Models(teacher, drafter, coder, engine, names)


def is_exported(source: str) -> bool:
    """Whether this is a folder of ``free export``."""
    return source not in EMBEDDED and (Path(source) / MANIFEST).is_file()


def _load_exported(
    model: ModelOptions,
) -> tuple[str, EngineTeacher, EngineDrafter | FrozenDrafter]:
    """Open exported graphs: the engine's name, and what it runs."""
    if not isinstance(model, EngineOptions):
        raise ValueError(
            f"--model must be a checkpoint for this command, got the exported graphs {model.model}:"
            " free sample, tune and profile run those"
        )
    engine = "onnxruntime" if model.engine == "auto" else model.engine
    if engine not in ON_FOLDERS:
        raise ValueError(
            f"--engine must be one of {', '.join(ON_FOLDERS)} for exported graphs, got {engine!r}"
        )
    for name, value, own in (
        ("dtype", model.dtype, "float32"),
        ("constants", model.constants, None),
    ):
        if value != own:
            raise ValueError(f"--{name} must be left out for exported graphs, got {value!r}")
    if model.drafter not in ("trained", "frozen"):
        raise ValueError(
            f"--drafter must be trained or frozen for exported graphs, got {model.drafter!r}"
        )
    with unavailable_to_usage_error():
        teacher, drafter = load_engine(model.model, engine, model.device)
    if model.drafter == "frozen":
        drafter = frozen_drafter(Manifest.read(model.model).window)
    return engine, teacher, drafter


def _tell_of_torch(reason: object) -> None:
    typer.echo(f"on torch, as exported graphs cannot be kept: {reason}", err=True)


def choose_engine(model: EngineOptions) -> str:
    """Resolve ``auto``: ONNX Runtime for embedded models in float32 on the CPU, where it is
    installed and what is exported for it can be kept, as it is the fastest measured there; else
    torch.
    """
    if model.engine not in ENGINES:
        raise ValueError(f"--engine must be one of {', '.join(ENGINES)}, got {model.engine!r}")
    if model.engine != "auto":
        return model.engine
    if model.model not in EMBEDDED or (model.device, model.dtype) != ("cpu", "float32"):
        return "torch"
    modules = ("onnx", "onnxruntime", "onnxscript")
    if not all(importlib.util.find_spec(name) is not None for name in modules):
        return "torch"
    try:
        writable_cache("onnx")
    except ValueError as error:
        _tell_of_torch(error)
        return "torch"
    return "onnxruntime"


def put_on_engine(
    models: Models, model: EngineOptions, settings: Mapping[str, Any], max_batch: int
) -> Models:
    """Teacher and drafter on their engine; exported now, unless they were before or are graphs.

    Where the engine was not asked for and an export cannot be kept, they stay on torch.
    ``dtype`` of ``model`` is the precision of the graphs' products. Where ``window`` and
    ``sweeps`` of the settings are "auto", the drafter's own are exported; ``max_batch`` samples
    are drawn together, at most.
    """
    teacher, drafter, engine = models.teacher, models.drafter, models.engine
    if engine == "torch" or isinstance(teacher, EngineTeacher):
        return models
    from free.export.cache import cached_export

    window, sweeps = settings["window"], settings["sweeps"]
    if window == "auto":  # the drafter's graph is as wide as was found to serve best
        has_width = isinstance(drafter, FeatureDrafter) and "window" in drafter.sampling
        window = drafter.sampling["window"] if has_width else AutoWindow().largest
    if sweeps == "auto":
        sweeps = drafter.sampling.get("sweeps", 1) or 1
    asked = window > 1 and sweeps != 0
    trained = drafter if asked and isinstance(drafter, FeatureDrafter) else None
    try:
        with _on_cpu(teacher, *([] if trained is None else [trained.network])):
            folder = cached_export(
                teacher,
                trained,
                window=window,
                sweeps=None if trained is None else sweeps,
                max_batch=max_batch,
                guided=model.cfg != 1.0,
                precision=_PRECISIONS[model.dtype],
                progress=lambda graph: typer.echo(
                    f"exporting {graph} for {engine}, once ...", err=True
                ),
            )
    except OSError as error:  # as of a disk that is full
        if model.engine != "auto":
            raise
        _tell_of_torch(f"{error.strerror}: {error.filename}")
        return models._replace(engine="torch")
    with unavailable_to_usage_error():
        if engine in FLAVOURS:
            from free.export.tensorrt import load_or_build

            for graph in Manifest.read(folder).graphs.values():
                typer.echo(f"building {graph.file} for {engine}, if need be ...", err=True)
                load_or_build(folder / graph.file, graph.contract, flavour=engine)
        on_engine, own = load_engine(folder, engine, model.device)
    return models._replace(teacher=on_engine, drafter=drafter if trained is None else own)


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
    """Report an engine that this machine does not have as bad input, in one line."""
    try:
        yield
    except RuntimeError as error:
        raise ValueError(str(error)) from error
