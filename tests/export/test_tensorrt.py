"""TensorRT-RTX engines, built for GPUs that are not there."""

import dataclasses
import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from free import DiT, DiTConfig, DrafterNet, FeatureDrafter
from free.engines.interface import Contract, Profile, TensorSpec
from free.engines.tensorrt_file import BuiltEngine, engine_path
from free.export import tensorrt
from free.export.package import export_model
from free.export.tensorrt import build_engine, load_or_build
from tests.exports import Export
from tests.fake_tensorrt import see_gpu

trt = pytest.importorskip("tensorrt_rtx")
onnx = pytest.importorskip("onnx")

CONTRACT = Contract(
    "toy",
    (
        TensorSpec("x", "float32", ("rows", 64)),
        TensorSpec("rowwise", "int64", ("rows",)),
        TensorSpec("scale", "float32", (64,)),
    ),
    (TensorSpec("y", "float32", ("rows", 64)),),
    {"rows": Profile(1, 2, 8)},
)


def write_graph(path: Path, operator: str = "MatMul", value: float = 1.0) -> Path:
    """``scale (operator(x, weight) + rowwise)``, the weight in a file of its own."""
    weight = onnx.numpy_helper.from_array(torch.full((64, 64), value).numpy(), "weight")
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            node(operator, ["x", "weight"], ["product"]),
            node("Cast", ["rowwise"], ["float"], to=onnx.TensorProto.FLOAT),
            node("Unsqueeze", ["float", "one"], ["column"]),
            node("Add", ["product", "column"], ["sum"]),
            node("Mul", ["sum", "scale"], ["y"]),
        ],
        "toy",
        [
            info("x", onnx.TensorProto.FLOAT, ["rows", 64]),
            info("rowwise", onnx.TensorProto.INT64, ["rows"]),
            info("scale", onnx.TensorProto.FLOAT, [64]),
        ],
        [info("y", onnx.TensorProto.FLOAT, ["rows", 64])],
        [weight, onnx.numpy_helper.from_array(torch.tensor([1]).numpy(), "one")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    path.with_name("weights.bin").unlink(missing_ok=True)  # or it is appended to
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=99)
    return path


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_graph(tmp_path / "toy.onnx")


@pytest.mark.parametrize(
    ("exported", "graphs", "target"),
    [
        ("guided", ["teacher_guided", "draft_guided"], "sm89"),
        ("plain", ["draft"], "sm120"),
    ],
)
def test_exported_graphs_build(request, tmp_path, exported, graphs, target) -> None:
    export: Export = request.getfixturevalue(f"{exported}_export")
    for name in graphs:
        entry, path = export.manifest.graphs[name], tmp_path / f"{name}.engine"
        built = build_engine(export.folder / entry.file, entry.contract, target=target, path=path)
        assert built == BuiltEngine.read(path)
        assert (built.flavour, built.version) == ("tensorrt-rtx", trt.__version__)
        assert (built.target, built.gpu, built.contract) == (target, None, entry.contract)
        assert built.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert built.size == path.stat().st_size > 100_000
        assert 0 < built.seconds < 100
        manifest = export.manifest
        assert built.sources == {entry.file: entry.sha256, manifest.weights[0]: manifest.weights[1]}


def test_settings_of_the_builder(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}

    class Builder:
        def __init__(self, logger: Any) -> None:
            self.builder = trt.Builder(logger)

        def __getattr__(self, name: str) -> Any:
            def call(*arguments: Any) -> Any:
                made[name] = getattr(self.builder, name)(*arguments)
                return made[name]

            return call

    spied = SimpleNamespace(**{**vars(trt), "Builder": Builder})
    monkeypatch.setattr(tensorrt, "load_tensorrt", lambda flavour: spied)
    build_engine(graph, CONTRACT, target="sm89")
    assert made["create_network"].get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    config = made["create_builder_config"]
    assert not config.get_flag(trt.BuilderFlag.TF32)
    assert config.num_compute_capabilities == 1
    assert config.get_compute_capability(0) == trt.ComputeCapability.SM89
    assert config.num_optimization_profiles == 1
    for name, shapes in (("x", [(1, 64), (2, 64), (8, 64)]), ("rowwise", [(1,), (2,), (8,)])):
        profile = made["create_optimization_profile"].get_shape(name)
        assert [tuple(shape) for shape in profile] == shapes
    build_engine(graph, CONTRACT, target="any")
    assert made["create_builder_config"].num_compute_capabilities == 0


def test_engines_are_kept_beside_their_graph(graph: Path) -> None:
    first = load_or_build(graph, CONTRACT, target="sm89")
    other = load_or_build(graph, CONTRACT, target="any")
    path = engine_path(graph, "tensorrt-rtx", "sm89")
    assert path.name == "toy.tensorrt-rtx-sm89.engine"
    assert sorted(p.name for p in graph.parent.iterdir()) == [
        "toy.onnx",
        "toy.tensorrt-rtx-any.engine",
        "toy.tensorrt-rtx-any.json",
        "toy.tensorrt-rtx-sm89.engine",
        "toy.tensorrt-rtx-sm89.json",
        "weights.bin",
    ]
    inode = path.stat().st_ino
    assert load_or_build(graph, CONTRACT, target="sm89", rebuild=False) == first != other
    assert path.stat().st_ino == inode
    wider = dataclasses.replace(CONTRACT, axes={"rows": Profile(1, 2, 9)})
    with pytest.raises(ValueError, match="it was built for other shapes or another graph"):
        load_or_build(graph, wider, target="sm89", rebuild=False)
    assert load_or_build(graph, wider, target="sm89").contract == wider


