"""Loading takes the memory of the network and little more; see ``benchmarks/loading.py``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import loading
from free import DiTConfig

#: Code that is loaded on the way; what is twice in memory would be far more.
CODE = 20e6


def _check(row: dict, allowance: float) -> None:
    assert row["peak"] < 1.15 * row["larger"] + allowance
    assert row["peak"] > 0.9 * row["network"]  # it was measured at all


def test_a_small_network(tmp_path: Path) -> None:
    """One of each library's files, those with the most to leave in the file."""
    network = loading.random_network(DiTConfig.named("DiT-S/8"))
    sources = loading.save_all(network, tmp_path)
    for form in ("diffusers", "training"):
        row = loading.measure(form, sources[form], "float32", 1, tmp_path / "output")
        _check(row, CODE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_full_size_network(tmp_path: Path) -> None:
    path = tmp_path / "loading.json"
    command = [sys.executable, loading.__file__, "--model", "DiT-XL/2", "--folder", str(tmp_path)]
    subprocess.run([*command, "--json", str(path), "--repeats", "2"], check=True)
    record = json.loads(path.read_text())
    forms = {row["format"] for row in record["results"]}
    assert forms == {"free", "original", "diffusers", "training"}
    assert set(record["equal"]) == {row["dtype"] for row in record["results"]}
    assert all(record["equal"].values())
    for row in record["results"]:
        _check(row, 0)
