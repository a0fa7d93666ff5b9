"""A model as a folder of graphs, with everything an engine needs; or as graphs that torch runs."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from free.arguments import as_integer
from free.drafters.feature import FeatureDrafter
from free.drafters.frozen import FrozenDrafter
from free.engines.interface import Contract, Profile, Session
from free.engines.manifest import MANIFEST, Graph, Manifest
from free.engines.networks import EngineDrafter, EngineTeacher, on_engine
from free.engines.torch import TorchSession
from free.export.contracts import draft_contract, step_contract, teacher_contract
from free.export.graphs import DrafterStep, DraftWindow, Teacher
from free.export.onnx import OPSET, WeightsFile, export_graph, require_onnx
from free.export.precision import PRECISIONS, lower
from free.files import digest
from free.models.dit import DiT
from free.version import __version__

WEIGHTS = "weights.bin"
#: What exports are checked with, by what their teacher predicts; of DDPM, or of REPA's sampler.
_SCHEDULES: dict[str, dict[str, Any]] = {
    "epsilon": {"steps": 250, "train_steps": 1000},
    "velocity": {"steps": 250},
}


def graphs_of(
    teacher: DiT,
    drafter: FeatureDrafter | None,
    window: int,
    sweeps: int | None,
    max_batch: int,
    guidance: tuple[bool, ...] = (False, True),
) -> list[tuple[torch.nn.Module, Contract]]:
    """Graphs of a model with their contracts, to be traced, or run by torch.

    Parameters are those of :func:`export_model`.
    """
    config = teacher.config
    if teacher.null_label is None:
        guidance = tuple(guided for guided in guidance if not guided)
    rows = Profile(1, window, max_batch * window)
    graphs: list[tuple[torch.nn.Module, Contract]] = []
    for guided in guidance:
        graphs.append((Teacher(teacher), teacher_contract(config, guided, rows)))
        if drafter is None:
            continue
        step = DrafterStep(drafter.network, teacher)
        # The control variate asks at the discarded states as well.
        twice = Profile(1, window, 2 * max_batch * window)
        graphs.append((step, step_contract(config, guided, twice)))
        if window > 1:
            contract = draft_contract(config, guided, window, sweeps, max_batch)
            graphs.append((DraftWindow(step, window - 1, sweeps), contract))
    return graphs


def export_model(
    teacher: DiT,
    drafter: FeatureDrafter | None,
    folder: str | Path,
    window: int = 8,
    sweeps: int | None = None,
    max_batch: int = 1,
    *,
    precision: str = "fp32",
    drafter_precision: str | None = None,
    guidance: tuple[bool, ...] = (False, True),
    progress: Callable[[str], object] = lambda graph: None,
) -> Manifest:
    """Export a model to ONNX.

    The folder appears complete or not at all: the graphs, one file with the weights of all of
    them, and ``manifest.json``. An earlier export is replaced.

    Parameters
    ----------
    teacher : DiT
        In float32.
    drafter : FeatureDrafter or None
        None for the teacher alone, which serves the plain sampler and training-free drafting.
    folder : str or Path
    window : int
        Widest window of a round, at least 1.
    sweeps : int or None
        How the window's graph drafts; None is autoregression.
    max_batch : int
        Samples drawn together, at most.
    precision : {"fp32", "fp16", "bf16"}
        Of the teacher's large matrix products. The law sampled is that of the exported teacher.
    drafter_precision : {"fp32", "fp16", "bf16"}, optional
        Of the drafter's; it has no part in the law. Default as the teacher's.
    guidance : tuple of bool
        Which graphs to make: without guidance, with it, or both. Those with it are left out for a
        teacher without a null class.
    progress : callable
        Called with each graph's name before it is traced.

    Raises
    ------
    ImportError
        If onnx or onnxscript is missing; names the extra.
    ValueError
        If a setting is out of its range.
    """
    require_onnx()
    _check_networks(teacher, drafter)
    window = as_integer(window, "window must be an integer >= 1", 1)
    max_batch = as_integer(max_batch, "max_batch must be an integer >= 1", 1)
    if sweeps is not None:
        expected = f"sweeps must be None or an integer in 1..window - 1 at window {window}"
        sweeps = as_integer(sweeps, expected, 1, max(window, 2) - 1)
    if not guidance or not set(guidance) <= {False, True}:
        raise ValueError(f"guidance must be False, True or both, got {guidance!r}")
    if teacher.null_label is None and set(guidance) == {True}:
        raise ValueError("guidance must be False for a teacher without a null class, got True")
    folder = Path(folder).resolve()
    if folder.exists() and not (
        folder.is_dir() and ((folder / MANIFEST).is_file() or not any(folder.iterdir()))
    ):
        raise ValueError(f"out must be a new or empty folder, or an earlier export, got {folder}")
    lowered, drafter = _lowered(teacher, drafter, precision, drafter_precision)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new, earlier = Path(scratch) / "new", Path(scratch) / "earlier"
        new.mkdir()
        graphs: dict[str, Graph] = {}
        with WeightsFile(new / WEIGHTS) as weights:
            for graph, contract in graphs_of(lowered, drafter, window, sweeps, max_batch, guidance):
                progress(contract.graph)
                path = new / f"{contract.graph}.onnx"
                export_graph(graph, contract, path, weights)
                graphs[contract.graph] = Graph(contract, path.name, digest(path))
        manifest = Manifest(
            graphs=graphs,
            weights=(WEIGHTS, digest(new / WEIGHTS)),
            teacher=dataclasses.asdict(teacher.config),
            precision=precision,
            drafter_precision=drafter_precision or precision,
            window=window,
            sweeps=sweeps,
            max_batch=max_batch,
            sampling=_sampling(drafter, window, sweeps),
            schedule=_SCHEDULES[teacher.config.prediction],
            versions={"free": __version__, "torch": torch.__version__, "opset": str(OPSET)},
        )
        manifest.write(new)
        if folder.exists():
            folder.rename(earlier)
        try:
            new.rename(folder)
        except OSError:
            if earlier.exists():
                earlier.rename(folder)
            raise
    return manifest


def torch_engine(
    teacher: DiT,
    drafter: FeatureDrafter | None,
    window: int = 8,
    sweeps: int | None = None,
    max_batch: int = 1,
    *,
    precision: str = "fp32",
    drafter_precision: str | None = None,
    guidance: tuple[bool, ...] = (False, True),
    mode: str = "eager",
    device: torch.device | str = "cpu",
) -> tuple[EngineTeacher, EngineDrafter | FrozenDrafter]:
    """Run the graphs of a model by torch: an engine, and what an export is compared with.

    Parameters
    ----------
    teacher, drafter, window, sweeps, max_batch, precision, drafter_precision, guidance
        See :func:`export_model`.
    mode, device
        See :class:`free.engines.torch.TorchSession`.
    """
    lowered, low = _lowered(teacher, drafter, precision, drafter_precision)
    sessions: dict[str, Session] = {
        contract.graph: TorchSession(graph, contract, mode, device)
        for graph, contract in graphs_of(lowered, low, window, sweeps, max_batch, guidance)
    }
    sampling = _sampling(drafter, window, sweeps)
    return on_engine(sessions, teacher.config, window, sweeps, sampling)


def _check_networks(teacher: DiT, drafter: FeatureDrafter | None) -> None:
    networks = {"teacher": teacher, **({} if drafter is None else {"drafter": drafter.network})}
    for name, network in networks.items():
        table = network.pos_embed
        if table.dtype is not torch.float32 or table.device.type != "cpu":
            dtype = str(table.dtype).removeprefix("torch.")
            raise ValueError(
                f"{name} must be float32 on the CPU to be exported, got {dtype} on "
                f"{table.device}: precision says what its graphs are"
            )


def _lowered(
    teacher: DiT, drafter: FeatureDrafter | None, precision: str, drafter_precision: str | None
) -> tuple[DiT, FeatureDrafter | None]:
    """Both networks in their precisions; the drafter with its settings."""
    if drafter_precision not in (None, *PRECISIONS):
        raise ValueError(
            f"drafter_precision must be one of {', '.join(PRECISIONS)}, got {drafter_precision!r}"
        )
    low = lower(teacher, precision)
    if drafter is None:
        return low, None
    network = lower(drafter.network, drafter_precision or precision)
    return low, FeatureDrafter(network, low, {**drafter.sampling, "acceptance": drafter.acceptance})


def _sampling(drafter: FeatureDrafter | None, window: int, sweeps: int | None) -> dict[str, Any]:
    """Settings that the graphs serve: the drafter's, with the window and sweeps of its graph."""
    settings: dict[str, Any] = {"recycle": False}
    if drafter is not None:
        settings |= drafter.sampling
        if drafter.acceptance:
            settings["acceptance"] = drafter.acceptance
    return settings | {"window": window, "sweeps": sweeps}
