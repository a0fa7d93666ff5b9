"""Building TensorRT engines from exported graphs."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from free.engines.interface import Contract
from free.engines.tensorrt import Log, load_tensorrt, require_graph
from free.engines.tensorrt_file import ANY, BuiltEngine, engine_path, file_digest, this_gpu
from free.files import write_atomic

#: GPUs that TensorRT-RTX builds for without having one, by compute capability; ``any`` is one
#: engine for all of them. Turing (sm75) is not among them: it has no float32 matrix product there.
TARGETS = (ANY, "sm80", "sm86", "sm89", "sm120", "sm121")


def build_engine(
    onnx: str | Path,
    contract: Contract,
    *,
    flavour: str = "tensorrt-rtx",
    target: str | None = None,
    path: str | Path | None = None,
) -> BuiltEngine:
    """Build an engine and write it atomically, with a record of what it depends on.

    Types are the graph's own, and float32 products are not rounded to TensorFloat-32.

    Parameters
    ----------
    onnx : str or Path
        The graph; the file of weights it refers to lies beside it.
    contract : Contract
        Its ranges of axes become the engine's one profile.
    flavour : {"tensorrt", "tensorrt-rtx"}
    target : {"any", "sm80", "sm86", "sm89", "sm120", "sm121"}, optional
        Which GPUs it is for. Default the one in this machine; ``tensorrt`` knows no other.
    path : str or Path, optional
        Of the engine. Default beside the graph, named after it, the flavour and the target.

    Raises
    ------
    ImportError
        If TensorRT, or onnx, is not installed; names the extra.
    ValueError
        If the file is not the contract's graph, or cannot be parsed or built; with TensorRT's own
        reasons. If the target is unknown.
    RuntimeError
        If there is no GPU where one is needed.
    """
    onnx = Path(onnx)
    trt = load_tensorrt(flavour)
    target, gpu = _resolve(flavour, target)
    sources = _sources(onnx)
    start = time.perf_counter()
    log = Log(trt)
    builder = trt.Builder(log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(onnx)):
        raise ValueError(
            f"{onnx} must be an ONNX graph that TensorRT parses, got {_reasons(parser)}"
        )
    require_graph(trt, contract, onnx, _interface(network))
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if flavour == "tensorrt-rtx" and target != ANY:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), 0)
    profile = builder.create_optimization_profile()
    for name, shapes in _profile(contract).items():
        profile.set_shape(name, *shapes)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ValueError(f"{onnx} must be a graph that {flavour} builds for {target}, got {log}")
    content = memoryview(engine)
    built = BuiltEngine(
        contract,
        flavour,
        trt.__version__,
        target,
        gpu,
        sources,
        hashlib.sha256(content).hexdigest(),
        content.nbytes,
        round(time.perf_counter() - start, 3),
    )
    path = engine_path(onnx, flavour, target) if path is None else Path(path)
    write_atomic(path, lambda temporary: temporary.write_bytes(content))
    built.write(path)
    return built


def load_or_build(
    onnx: str | Path,
    contract: Contract,
    *,
    flavour: str = "tensorrt-rtx",
    target: str | None = None,
    rebuild: bool = True,
) -> BuiltEngine:
    """Take the engine beside a graph, or build one if it is missing or stale.

    Stale is an engine of other weights, another contract, version, or GPU, and one that has
    been damaged.

    Parameters
    ----------
    onnx, contract, flavour, target
        See :func:`build_engine`, also for what is raised.
    rebuild : bool
        Whether to build. If not, a missing or stale engine is an error.

    Raises
    ------
    ValueError
        Also without ``rebuild``, saying what is wrong with the engine.
    """
    onnx = Path(onnx)
    version = load_tensorrt(flavour).__version__
    target, gpu = _resolve(flavour, target)
    path = engine_path(onnx, flavour, target)
    reason: str | None = "there is none"
    if path.is_file():
        try:
            built = BuiltEngine.read(path)
        except ValueError as error:
            reason = str(error)
        else:
            reason = built.stale(path, contract, version)
            if reason is None and built.gpu != gpu:
                reason = f"it was built for {built.gpu}, and this GPU is {gpu}"
            if reason is None and built.sources != _sources(onnx):
                reason = f"it was built from another {onnx.name}"
            if reason is None:
                return built
    if not rebuild:
        raise ValueError(f"{path} must be the engine of {onnx.name} as it is now, but {reason}")
    return build_engine(onnx, contract, flavour=flavour, target=target)


def _resolve(flavour: str, target: str | None) -> tuple[str, str | None]:
    """Find the target, and the model of GPU that the engine is bound to."""
    if flavour == "tensorrt":
        capability, gpu = this_gpu()
        if target not in (None, capability):
            raise ValueError(
                f"target must be {capability}, this machine's GPU, for tensorrt, which builds "
                f"for no other, got {target!r}"
            )
        return capability, gpu
    known = ", ".join(TARGETS)
    if target is None:
        try:
            target, _ = this_gpu()
        except RuntimeError as error:
            raise RuntimeError(
                f"target must be named without a GPU, of {known}: {error}"
            ) from error
    if target not in TARGETS:
        raise ValueError(f"target must be one of {known} for tensorrt-rtx, got {target!r}")
    return target, None


def _sources(onnx: Path) -> dict[str, str]:
    """Digests of a graph and of the files that it keeps its weights in."""
    try:
        from onnx import load
        from onnx.external_data_helper import uses_external_data
    except ImportError as error:
        raise ImportError("building engines needs onnx: pip install 'free-dit[onnx]'") from error
    try:
        graph = load(str(onnx), load_external_data=False).graph
    except FileNotFoundError as error:
        raise ValueError(f"onnx must be a file, got {onnx}, which does not exist") from error
    except Exception as error:  # protobuf's own types
        raise ValueError(f"{onnx} must be a whole ONNX file, got {error}") from error
    files = {onnx.name}
    for tensor in graph.initializer:
        if uses_external_data(tensor):
            files |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    missing = [name for name in sorted(files) if not (onnx.parent / name).is_file()]
    if missing:
        raise ValueError(f"{onnx} must have its weights beside it, got no {', '.join(missing)}")
    return {name: file_digest(onnx.parent / name) for name in sorted(files)}


def _interface(network: Any) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Types and shapes of a parsed network's inputs and outputs."""
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    return {tensor.name: (tensor.dtype, tuple(tensor.shape)) for tensor in tensors}


def _profile(contract: Contract) -> dict[str, list[tuple[int, ...]]]:
    """Least, usual and largest shape of every input that has an axis."""
    ends = [
        {axis: getattr(sizes, end) for axis, sizes in contract.axes.items()}
        for end in ("minimum", "optimum", "maximum")
    ]
    return {
        spec.name: [spec.sized(sizes) for sizes in ends]
        for spec in contract.inputs
        if any(isinstance(axis, str) for axis in spec.shape)
    }


def _reasons(parser: Any) -> str:
    """All of a parser's errors, in one line, with the nodes that they are about."""
    lines = []
    for error in (parser.get_error(i) for i in range(parser.num_errors)):
        where = f"{error.node_operator()} {error.node_name()}".strip()
        lines.append(" ".join(f"{where}: {error.desc()}".removeprefix(": ").split()))
    return "; ".join(lines) or "no reason from TensorRT"