def test_engines_of_tensorrt_belong_to_one_model_of_gpu(graph, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", trt)  # it builds in the same way
    see_gpu(monkeypatch, "sm90", "NVIDIA H100")
    built = load_or_build(graph, CONTRACT, flavour="tensorrt")
    assert (built.target, built.gpu) == ("sm90", "NVIDIA H100")
    assert load_or_build(graph, CONTRACT, flavour="tensorrt", rebuild=False) == built
    see_gpu(monkeypatch, "sm90", "NVIDIA H200")
    with pytest.raises(ValueError, match="built for NVIDIA H100, and this GPU is NVIDIA H200"):
        load_or_build(graph, CONTRACT, flavour="tensorrt", rebuild=False)
    assert load_or_build(graph, CONTRACT, flavour="tensorrt").gpu == "NVIDIA H200"
    with pytest.raises(ValueError, match="target must be sm90, this machine's GPU, .* got 'sm89'"):
        build_engine(graph, CONTRACT, flavour="tensorrt", target="sm89")


def test_a_failed_build_leaves_the_earlier_engine(graph: Path) -> None:
    built = load_or_build(graph, CONTRACT, target="sm89")
    path = engine_path(graph, "tensorrt-rtx", "sm89")
    content = path.read_bytes()
    write_graph(graph, operator="Unknown")
    message = r"toy\.onnx must be an ONNX graph that TensorRT parses, got .*Unknown"
    with pytest.raises(ValueError, match=message):
        load_or_build(graph, CONTRACT, target="sm89")
    assert path.read_bytes() == content
    assert BuiltEngine.read(path) == built
    assert len(list(graph.parent.iterdir())) == 4


def test_files_that_are_no_graphs(graph: Path) -> None:
    content, weights = graph.read_bytes(), graph.with_name("weights.bin")
    for spoil, message in (
        (lambda: graph.write_bytes(content[:200]), "must be a whole ONNX file, got"),
        (lambda: graph.write_bytes(b""), "graph toy with x, rowwise, scale, y, got an empty one"),
        (graph.unlink, "must be a file, got"),
        (
            lambda: (write_graph(graph), weights.write_bytes(weights.read_bytes()[:100])),
            "TensorRT parses, got .*Failed to import initializer",
        ),
        (weights.unlink, "must have its weights beside it, got no weights.bin"),
    ):
        spoil()
        with pytest.raises(ValueError, match=message):
            build_engine(graph, CONTRACT, target="sm89")


def test_graphs_that_are_not_the_contracts(graph: Path) -> None:
    wider = dataclasses.replace(CONTRACT.inputs[0], shape=("rows", 32))
    other = dataclasses.replace(CONTRACT, inputs=(wider, *CONTRACT.inputs[1:]))
    with pytest.raises(ValueError, match=r"x in .* \['rows', 32\], .* of \[-1, 64\]"):
        build_engine(graph, other, target="sm89")


def test_targets(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turing is none: it has no float32 matrix product there; TensorRT's reasons are quoted."""
    known = "any, sm80, sm86, sm89, sm120, sm121"
    with pytest.raises(ValueError, match=f"one of {known} for tensorrt-rtx, got 'sm75'"):
        build_engine(graph, CONTRACT, target="sm75")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=f"target must be named without a GPU, of {known}: "):
        build_engine(graph, CONTRACT)
    see_gpu(monkeypatch, "sm90", "NVIDIA H100")
    with pytest.raises(ValueError, match="got 'sm90'"):
        build_engine(graph, CONTRACT)
    see_gpu(monkeypatch, "sm86", "NVIDIA A10")
    assert build_engine(graph, CONTRACT).target == "sm86"
    monkeypatch.setattr(tensorrt, "TARGETS", ("sm75",))
    with pytest.raises(ValueError, match="that tensorrt-rtx builds for sm75, got .*FP32 GEMM"):
        build_engine(graph, CONTRACT, target="sm75")


def test_missing_packages(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnx.external_data_helper"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"building engines needs onnx: .*'free-dit\[onnx\]'"):
        build_engine(graph, CONTRACT, target="sm89")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_model_of_full_size(tmp_path: Path) -> None:
    """DiT-XL/2 with random weights: the checker passes its graphs, TensorRT-RTX builds them."""
    config = DiTConfig.named("DiT-XL/2")
    teacher = DiT(config)
    drafter = FeatureDrafter(DrafterNet(config), teacher)
    for weight in (*teacher.parameters(), *drafter.network.parameters()):
        weight.data.normal_(0, 0.02)
        weight.requires_grad_(False)
    out = tmp_path / "engine"
    manifest = export_model(
        teacher, drafter, out, window=8, sweeps=1, precision="fp16", guidance=(True,)
    )
    del teacher, drafter
    for entry in manifest.graphs.values():
        onnx.checker.check_model(str(out / entry.file))  # by path, as weights are over 1 GB
        built = build_engine(out / entry.file, entry.contract, target="sm89")
        print(built)
        engine_path(out / entry.file, "tensorrt-rtx", "sm89").unlink()
