"""ONNX Runtime: what runs, on whose memory, and what is refused instead of falling back."""

import dataclasses
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from free.engines.interface import Contract
from free.engines.onnx import PROVIDERS, OnnxSession
from tests.exports import Export, close

ort = pytest.importorskip("onnxruntime")


@pytest.fixture
def session(plain_export: Export) -> OnnxSession:
    return plain_export.session("teacher")


@pytest.fixture
def folder(plain_export: Export, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(plain_export.folder, tmp_path / "copy"))


@pytest.fixture
def contract(plain_export: Export) -> Contract:
    return plain_export.manifest.graphs["teacher"].contract


def inputs_of(session: OnnxSession, rows: int = 4) -> dict[str, Tensor]:
    return session.contract.sample_inputs({"rows": rows})


def test_inputs_and_outputs_are_torchs_memory(session, monkeypatch, plain_export) -> None:
    addresses: dict[str, int] = {}
    for side in ("bind_input", "bind_output"):
        bind = getattr(ort.IOBinding, side)

        def spied(self: Any, name: str, *place: Any, bind: Any = bind) -> None:
            addresses[name] = place[-1]
            bind(self, name, *place)

        monkeypatch.setattr(ort.IOBinding, side, spied)
    inputs = inputs_of(session)
    with torch.no_grad():
        expected = plain_export.teacher(**inputs)
    first = session.run(inputs)
    assert addresses == {name: value.data_ptr() for name, value in (inputs | first).items()}
    for name, value in first.items():
        close(value, getattr(expected, name))
    # Every call has its own outputs.
    before = {name: value.clone() for name, value in first.items()}
    second = session.run({**inputs, "x": 2 * inputs["x"]})
    for name, value in first.items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
        assert not torch.equal(second[name], value)


def test_inputs_need_not_be_contiguous(session: OnnxSession) -> None:
    inputs = inputs_of(session)
    expected = session.run(inputs)
    x = inputs["x"].permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    t = torch.stack([inputs["t"], inputs["t"] - 7], dim=1)[:, 0]
    assert not x.is_contiguous()
    assert not t.is_contiguous()
    for name, value in session.run({**inputs, "x": x.requires_grad_(), "t": t}).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
        assert not value.requires_grad
    one = {name: value[:1].expand(4, *value.shape[1:]) for name, value in inputs.items()}
    close(session.run(one)["eps"], expected["eps"][:1].expand(4, -1, -1, -1))


def test_calls_are_checked_before_the_runtime_sees_them(session: OnnxSession) -> None:
    with pytest.raises(ValueError, match="rows of teacher must be in 1..9, as it was exported"):
        session.run(inputs_of(session, 10))
    inputs = inputs_of(session)
    with pytest.raises(ValueError, match="x of teacher must be on cpu, got meta"):
        session.run({**inputs, "x": inputs["x"].to("meta")})
    with pytest.raises(RuntimeError, match="indices element out of data bounds"):
        session.run({**inputs, "y": inputs["y"] + 16})


def test_a_provider_that_falls_back_is_an_error(folder, contract, monkeypatch) -> None:
    """Whatever the machine: all are offered, and ONNX Runtime goes on, on the CPU."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(PROVIDERS.values()))
    session = ort.InferenceSession

    def fallen_back(path: str, options: Any, providers: list[str]) -> Any:
        return session(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", fallen_back)
    message = "CUDAExecutionProvider was asked for .* offers CPUExecutionProvider instead"
    with pytest.raises(RuntimeError, match=message):
        OnnxSession(folder / "teacher.onnx", contract, "cuda")


def test_a_provider_that_is_not_in_the_build(folder, contract, monkeypatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    message = "CUDAExecutionProvider is not in this build .* CPUE.*: install onnxruntime-gpu"
    with pytest.raises(RuntimeError, match=message):
        OnnxSession(folder / "teacher.onnx", contract, "cuda")
    with pytest.raises(ValueError, match="provider must be one of cpu, cuda, tensorrt, got 'tpu'"):
        OnnxSession(folder / "teacher.onnx", contract, "tpu")


SPOILERS: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "text": lambda path: path.write_text("a graph, honestly"),
    "missing": lambda path: path.unlink(),
    "no weights": lambda path: path.with_name("weights.bin").unlink(),
    "short weights": lambda path: path.with_name("weights.bin").write_bytes(b"1234"),
}


@pytest.mark.parametrize("spoil", SPOILERS)
def test_files_that_are_no_graph(folder: Path, contract: Contract, spoil: str) -> None:
    SPOILERS[spoil](folder / "teacher.onnx")
    message = "teacher.onnx must be an ONNX graph with its weights beside it that .+, got .+"
    with pytest.raises(ValueError, match=message):
        OnnxSession(folder / "teacher.onnx", contract)


def test_another_models_graph(folder: Path, contract: Contract, guided_export: Export) -> None:
    with pytest.raises(ValueError, match="graph teacher with x, t, y, eps, .*, got x, inn"):
        OnnxSession(folder / "drafter.onnx", contract)
    guided = guided_export.manifest.graphs["teacher_guided"].contract
    with pytest.raises(ValueError, match="graph teacher_guided with x, t, y, cfg_scale, .* got x,"):
        OnnxSession(folder / "teacher.onnx", guided)
    other = dataclasses.replace(contract.inputs[0], shape=("rows", 2, 4, 5))
    wider = dataclasses.replace(contract, inputs=(other, *contract.inputs[1:]))
    with pytest.raises(ValueError, match=r"x in .* \['rows', 2, 4, 5\], .*'rows', 2, 4, 4"):
        OnnxSession(folder / "teacher.onnx", wider)


def test_threads(folder: Path, contract: Contract) -> None:
    def used(threads: int | None) -> int:
        session = OnnxSession(folder / "teacher.onnx", contract, threads=threads)
        return session._session.get_session_options().intra_op_num_threads

    assert used(None) == torch.get_num_threads()
    assert used(2) == 2


def test_two_threads_may_use_one_session(session: OnnxSession) -> None:
    calls = [inputs_of(session) | {"x": torch.randn(4, 2, 4, 4)} for _ in range(2)] * 20
    expected = [session.run(call)["eps"] for call in calls]
    with ThreadPoolExecutor(2) as pool:
        for got, wanted in zip(pool.map(session.run, calls), expected, strict=True):
            assert torch.equal(got["eps"], wanted)


def test_the_runtime_is_optional(contract: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"needs onnxruntime: pip install 'free-dit\[onnx\]'"):
        OnnxSession("teacher.onnx", contract)
