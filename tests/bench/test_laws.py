"""Which law is sampled in how many steps."""

import pytest

from free.bench.laws import DDPM, Law, best_law


def test_the_best_law(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_law(10, "epsilon").label == "sde-dpmsolver++"
    assert best_law(100, "epsilon") == DDPM
    assert best_law(10, "velocity").label == "flow-sde"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert best_law(10, "epsilon") == DDPM


@pytest.mark.parametrize(
    ("law", "label"),
    [
        (Law(), "DDPM"),
        (Law(stochasticity=0.5), "DDIM, eta 0.5"),
        (Law(stochasticity=0.5, sde=True), "SDE, 0.5"),
        (Law(sde=True), "SDE, 1"),
        (Law("ddim", 0.3), "ddim, 0.3"),
    ],
)
def test_labels(law: Law, label: str) -> None:
    assert law.label == label
