"""Several processes train as one does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from free.training.parallel import Ranks, ranks_of_environment
from tests.training.runs import losses, run

ROOT = Path(__file__).parents[2]
#: Of the program in ``runs``, which both runs below are compared with.
SETTINGS = {"save_every": 5, "log_every": 3}


def _two_processes(folder: Path, steps: int, batch_size: int, micro_batch: int) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = ["-m", "tests.training.runs", folder, steps, batch_size, micro_batch]
    done = subprocess.run(
        [*launch, *map(str, program)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    _two_processes(folder, 12, 8, 2)
    return folder


def _weights(folder: Path, part: str = "average") -> dict[str, Tensor]:
    return torch.load(folder / "state.pt", weights_only=True)["weights"][part]


def _far(folder: Path, other: Path) -> float:
    """How far weights and averages of two runs are apart, at most."""
    return max(
        (value - _weights(other, part)[name]).abs().max().item()
        for part in ("model", "average")
        for name, value in _weights(folder, part).items()
    )


def test_two_processes_are_one_with_the_batch_of_both(by_two: Path, tmp_path: Path) -> None:
    run(tmp_path, 12, **SETTINGS)
    assert _far(by_two, tmp_path) < 1e-5
    for one, two in zip(losses(by_two)[1:], losses(tmp_path)[1:], strict=True):
        numbers = ([float(x) for x in line.split(",")] for line in (one, two))
        torch.testing.assert_close(*map(torch.tensor, numbers), rtol=1e-4, atol=0)


def test_a_run_goes_on_with_another_number_of_processes(by_two: Path, tmp_path: Path) -> None:
    """Two, then one, against one all the way."""
    run(tmp_path / "one", 20, **SETTINGS)
    for file in by_two.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    run(tmp_path, 20, **SETTINGS)
    assert _far(tmp_path, tmp_path / "one") < 1e-5


def test_the_comparison_would_see_ranks_that_draw_alike(by_two: Path, tmp_path: Path) -> None:
    """If both processes took the same half of a batch, the weights would be further apart."""

    class Alike(Ranks):
        def rows(self, batch_size: int, micro_batch: int | None = None) -> list[range]:
            return [range(batch_size // 2)] * 2

    run(tmp_path, 12, ranks=Alike(), **SETTINGS)
    assert _far(by_two, tmp_path) > 1e-3


def test_rows_are_shared_out() -> None:
    assert Ranks().rows(8) == [range(8)]
    assert Ranks(1, 2).rows(8) == [range(4, 8)]
    assert Ranks(1, 2).rows(8, 2) == [range(4, 6), range(6, 8)]
    together = [row for rank in range(4) for rows in Ranks(rank, 4).rows(16, 2) for row in rows]
    assert together == list(range(16))
    with pytest.raises(ValueError, match="batch_size must be a multiple of the number of processe"):
        Ranks(0, 3).rows(8)
    with pytest.raises(ValueError, match="batch_size must be a multiple .*, 4, got 0"):
        Ranks(0, 4).rows(0)
    with pytest.raises(ValueError, match="micro_batch must divide batch_size / 2 processes, 4, "
                       "got 3"):  # fmt: skip
        Ranks(0, 2).rows(8, 3)


def test_values_are_collected_as_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks with texts of different lengths; a byte of a text is one on the way."""
    other = [{"file": "é.png"}, {"file": "a longer name"}]
    text = torch.tensor(list(json.dumps(other).encode()), dtype=torch.uint8)

    def all_reduce(sizes: Tensor) -> None:
        sizes[1] = len(text)

    def all_gather(texts: list[Tensor], own: Tensor) -> None:
        assert own.dtype == torch.uint8
        texts[0].copy_(own)
        texts[1].copy_(text)

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    assert Ranks(0, 2).collect([{"file": "x"}]) == [{"file": "x"}, *other]


def test_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with ranks_of_environment("cpu") as ranks:
        assert (ranks.rank, ranks.world, ranks.first) == (0, 1, True)
        assert ranks.equal(3)
        assert ranks.collect([{"a": 1}]) == [{"a": 1}]
    with (
        pytest.raises(
            ValueError, match="device must be one that this machine has, got 'nowhere': "
        ),
        ranks_of_environment("nowhere"),
    ):
        pass
