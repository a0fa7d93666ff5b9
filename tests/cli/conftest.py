"""Commands run on torch here unless they say otherwise: exports take their time."""

import pytest


@pytest.fixture(autouse=True)
def _torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREE_ENGINE", "torch")
