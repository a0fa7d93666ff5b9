"""``free export`` from the command line."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from free import DiT, DiTConfig, DrafterNet
from free.cli import app
from free.engines.manifest import Manifest
from free.export import parity
from tests.networks import randomized

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    randomized(DiT(CONFIG)).save_pretrained(folder / "teacher")
    randomized(DrafterNet(CONFIG), 7).save_pretrained(folder / "drafter")
    return folder


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


def test_exports_checks_and_says_so(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "engine"
    code, text = run("--model", bundle, "--out", out, "--window", 3, "--guidance", "only",
                     "--check-images", 1)  # fmt: skip
    assert code == 0, text
    manifest = Manifest.read(out)
    manifest.check_files(out)
    assert set(manifest.graphs) == {"teacher_guided", "drafter_guided", "draft_guided"}
    assert (manifest.window, manifest.sweeps) == (3, None)
    assert "100.0 % of the decisions identical" in text
    record = json.loads((out / "parity.json").read_text())
    assert len(record["graphs"]) >= 3
    assert max(corner["relative"] for corner in record["graphs"]) < 1e-4


def test_a_failed_check_fails_the_command(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parity.TOLERANCE, "fp32", 0.0)
    code, text = run("--model", bundle, "--out", tmp_path / "e", "--window", 1, "--guidance",
                     "none", "--check-images", 1)  # fmt: skip
    assert code == 2
    assert "graphs must agree with torch to 0 in fp32, got" in text


def test_bf16_is_checked_on_torch(bundle: Path, tmp_path: Path) -> None:
    code, text = run("--model", bundle, "--out", tmp_path / "e", "--window", 2, "--guidance",
                     "none", "--precision", "bf16", "--check-images", 1)  # fmt: skip
    assert code == 0, text
    assert "checked on torch" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "coreml"], "--to must be onnx, tensorrt or tensorrt-rtx, got 'coreml'"),
        (["--guidance", "maybe"], "--guidance must be both, only or none, got 'maybe'"),
        (["--target", "sm89"], "--target must come with --to tensorrt-rtx, got --to onnx"),
        (["--precision", "int8"], "precision must be one of fp32, fp16, bf16, got 'int8'"),
        (
            ["--window", 2, "--sweeps", 2],
            "sweeps must be None or an integer in 1..window - 1, got 2 at window 2",
        ),
    ],
)
def test_bad_input(bundle: Path, tmp_path: Path, arguments: list[object], message: str) -> None:
    code, text = run("--model", bundle, "--out", tmp_path / "e", *arguments)
    assert code == 2
    assert message in text.replace("│ ", "")
    assert not (tmp_path / "e").exists()


def test_an_engine_for_the_gpu_that_is_not_there(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    code, text = run("--model", bundle, "--out", tmp_path / "e", "--window", 1, "--guidance",
                     "none", "--no-check", "--to", "tensorrt-rtx")  # fmt: skip
    assert code == 2
    assert "error: target must be named without a GPU" in text
    assert (tmp_path / "e" / "manifest.json").is_file()
