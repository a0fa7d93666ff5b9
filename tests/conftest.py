"""One thread, fixed seeds: the same numbers in every run, whatever else the machine does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from tests.exports import Export

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


def _exported(factory: pytest.TempPathFactory, guided: bool) -> Export:
    """Tracing takes seconds: each is made once, and only if a test asks for it."""
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    from tests.exports import export

    return export(factory.mktemp("export") / "engine", guided)


@pytest.fixture(scope="session")
def plain_export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    return _exported(tmp_path_factory, guided=False)


@pytest.fixture(scope="session")
def guided_export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    return _exported(tmp_path_factory, guided=True)
