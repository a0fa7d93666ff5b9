"""All commands: their help, and devices that cannot be had."""

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


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
@pytest.mark.parametrize("command", [*SAMPLING, "evaluate"])
def test_no_cuda_in_torch(command, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, text = run(command, *SAMPLING.get(command, ["x.npz", "mnist"]), "--device", "cuda")
    assert code == 2, text
    assert "device must be one that this machine has, got 'cuda" in text
    assert text.count("error") == 1
    assert text.endswith("take cpu, or install a torch that is built with CUDA (pytorch.org)")
