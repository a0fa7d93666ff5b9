"""Exports are made once, and again when they must be."""

from pathlib import Path

import pytest

from free import DiT, DiTConfig, DrafterNet
from free.drafters.feature import FeatureDrafter
from free.engines.manifest import Manifest
from free.export import cache
from free.export.cache import cached_export
from tests.networks import randomized

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)


def teacher(seed: int = 0) -> DiT:
    network = randomized(DiT(CONFIG), seed)
    assert isinstance(network, DiT)
    return network


def test_made_once_and_again_when_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FREE_CACHE", str(tmp_path))
    made = []
    folder = cached_export(teacher(), None, 2, None, 1, False, progress=made.append)
    assert made == ["teacher"]
    assert cached_export(teacher(), None, 2, None, 1, False, progress=made.append) == folder
    assert made == ["teacher"]
    (folder / "weights.bin").write_bytes(b"damaged")
    assert cached_export(teacher(), None, 2, None, 1, False, progress=made.append) == folder
    assert made == ["teacher"] * 2
    Manifest.read(folder).check_files(folder)


def test_a_younger_record_is_taken_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FREE_CACHE", str(tmp_path))
    model, network, made = teacher(), randomized(DrafterNet(CONFIG)), []
    for record in ({}, {"1": [0.1]}, {"1": [0.2]}):
        drafter = FeatureDrafter(network, model, {"acceptance": record})
        folder = cached_export(model, drafter, 2, 1, 1, False, progress=made.append)
        assert Manifest.read(folder).sampling.get("acceptance", {}) == record
        Manifest.read(folder).check_files(folder)
    assert made == ["teacher", "drafter", "draft"]  # exported once


def test_another_model_or_setting_is_another_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FREE_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "export_model", lambda *_, **__: None)
    one_weight = teacher()
    one_weight.blocks[0].mlp.fc1.weight.data[0, 0] += 1e-3
    requests = [
        (teacher(), None, 2, None, 1, False),
        (one_weight, None, 2, None, 1, False),
        (teacher(1), None, 2, None, 1, False),
        (teacher(), None, 3, None, 1, False),
        (teacher(), None, 2, 1, 1, False),
        (teacher(), None, 2, None, 2, False),
        (teacher(), None, 2, None, 1, True),
        (teacher(), None, 2, None, 1, False, "fp16"),
    ]
    folders = [cached_export(*request) for request in requests]
    assert len(set(folders)) == len(requests)
    assert cached_export(*requests[0]) == folders[0]
