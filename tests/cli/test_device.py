"""``--device cuda`` where it cannot be had: one line that says what to do, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from free.cli import app

RUN = CliRunner()
SAMPLING: dict[str, list[str]] = {
    "sample": [],
    "generate": ["--out", "x.npz", "--num", "2"],
    "tune": [],
    "bench": [],
    "profile": [],
    "sweep": [],
    "fit-variance": ["--out", "x.json"],
    "train-teacher": ["--out", "x"],
    "train-drafter": ["--out", "x", "--model", "mnist"],
    "train-variance": ["--out", "x"],
}


def _refusal(command: str, arguments: list[str]) -> str:
    result = RUN.invoke(app, [command, *arguments, "--device", "cuda"])
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    lines = [line for line in result.output.splitlines() if line.strip()]
    assert len(lines) == 1, result.output
    assert "device must be one that this machine has, got 'cuda" in lines[0]
    return lines[0]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
@pytest.mark.parametrize("command", [*SAMPLING, "evaluate"])
def test_no_cuda_in_torch(command: str) -> None:
    arguments = SAMPLING.get(command, ["x.npz", "mnist"])
    line = _refusal(command, arguments)
    assert line.endswith("take cpu, or install a torch that is built with CUDA (pytorch.org)")
