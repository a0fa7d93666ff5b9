"""Runs draw no picture here unless a test asks for it: it takes longer than the run."""

import pytest

from free.training import journal, log


@pytest.fixture(autouse=True)
def _no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "draw_losses", lambda folder: False)


@pytest.fixture
def picture(_no_picture: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw their losses."""
    monkeypatch.setattr(journal, "draw_losses", log.draw_losses)
