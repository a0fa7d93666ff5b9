"""One set of small files for all pages."""

from pathlib import Path

import pytest

from tests.docs import world


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    world.build(folder)
    return folder


@pytest.fixture
def place(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a reader: models and images by the names of the docs."""
    pytest.importorskip("diffusers")
    world.copy(files, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FREE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FREE_ENGINE", "torch")  # exports take seconds, and have tests of their own
    return tmp_path
