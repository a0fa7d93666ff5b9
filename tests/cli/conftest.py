"""Small models for commands, which run on torch unless they say otherwise: exports take time."""

from pathlib import Path

import pytest

from free import DiT, DiTConfig, DrafterNet
from tests.networks import randomized

#: Of MNIST's digits: 28 x 28 pixels, ten classes, in 16 tokens.
CONFIG = DiTConfig(28, 7, 1, 16, 1, 2, num_classes=10, learn_sigma=False)


@pytest.fixture(autouse=True)
def _torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREE_ENGINE", "torch")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of random networks, mild enough that some drafts are accepted."""
    folder = tmp_path_factory.mktemp("digits")
    teacher, drafter = randomized(DiT(CONFIG)), randomized(DrafterNet(CONFIG), 7)
    for weight in (*teacher.parameters(), *drafter.parameters()):
        weight *= 0.5
    teacher.save_pretrained(folder / "teacher")
    sampling = {"window": 4, "sweeps": 1, "recycle": "response"}
    drafter.save_pretrained(folder / "drafter", sampling=sampling)
    return folder
