"""How CMake finds CUDA."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pybind11 = pytest.importorskip("pybind11")

ROOT = Path(__file__).parents[2]
MISSING = [tool for tool in ("cmake", "ninja", "nvcc") if shutil.which(tool) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not in PATH: {', '.join(MISSING)}")
def test_a_build_folder_that_had_no_nvcc_looks_for_it_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            "cmake", "-S", str(ROOT), "-B", str(tmp_path), "-G", "Ninja",
            f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            "-DFREE_CUDA=ON", "-DCMAKE_CUDA_COMPILER=NOTFOUND",  # as CMake remembers it
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "free: CUDA ON" in done.stdout
    rules = (tmp_path / "build.ninja").read_text()
    assert "compute_80" in rules  # and for what free chooses, not CMake
