"""Opening a folder of graphs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from free import FrozenDrafter
from free.engines.load import load_engine
from free.engines.manifest import MANIFEST
from free.engines.networks import EngineDrafter
from free.engines.onnx import OnnxSession
from tests.exports import Export, close

pytest.importorskip("onnxruntime")


@pytest.fixture
def folder(plain_export: Export, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(plain_export.folder, tmp_path / "copy"))


def test_a_folder_is_a_teacher_and_its_drafter(plain_export: Export) -> None:
    teacher, drafter = load_engine(plain_export.folder, threads=1)
    assert teacher.config == plain_export.teacher.config
    assert isinstance(drafter, EngineDrafter)
    assert (drafter.window, drafter.sweeps) == (3, None)
    assert drafter.sampling == plain_export.manifest.sampling
    assert all(isinstance(session, OnnxSession) for session in drafter.sessions.values())
    rows = torch.randn(2, 2, 4, 4), torch.tensor([3, 999]), torch.tensor([0, 15])
    with torch.no_grad():
        close(teacher(*rows).eps, plain_export.teacher(*rows).eps)
    assert teacher(*rows).variance is None


def test_a_teacher_alone_drafts_frozen(folder: Path) -> None:
    record = json.loads((folder / MANIFEST).read_text())
    record["graphs"] = {"teacher": record["graphs"]["teacher"]}
    (folder / MANIFEST).write_text(json.dumps(record))
    _, drafter = load_engine(folder)
    assert isinstance(drafter, FrozenDrafter)
    assert drafter.sampling["window"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "openvino"}, "engine must be .*onnxruntime.*, got 'openvino'"),
        ({"device": "tpu"}, "device must be cpu or cuda, got 'tpu'"),
        ({"threads": 0}, "threads must be None or an integer >= 1, got 0"),
        ({"engine": "onnxruntime-tensorrt"}, "device must be cuda for onnxruntime-tensorrt, got"),
    ],
)
def test_arguments(plain_export: Export, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_engine(plain_export.folder, **arguments)  # type: ignore[arg-type]


def test_nothing_falls_back(plain_export: Export) -> None:
    with pytest.raises(RuntimeError, match="provider TensorrtExecutionProvider (was a|is not in)"):
        load_engine(plain_export.folder, "onnxruntime-tensorrt", "cuda")
    if torch.cuda.is_available():
        pytest.skip("the CUDA provider starts here")
    with pytest.raises(RuntimeError, match="provider CUDAExecutionProvider (was asked|is not in)"):
        load_engine(plain_export.folder, device="cuda")


def test_folders_that_are_not_an_export(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="engine folder must hold manifest.json, as free export"):
        load_engine(tmp_path)
    (folder / "draft.onnx").write_bytes((folder / "drafter.onnx").read_bytes())
    with pytest.raises(ValueError, match="draft.onnx must be the file that was exported"):
        load_engine(folder)
