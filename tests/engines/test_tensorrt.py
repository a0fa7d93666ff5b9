"""TensorRT sessions, on a stand-in for TensorRT and the GPU; tests/gpu has the real ones."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from free.engines.interface import Contract, Profile, TensorSpec
from free.engines.tensorrt import TensorRTSession, find_engine, load_tensorrt
from free.engines.tensorrt_file import ANY, BuiltEngine, engine_path
from tests.fake_tensorrt import Context, Stream, fake_tensorrt, see_gpu

CONTRACT = Contract(
    "toy",
    (
        TensorSpec("x", "float32", ("rows", 64)),
        TensorSpec("t", "int64", ("rows",), 0, 10),
        TensorSpec("keep", "bool", ("rows",)),
    ),
    (TensorSpec("total", "float32", ("rows", 64)), TensorSpec("late", "bool", ("rows",))),
    {"rows": Profile(1, 2, 4)},
)
TENSORS: dict[str, Any] = {
    "x": ["float32", [-1, 64]],
    "t": ["int64", [-1]],
    "keep": ["bool", [-1]],
    "total": ["float32", [-1, 64]],
    "late": ["bool", [-1]],
}


def compute(x: Tensor, t: Tensor, keep: Tensor) -> dict[str, Tensor]:
    return {"total": torch.where(keep[:, None], x + t[:, None], x), "late": t > 4}


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tensorrt(monkeypatch, compute)


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Path]:
    """Write an engine of the stand-in, and what it was built for."""

    def write(content: bytes = b"", **changes: Any) -> Path:
        content = content or json.dumps(TENSORS).encode()
        (tmp_path / "toy.onnx").write_bytes(b"graph")
        built = BuiltEngine(
            CONTRACT,
            "tensorrt-rtx",
            "1.0",
            "sm89",
            None,
            {"toy.onnx": hashlib.sha256(b"graph").hexdigest()},
            hashlib.sha256(content).hexdigest(),
            len(content),
            0.1,
        )
        built = dataclasses.replace(built, **changes)
        path = engine_path(tmp_path / "toy.onnx", built.flavour, built.target)
        path.write_bytes(content)
        built.write(path)
        return path

    return write


def opened(path: Path) -> tuple[TensorRTSession, Context]:
    """A session whose tensors are where the stand-in can reach them, and its context."""
    session = TensorRTSession(path, CONTRACT)
    assert session.device == torch.device("cuda", 0)
    session.device = torch.device("cpu")
    return session, session._context


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_engines_read_and_write_torchs_memory(build: Callable[..., Path], flavour: str) -> None:
    gpu = None if flavour == "tensorrt-rtx" else "NVIDIA GeForce RTX 4090"
    session, context = opened(build(flavour=flavour, gpu=gpu))
    with pytest.raises(ValueError, match=r"rows of toy must be in 1\.\.4, .* got 5: export with"):
        session.run(CONTRACT.sample_inputs({"rows": 5}))
    inputs = CONTRACT.sample_inputs({"rows": 4})
    with pytest.raises(ValueError, match=r"x of toy must be on cpu, got meta"):
        session.run({**inputs, "x": inputs["x"].to("meta")})
    assert context.shapes == {}
    for rows in (1, 4, 2):
        inputs = CONTRACT.sample_inputs({"rows": rows}, seed=rows)
        outputs = session.run(inputs)
        assert context.shapes == {name: tuple(value.shape) for name, value in inputs.items()}
        for name, value in {**inputs, **outputs}.items():
            if value.data_ptr() % 256 == 0:
                assert context.addresses[name] == value.data_ptr()
        for name, value in compute(**inputs).items():
            assert torch.equal(outputs[name], value)
    assert session.run(inputs)["total"].data_ptr() != outputs["total"].data_ptr()


def test_memory_is_copied_only_where_it_must_be(build: Callable[..., Path]) -> None:
    session, context = opened(build())
    memory = torch.randn(4 * 64 + 64)
    start = -(memory.data_ptr() // 4) % 64  # the first float at an address that 256 divides
    inputs = CONTRACT.sample_inputs({"rows": 3})

    def run(x: Tensor) -> bool:
        outputs = session.run({**inputs, "x": x})
        assert torch.equal(outputs["total"], compute(**{**inputs, "x": x})["total"])
        return context.addresses["x"] == x.data_ptr()

    assert run(memory[start : start + 192].view(3, 64))
    assert not run(memory[start + 1 : start + 193].view(3, 64))
    assert not run(memory[start : start + 192].view(64, 3).T)


def test_work_is_queued_on_the_current_stream_or_joins_the_default_one(build, monkeypatch) -> None:
    session, context = opened(build())
    current, default, own = Stream(42), Stream(0), session._own_stream
    for stream in (current, default):
        monkeypatch.setattr(torch.cuda, "current_stream", lambda stream=stream: stream)
        session.run(CONTRACT.sample_inputs({"rows": 1}))
    assert context.streams == [42, own.cuda_stream]
    assert (current.waited, own.waited, default.waited) == ([], [0], [own.cuda_stream])


def test_refusals_are_raised_with_tensorrts_words(build: Callable[..., Path]) -> None:
    for refuse, message in (
        ("shape", r"x of shape \[1, 64\] was refused: no shape today"),
        ("address", "the address of x was refused: no address today"),
        ("start", "it could not be started: no start today"),
    ):
        session, context = opened(build())
        context.refuse = refuse
        with pytest.raises(RuntimeError, match=f"^toy failed on cpu, {message}$"):
            session.run(CONTRACT.sample_inputs({"rows": 1}))
    with pytest.raises(RuntimeError, match=r"engine could not be opened on cuda:0: magic tag is"):
        TensorRTSession(build(b"foreign"), CONTRACT)


def test_engines_of_another_interface(build: Callable[..., Path]) -> None:
    for tensors, message in (
        ({"x": None}, "must be the graph toy with x, t, keep, total, late, got t, keep, total, la"),
        ({"total": ["float32", [2, 64]]}, r"total in .* got float32 of \[2, 64\]"),
    ):
        merged = {name: spec for name, spec in (TENSORS | tensors).items() if spec}
        with pytest.raises(ValueError, match=message):
            TensorRTSession(build(json.dumps(merged).encode()), CONTRACT)


def test_without_a_gpu(build: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = build()
    with pytest.raises(ValueError, match="device must be cuda for TensorRT, got cpu"):
        TensorRTSession(path, CONTRACT, "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for call in (
        lambda: TensorRTSession(path, CONTRACT),
        lambda: find_engine(path.with_name("toy.onnx"), CONTRACT, "tensorrt-rtx"),
    ):
        with pytest.raises(RuntimeError, match="run on an NVIDIA GPU, and torch sees none"):
            call()


def test_stale_engines_are_refused(build: Callable[..., Path]) -> None:
    other = dataclasses.replace(CONTRACT, axes={"rows": Profile(1, 2, 3)})
    card = {"flavour": "tensorrt", "gpu": "NVIDIA L4"}
    for changes, message in (
        ({"version": "0.9"}, "it was built by tensorrt-rtx 0.9, and 1.0 is installed"),
        ({"contract": other}, "it was built for other shapes or another graph"),
        ({"sources": {"toy.onnx": "0" * 64}}, "it was built from another toy.onnx"),
        ({"sha256": "0" * 64}, "the file is missing, truncated or another one"),
        ({"target": "sm120"}, "it was built for sm120, and this GPU is sm89"),
        (card, "it was built for NVIDIA L4, and this GPU is NVIDIA GeForce RTX 4090"),
    ):
        with pytest.raises(ValueError, match=rf"must be an engine .*, but {message}$"):
            TensorRTSession(build(**changes), CONTRACT)


def test_truncated_engines_and_records(build: Callable[..., Path]) -> None:
    path = build()
    path.with_name("toy.onnx").unlink()  # an engine may travel without its graph
    TensorRTSession(path, CONTRACT)  # its digest is remembered, and must not be believed below
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="the file is missing, truncated or another one"):
        TensorRTSession(path, CONTRACT)
    record = path.with_suffix(".json")
    whole = json.loads(record.read_text())
    spoiled = [
        "",
        "[]",
        "{}",
        json.dumps({**whole, "format": 2}),
        json.dumps({**whole, "sources": None}),
        json.dumps({**whole, "unknown": 1}),
        json.dumps({**whole, "contract": {}}),
    ]
    for text in spoiled:
        record.write_text(text)
        with pytest.raises(ValueError, match=r"sm89\.json (is missing|must (have format 1|be a))"):
            TensorRTSession(path, CONTRACT)
    record.unlink()
    with pytest.raises(ValueError, match="engine record .* FileNotFoundError"):
        TensorRTSession(path, CONTRACT)


def test_the_gpus_own_engine_comes_first(build, monkeypatch) -> None:
    portable, own = build(target=ANY), build()
    onnx = own.with_name("toy.onnx")
    assert find_engine(onnx, CONTRACT, "tensorrt-rtx") == own
    see_gpu(monkeypatch, "sm86", "NVIDIA A10")
    assert find_engine(onnx, CONTRACT, "tensorrt-rtx") == portable
    see_gpu(monkeypatch, "sm75", "NVIDIA T4")
    with pytest.raises(ValueError, match="there is no .*sm75.*any.*needs sm80 or newer, .* sm75"):
        find_engine(onnx, CONTRACT, "tensorrt-rtx")


def test_no_engine_to_find(build: Callable[..., Path]) -> None:
    path = build(version="0.9")
    message = (
        "an engine of toy.onnx for this GPU, got none: of toy.tensorrt-rtx-sm89.engine, it was "
        "built by tensorrt-rtx 0.9, .* there is no toy.tensorrt-rtx-any.engine. Build it with free "
        "export --to tensorrt-rtx"
    )
    with pytest.raises(ValueError, match=message):
        find_engine(path.with_name("toy.onnx"), CONTRACT, "tensorrt-rtx")
    with pytest.raises(ValueError, match=r"got none: there is no toy\.tensorrt-sm89\.engine\. "):
        find_engine(path.with_name("toy.onnx"), CONTRACT, "tensorrt")


def test_missing_packages_are_named_with_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="flavour must be one of tensorrt, tensorrt-rtx, got 'rt'"):
        load_tensorrt("rt")
    for flavour, module in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=rf"needs {module} .* 'free-dit\[{flavour}\]'"):
            load_tensorrt(flavour)
        # What the registry has of TensorRT is a package without libraries.
        monkeypatch.setitem(sys.modules, module, SimpleNamespace())
        with pytest.raises(ImportError, match=rf"only a stub: .* 'free-dit\[{flavour}\]' from"):
            load_tensorrt(flavour)
