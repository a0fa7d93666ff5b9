"""Processes that share a run: what they agree on, and that none waits for the dead."""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from free.generation import Processes
from tests.generation.runs import draw

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


#: Its processes are forks of one that has imported everything, once.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__])


def _start(rank: int, environment: dict[str, str], code: Callable[..., None], *more: Any) -> None:
    torch.set_num_threads(1)
    os.environ |= environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    code(*more)


def together(code: Callable[..., None], *more: Any) -> list[int | None]:
    """Exit codes of two processes that run a function of this module."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    processes = [
        SERVER.Process(target=_start, args=(rank, environment, code, *more)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in processes]


def _agree() -> None:
    processes = Processes.from_environment()

    def fail() -> None:
        raise ValueError(f"by {processes.rank}")

    with processes.joined():
        assert processes.first(lambda: ["of", processes.rank]) == ["of", 0]
        with pytest.raises(ValueError, match="by 0"):
            processes.first(fail)
        flags = torch.arange(3) == processes.rank
        assert processes.any(flags).tolist() == [True, True, False]
        looks: list[int] = []
        if processes.rank == 1:
            time.sleep(0.5)
        processes.wait(lambda: looks.append(1), 0.01)
        assert processes.rank == 1 or len(looks) > 5


def test_they_agree() -> None:
    assert together(_agree) == [0, 0]


def _die(call: str, dead: int) -> None:
    processes = Processes.from_environment()
    with processes.joined():
        processes.any(torch.zeros(1))  # both have connected
        if processes.rank == dead:
            os._exit(7)
        argument: Any = torch.zeros(1) if call == "any" else int
        try:
            getattr(processes, call)(argument)
        except RuntimeError as error:
            os._exit(3 if "another process of this run has ended early" in str(error) else 4)


@pytest.mark.parametrize("call", ["wait", "any", "first"])
def test_a_death_is_noticed(call: str) -> None:
    """Process 1 dies; of a broadcast by process 0, process 1 would not notice 0's end otherwise."""
    dead = 0 if call == "first" else 1
    assert sorted(together(_die, call, dead), key=str) == [3, 7]


def _disagree(folder: Path) -> None:
    rank = Processes.from_environment().rank
    other = ("got others than here", "got .* seed 1, not 0")[rank]
    with pytest.raises(ValueError, match=f"processes must all have the same settings, {other}"):
        draw(folder / "x.npz", seed=rank)


def test_settings_must_be_the_same(tmp_path: Path) -> None:
    assert together(_disagree, tmp_path) == [0, 0]
    assert not list(tmp_path.iterdir())


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")  # says nothing
    alone = Processes.from_environment()
    assert alone == Processes(0, 1, 0)
    with alone.joined():
        assert not torch.distributed.is_initialized()
        assert alone.first(lambda: 3) == 3
        assert alone.any(torch.tensor([True, False])).tolist() == [True, False]
        alone.wait(lambda: pytest.fail("there is nobody to wait for"))


def test_a_contradictory_environment() -> None:
    for values in (
        {"RANK": "0"},
        {"WORLD_SIZE": "2"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "x", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "-1"},
    ):
        with pytest.MonkeyPatch.context() as patch:
            for name in NAMES:
                patch.delenv(name, raising=False)
            for name, value in values.items():
                patch.setenv(name, value)
            message = f"RANK, WORLD_SIZE, LOCAL_RANK must be as torchrun sets them, got {values}"
            with pytest.raises(ValueError, match=message):
                Processes.from_environment()
