"""How the core was built, and how CMake finds CUDA."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from free import ops

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


def test_build_info() -> None:
    info = ops.build_info()
    assert set(info) == {"compiler", "cuda", "openmp", "simd"}
    assert info["cuda"] is None or info["cuda"].count(".") == 1
    assert info["simd"] in ("avx512f", "avx2", "baseline")


def test_cuda_devices_or_the_reason() -> None:
    devices, reason = ops.cuda_devices()
    assert bool(devices) == (reason is None)
    assert all(set(device) == {"name", "capability"} for device in devices)
