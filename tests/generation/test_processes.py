"""Processes that share a run: what they agree on, and that none waits for the dead."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from free.generation import Processes

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


def together(code: str, count: int = 2) -> list[tuple[int, str, str]]:
    """Run code in several processes: exit code and outputs of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                 "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=120) for process in started]
    return [(p.returncode, *output) for p, output in zip(started, outputs, strict=True)]


def test_they_agree() -> None:
    code = """
import torch
from free.generation import Processes
p = Processes.from_environment()
def fail():
    raise ValueError(f"said by {p.rank}")
with p.joined():
    assert p.first(lambda: ["of", p.rank]) == ["of", 0]
    try:
        p.first(fail)
    except ValueError as error:
        assert str(error) == "said by 0"
    else:
        raise AssertionError
    flags = torch.arange(3) == p.rank
    assert p.any(flags).tolist() == [True, True, False]
    looks = []
    if p.rank == 1:
        import time
        time.sleep(0.5)
    p.wait(lambda: looks.append(1), 0.01)
    assert p.rank == 1 or len(looks) > 5
"""
    for status, _, errors in together(code):
        assert status == 0, errors


@pytest.mark.parametrize("call", ["wait(int)", "any(torch.zeros(1))", "first(int)"])
def test_a_death_is_noticed(call: str) -> None:
    """Process 1 dies; of a broadcast by process 0, process 1 would not notice 0's end otherwise."""
    code = f"""
import os, torch
from free.generation import Processes
p = Processes.from_environment()
with p.joined():
    p.any(torch.zeros(1))  # both have connected
    if p.rank == {0 if "first" in call else 1}:
        os._exit(7)
    try:
        p.{call}
    except RuntimeError as error:
        assert "another process of this run has ended early" in str(error)
        os._exit(3)
"""
    assert sorted(status for status, *_ in together(code)) == [3, 7]


def test_settings_must_be_the_same(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from free.generation import Processes
from tests.evaluation.runs import draw
draw(Path({str(tmp_path / "x.npz")!r}), seed=Processes.from_environment().rank)
"""
    results = together(code)
    assert all("processes must all have the same settings" in errors for _, _, errors in results)
    assert "seed 1, not 0" in results[1][2]
    assert "got others than here" in results[0][2]
    assert not list(tmp_path.iterdir())


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    alone = Processes.from_environment()
    assert alone == Processes(0, 1, 0)
    with alone.joined():
        assert not torch.distributed.is_initialized()
        assert alone.first(lambda: 3) == 3
        assert alone.any(torch.tensor([True, False])).tolist() == [True, False]
        alone.wait(lambda: pytest.fail("there is nobody to wait for"))


@pytest.mark.parametrize(
    "said",
    [
        {"RANK": "0"},
        {"WORLD_SIZE": "2"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "x", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "-1"},
    ],
)
def test_a_contradictory_environment(said: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="RANK, WORLD_SIZE and LOCAL_RANK must be as torchrun"):
        Processes.from_environment()
