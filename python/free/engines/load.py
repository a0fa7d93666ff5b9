"""Opening a folder of exported graphs on an engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from free.drafters.frozen import FrozenDrafter
from free.engines.interface import Contract, Session
from free.engines.manifest import Manifest
from free.engines.networks import EngineDrafter, EngineTeacher, on_engine
from free.engines.onnx import OnnxSession
from free.engines.tensorrt import FLAVOURS, TensorRTSession, find_engine
from free.models.config import DiTConfig

ENGINES = ("onnxruntime", "onnxruntime-tensorrt", *FLAVOURS)


def load_engine(
    folder: str | Path,
    engine: str = "onnxruntime",
    device: str = "cpu",
    threads: int | None = None,
) -> tuple[EngineTeacher, EngineDrafter | FrozenDrafter]:
    """Open what ``free export`` wrote.

    Parameters
    ----------
    folder : str or Path
    engine : {"onnxruntime", "onnxruntime-tensorrt", "tensorrt", "tensorrt-rtx"}
        The last two run what ``free export --to`` built for this GPU.
    device : {"cpu", "cuda"}
        Only ``onnxruntime`` has both.
    threads : int, optional
        Of the CPU; default as many as torch uses.

    Returns
    -------
    teacher : EngineTeacher
    drafter : EngineDrafter or FrozenDrafter
        The latter where none was exported.

    Raises
    ------
    ImportError
        If the engine is not installed; names the extra.
    ValueError
        If the folder is not what was exported, or an argument is out of its range.
    RuntimeError
        If the engine cannot run here; nothing falls back to another one.
    """
    manifest = Manifest.read(folder)
    manifest.check_files(folder)
    open_session = _opener(engine, device, threads)
    sessions = {
        name: open_session(Path(folder) / graph.file, graph.contract)
        for name, graph in manifest.graphs.items()
    }
    digests = {name: graph.sha256 for name, graph in manifest.graphs.items()}
    return on_engine(
        sessions,
        DiTConfig(**manifest.teacher),
        window=manifest.window,
        sweeps=manifest.sweeps,
        sampling=manifest.sampling,
        cost_key=[engine, device, threads, digests],
    )


def _opener(engine: str, device: str, threads: int | None) -> Callable[[Path, Contract], Session]:
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}")
    if engine == "onnxruntime":
        return lambda path, contract: OnnxSession(path, contract, device, threads)
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if device != "cuda":
        raise ValueError(f"device must be cuda for {engine}, got {device!r}")
    if engine == "onnxruntime-tensorrt":
        return lambda path, contract: OnnxSession(path, contract, "tensorrt", threads)
    return lambda path, contract: TensorRTSession(
        find_engine(path, contract, engine), contract, device
    )
