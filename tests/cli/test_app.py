"""All commands: their help, and devices that cannot be had."""

from pathlib import Path

import pytest
import torch
import typer

from free.cli import app
from tests.cli.commands import run, succeed

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


def test_help_teaches_by_example() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(commands) == {*SAMPLING, "evaluate", "info", "convert", "export"}
    for command in commands:
        assert f"free {command}" in succeed(command, "--help").partition("Options")[0], command


def _refusal(command: str, arguments: list[str]) -> str:
    code, text = run(command, *arguments, "--device", "cuda")
    assert code == 2, text
    assert "device must be one that this machine has, got 'cuda" in text
    assert text.count("error") == 1
    return text


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
@pytest.mark.parametrize("command", [*SAMPLING, "evaluate"])
def test_no_cuda_in_torch(command: str) -> None:
    line = _refusal(command, SAMPLING.get(command, ["x.npz", "mnist"]))
    assert line.endswith("take cpu, or install a torch that is built with CUDA (pytorch.org)")
