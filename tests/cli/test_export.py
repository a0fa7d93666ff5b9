"""``free export`` from the command line."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from free import DiT, DiTConfig, DrafterNet
from free.engines.manifest import Manifest
from free.export import parity
from free.window.acceptance import AcceptanceRecord, write_records
from tests.cli.commands import refuse, run, succeed
from tests.networks import randomized

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As free tune --save leaves one: the drafter has a record of its acceptance."""
    folder = tmp_path_factory.mktemp("bundle")
    randomized(DiT(CONFIG)).save_pretrained(folder / "teacher")
    sampling = {"window": 3, "acceptance": write_records({None: AcceptanceRecord()})}
    randomized(DrafterNet(CONFIG), 7).save_pretrained(folder / "drafter", sampling=sampling)
    return folder


@pytest.fixture(scope="module")
def export(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What the command writes and says; tracing takes seconds a graph. The window is the narrowest:
    inputs that only further drafts need stay in the graph all the same.
    """
    out, level = tmp_path_factory.mktemp("export") / "engine", logging.getLogger("torch.onnx").level
    text = succeed(
        *("export", "--model", bundle, "--out", out, "--window", 2, "--guidance", "only"),
        *("--check-images", 1),
    )
    assert logging.getLogger("torch.onnx").level == level
    return out, text


@pytest.fixture
def again(export: tuple[Path, str], bundle: Path, tmp_path: Path, monkeypatch: Any) -> Any:
    """The command without tracing: its graphs are those of before, said to be of a precision."""

    def run_again(*arguments: object, precision: str = "fp32") -> tuple[int, str]:
        def copy(teacher: object, drafter: object, out: Path, **_: object) -> Manifest:
            shutil.copytree(export[0], out)
            return dataclasses.replace(Manifest.read(out), precision=precision)

        monkeypatch.setattr("free.export.package.export_model", copy)
        return run("export", "--model", bundle, "--out", tmp_path / "e", *arguments)

    return run_again


def test_it_exports_checks_and_says_so(export: tuple[Path, str]) -> None:
    out, text = export
    manifest = Manifest.read(out)
    manifest.check_files(out)
    assert set(manifest.graphs) == {"teacher_guided", "drafter_guided", "draft_guided"}
    assert (manifest.window, manifest.sweeps) == (2, None)
    assert text.startswith("teacher_guided ... drafter_guided ... draft_guided ... ")
    assert "100.0 % of the decisions identical" in text
    record = json.loads((out / "parity.json").read_text())
    assert len(record["graphs"]) >= 3
    assert max(corner["relative"] for corner in record["graphs"]) < 1e-4


def test_a_network_of_a_velocity(tmp_path: Path) -> None:
    """ONNX Runtime's graph takes fractional times; its norms of the heads stay float32."""
    config = DiTConfig(
        8, 4, 1, 16, 1, 2, num_classes=3, prediction="velocity", reversed_time=True, qk_norm=True
    )
    randomized(DiT(config)).save_pretrained(tmp_path / "sit")
    out = tmp_path / "out"
    options = "--guidance", "only", "--precision", "fp16", "--check-images", 1
    text = succeed("export", "--model", tmp_path / "sit", "--out", out, *options)
    assert "the same 1 seeds on torch in fp32 and on the engine" in text
    manifest, record = Manifest.read(out), json.loads((out / "parity.json").read_text())
    assert (manifest.teacher["prediction"], manifest.schedule) == ("velocity", {"steps": 250})
    assert record["sampling"]["images"] == 1
    assert record["sampling"]["delta_shift"] < 0.3
    (graph,) = manifest.graphs.values()
    assert [spec.dtype for spec in graph.contract.inputs if spec.name == "t"] == ["float32"]
    assert max(corner["relative"] for corner in record["graphs"]) < 1e-2


def test_a_failed_check_fails_the_command(again: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parity.TOLERANCE, "fp32", 0.0)
    code, text = again("--check-images", 1)
    assert code == 2
    assert "graphs must agree with torch to 0 in fp32, got" in text


def test_bf16_is_checked_on_torch(again: Any) -> None:
    code, text = again("--precision", "bf16", "--check-images", 1, precision="bf16")
    assert code == 0, text
    assert "checked on torch" in text


def test_an_engine_for_the_gpu_that_is_not_there(again: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    code, text = again("--no-check", "--to", "tensorrt-rtx")
    assert code == 2
    assert "error: target must be named without a GPU" in text
    assert (tmp_path / "e" / "manifest.json").is_file()


def test_what_is_exported_can_be_sampled(export: tuple[Path, str], tmp_path: Path) -> None:
    """With the settings that it was exported with; by what refuses, in one line."""
    folder, _ = export
    small = ["--model", folder, "--labels", 1, "--steps", 12, "--out", tmp_path / "x.png"]
    text = succeed("sample", *small, "--engine", "auto", "--compare")
    assert "window 2, autoregression, nothing recycled, on onnxruntime:" in text
    frozen = [*small, "--engine", "onnxruntime", "--drafter", "frozen"]
    assert "window 2, no drafter call, recycled: response" in succeed("sample", *frozen)
    refuse("export with a larger --window or --max-batch", "sample", *frozen, "--window", 4)
    profile = ["profile", "--model", folder, "--engine", "auto", "--steps", 8]
    assert "on onnxruntime" in succeed(*profile, "--batches", 1)
    for message, *more in (
        ("--engine must be one of onnxruntime, ", "--engine", "torch"),
        ("--dtype must be left out for exported graphs, got 'float16'", "--dtype", "float16"),
        ("--constants must be left out for exported graphs", "--constants", "original"),
        ("--drafter must be trained or frozen for exported graphs", "--drafter", "x"),
    ):
        refuse(message, "sample", *small, "--engine", "auto", *more)
    for command in ("generate", "sweep", "bench"):
        more = ["--out", tmp_path / "x.npz"] * (command == "generate")
        refuse("--model must be a checkpoint for this command, got the exported graphs",
               command, "--model", folder, *more)  # fmt: skip
    refuse("source must be a checkpoint, got", "info", folder)
    refuse("source must be a checkpoint, got", "export", "--model", folder, "--out", tmp_path / "e")
