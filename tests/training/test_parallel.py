"""Several processes train as one does."""

import json
import signal
from pathlib import Path

import pytest
import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from free.training.parallel import Ranks, ranks_of_environment
from tests.training.runs import PROCESSES, losses, run, run_in_process, state

#: Signals that an agent handles.
_AGENTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

SETTINGS = {"save_every": 5, "log_every": 3}


def _one_process(folder: Path) -> None:
    run_in_process(folder, 12, micro_batch=2, **SETTINGS)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``torchrun --nproc-per-node=2``, with this process as its agent."""
    folder = tmp_path_factory.mktemp("two")
    launch = LaunchConfig(
        1, 1, 2, run_id=folder.name, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        start_method=PROCESSES.get_start_method(), max_restarts=0,
    )  # fmt: skip
    handlers = {number: signal.getsignal(number) for number in _AGENTS}
    try:
        elastic_launch(launch, _one_process)(folder)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return folder


def _far(folder: Path, other: Path) -> float:
    """How far weights and averages of two runs are apart, at most."""
    one, two = state(folder)["weights"], state(other)["weights"]
    return max(
        (value - two[part][name]).abs().max().item()
        for part in ("model", "average")
        for name, value in one[part].items()
    )


def test_two_processes_are_one_with_the_batch_of_both(by_two: Path, tmp_path: Path) -> None:
    """Also where one goes on with what the two began."""
    one = tmp_path / "one"
    run(one, 12, **SETTINGS)
    assert json.loads((by_two / "config.json").read_text())["starts"][0]["processes"] == 2
    skipped = json.loads((by_two / "skipped.json").read_text())
    assert [entry["file"] for entry in skipped] == ["of rank 0", "of rank 1"]
    assert _far(by_two, one) < 1e-5
    for rows in zip(losses(by_two), losses(one), strict=True):
        numbers = (torch.tensor([float(x) for x in row.values()]) for row in rows)
        torch.testing.assert_close(*numbers, rtol=1e-4, atol=0)
    run(one, 20, **SETTINGS)
    for file in by_two.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    run(tmp_path, 20, **SETTINGS)
    assert _far(tmp_path, one) < 1e-5


def test_rows_are_shared_out() -> None:
    assert (Ranks().rows(8), Ranks(1, 2).rows(8)) == ([range(8)], [range(4, 8)])
    assert Ranks(1, 2).rows(8, 2) == [range(4, 6), range(6, 8)]
    together = [row for rank in range(4) for rows in Ranks(rank, 4).rows(16, 2) for row in rows]
    assert together == list(range(16))


def test_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")  # says nothing
    with ranks_of_environment("cpu") as ranks:
        assert (ranks.rank, ranks.world, ranks.first) == (0, 1, True)
        assert ranks.equal(3)
        assert ranks.collect([{"a": 1}]) == [{"a": 1}]
    message = "device must be one that this machine has, got 'nowhere': "
    with pytest.raises(ValueError, match=message), ranks_of_environment("nowhere"):
        pass
