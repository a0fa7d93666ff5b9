"""Exports are made once, and again when they must be."""

from pathlib import Path
from typing import Any

import pytest

from free import FeatureDrafter
from free.engines.manifest import Manifest
from free.export import cache
from free.export.cache import cached_export
from tests.exports import small_model

pytest.importorskip("onnxscript")

TEACHER, DRAFTER = small_model()


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FREE_CACHE", str(tmp_path))


@pytest.mark.usefixtures("untraced")
def test_made_once_and_again_when_damaged() -> None:
    traced: list[str] = []

    def export() -> Path:
        return cached_export(TEACHER, None, 2, None, 1, False, progress=traced.append)

    folder = export()
    assert traced == ["teacher"]
    assert export() == folder
    assert traced == ["teacher"]
    (folder / "weights.bin").write_bytes(b"damaged")
    assert export() == folder
    assert traced == ["teacher"] * 2
    Manifest.read(folder).check_files(folder)


@pytest.mark.usefixtures("untraced")
def test_a_younger_record_is_taken_up() -> None:
    traced: list[str] = []
    for record in ({}, {"1": [0.1]}, {"1": [0.2]}):
        drafter = FeatureDrafter(DRAFTER.network, TEACHER, {"acceptance": record})
        folder = cached_export(TEACHER, drafter, 2, 1, 1, False, progress=traced.append)
        assert Manifest.read(folder).sampling.get("acceptance", {}) == record
        Manifest.read(folder).check_files(folder)
    assert traced == ["teacher", "drafter", "draft"]  # exported once


def test_another_model_or_setting_is_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "export_model", lambda *_, **__: None)
    one_weight, _ = small_model()
    one_weight.blocks[0].mlp.fc1.weight.data[0, 0] += 1e-3

    def folder(model: Any = TEACHER, drafter: Any = None, **changes: Any) -> Path:
        settings = {"window": 2, "sweeps": None, "max_batch": 1, "guided": False, **changes}
        return cached_export(model, drafter, **settings)

    folders = [
        folder(),
        folder(one_weight),
        folder(drafter=DRAFTER),
        folder(window=3),
        folder(sweeps=1),
        folder(max_batch=2),
        folder(guided=True),
        folder(precision="fp16"),
    ]
    assert len(set(folders)) == len(folders)
    assert folder() == folders[0]
