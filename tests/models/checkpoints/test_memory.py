"""Loading takes the memory of the network and little more; see ``benchmarks/loading.py``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "loading.py"
#: Code that is loaded on the way; what is twice in memory would be far more.
CODE = 20e6


def _measured(folder: Path, model: str, *options: str) -> dict:
    path = folder / "loading.json"
    command = [sys.executable, str(SCRIPT), "--model", model, "--folder", str(folder)]
    subprocess.run([*command, "--json", str(path), *options], check=True)
    return json.loads(path.read_text())


def _check(record: dict, allowance: float) -> None:
    assert set(record["equal"]) == {row["dtype"] for row in record["results"]}
    assert all(record["equal"].values())
    assert {row["format"] for row in record["results"]} == {
        "free", "original", "diffusers", "training"
    }  # fmt: skip
    for row in record["results"]:
        assert row["peak"] < 1.15 * row["larger"] + allowance
        assert row["peak"] > 0.9 * row["network"]  # it was measured at all


def test_a_small_network(tmp_path: Path) -> None:
    _check(_measured(tmp_path, "DiT-S/8", "--repeats", "1", "--dtypes", "float32"), CODE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_full_size_network(tmp_path: Path) -> None:
    _check(_measured(tmp_path, "DiT-XL/2", "--repeats", "2"), 0)
