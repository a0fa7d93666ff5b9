"""Opening a folder of graphs."""

import shutil
from pathlib import Path

import pytest
import torch

from free.engines.load import load_engine
from free.engines.networks import EngineDrafter
from free.engines.onnx import OnnxSession
from tests.exports import Export, close

pytest.importorskip("onnxruntime")


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "openvino"}, "engine must be .*onnxruntime.*, got 'openvino'"),
        ({"device": "tpu"}, "device must be cpu or cuda, got 'tpu'"),
        ({"threads": 1025}, "threads must be None or an integer in 1..1024, got 1025"),
        ({"threads": 0}, "threads must be None or an integer in 1..1024, got 0"),
        ({"engine": "onnxruntime-tensorrt"}, "device must be cuda for onnxruntime-tensorrt, got"),
    ],
)
def test_arguments(plain_export: Export, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_engine(plain_export.folder, **arguments)  # type: ignore[arg-type]


def test_folders_that_are_not_an_export(plain_export: Export, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="engine folder must hold manifest.json, as free export"):
        load_engine(tmp_path)
    folder = Path(shutil.copytree(plain_export.folder, tmp_path / "copy"))
    (folder / "draft.onnx").write_bytes((folder / "drafter.onnx").read_bytes())
    with pytest.raises(ValueError, match="draft.onnx must be the file that was exported"):
        load_engine(folder)
