"""One thread, fixed seeds: the same numbers in every run, whatever else the machine does."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from filelock import FileLock

if TYPE_CHECKING:
    from tests.exports import Export
    from tests.shim import Kernels

torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What has been imported stays: collecting garbage need not look at it again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=["no home", "no folder", "no name"])
def no_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user whose cache can be neither read nor written, as in a container; why, in a word."""
    for name in ("FREE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "no home":

        def unknown() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", unknown)
        return "no home folder"
    # Also for root, whom no permission stops.
    monkeypatch.setenv("HOME", "/dev/null" if request.param == "no folder" else "/" + "x" * 300)
    return "Not a directory" if request.param == "no folder" else "File name too long"


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """The CUDA kernels, for the CPU: compiled once, for all of pytest's processes."""
    from tests.shim import build

    folder = _shared(tmp_path_factory)
    with FileLock(folder / "kernels.lock"):
        return build(folder / "kernels")


def _shared(factory: pytest.TempPathFactory) -> Path:
    """A folder of all of pytest's processes."""
    folder = factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


def _exported(factory: pytest.TempPathFactory, guided: bool) -> Export:
    """Tracing takes seconds: each is made once, and only if a test asks for it."""
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from tests.exports import export

    return export(_shared(factory) / ("guided_export" if guided else "plain_export"), guided)


@pytest.fixture(scope="session")
def plain_export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    return _exported(tmp_path_factory, guided=False)


@pytest.fixture(scope="session")
def guided_export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    return _exported(tmp_path_factory, guided=True)
