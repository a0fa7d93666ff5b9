"""Which engine a command takes, and models on it."""

import errno
import json
from typing import Any

import pytest
import torch
from PIL import Image

from free import DiT, DrafterNet, FeatureDrafter, FrozenDrafter
from free.cli import models
from free.cli.models import Models, choose_engine, put_on_engine
from free.cli.records import EngineOptions
from free.images.autoencoder import PixelCoder
from tests.cli.commands import refuse, succeed
from tests.cli.conftest import CONFIG


def test_the_engine_draws_what_torch_draws(digits, tmp_path, monkeypatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("FREE_CACHE", str(tmp_path / "cache"))
    pictures, rounds = [], []
    for engine in ("torch", "onnxruntime"):
        out, report = tmp_path / f"{engine}.png", tmp_path / "x.json"
        text = succeed(
            *("sample", "--model", digits, "--labels", "0-2", "--steps", 20, "--window", 3),
            *("--drafter", "frozen", "--cfg", 2, "--engine", engine),  # one graph to trace
            *("--out", out, "--json", report),
        )
        assert f"on {engine}:" in text
        pictures.append(Image.open(out).tobytes())
        rounds.append(json.loads(report.read_text())["free"]["rounds_by_sample"])
    assert rounds[0] == rounds[1]
    assert max(abs(a - b) for a, b in zip(*pictures, strict=True)) <= 1
    assert (tmp_path / "cache" / "onnx").is_dir()


@pytest.mark.parametrize("trained", [True, False])
def test_networks_on_a_gpu_are_exported_from_the_cpu(trained, monkeypatch) -> None:
    moves: list[object] = []
    teacher, network = DiT(CONFIG), DrafterNet(CONFIG)
    for name, part in (("teacher", teacher), ("drafter", network)):
        monkeypatch.setattr(part, "cpu", lambda name=name: moves.append((name, "cpu")))
        monkeypatch.setattr(part, "to", lambda place, name=name: moves.append((name, str(place))))
    monkeypatch.setattr(models, "device_of", lambda network: torch.device("cuda", 1))

    def export(teacher: object, drafter: object, *, sweeps: int | None, **_: object) -> str:
        moves.append(("export", drafter is not None, sweeps))
        return "folder"

    monkeypatch.setattr("free.export.cache.cached_export", export)
    monkeypatch.setattr(models, "load_engine", lambda folder, engine, device: (folder, engine))
    drafter = FeatureDrafter(network, teacher) if trained else FrozenDrafter()
    everything = Models(teacher, drafter, PixelCoder(), "onnxruntime")
    options = EngineOptions(device="cuda", engine="onnxruntime")
    placed = put_on_engine(everything, options, {"window": 4, "sweeps": 1}, 1)
    assert placed[:2] == ("folder", "onnxruntime" if trained else drafter)
    parts = ["teacher", "drafter"][: 1 + trained]
    assert moves == [
        *((part, "cpu") for part in parts),
        ("export", trained, 1 if trained else None),
        *((part, "cuda:1") for part in parts),
    ]


def test_auto_is_onnx_runtime_for_embedded_models_where_it_is_installed(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("FREE_CACHE", str(tmp_path))
    assert choose_engine(EngineOptions()) == "onnxruntime"
    for other in (
        EngineOptions(device="cuda"),
        EngineOptions(dtype="float16"),
        EngineOptions(model="my/bundle"),
        EngineOptions(engine="torch"),
    ):
        assert choose_engine(other) == "torch"
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    assert choose_engine(EngineOptions()) == "torch"
    with pytest.raises(ValueError, match="--engine must be one of auto, torch, .*, got 'tpu'"):
        choose_engine(EngineOptions(engine="tpu"))


def test_without_a_cache_it_is_torch(digits, tmp_path, monkeypatch, no_cache, capsys) -> None:
    """Unless an engine is asked for, which says what it needs."""
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: object())
    assert choose_engine(EngineOptions()) == "torch"
    line = capsys.readouterr().err
    assert line.startswith("on torch, as exported graphs cannot be kept: FREE_CACHE must name")
    assert line.count("\n") == 1
    pytest.importorskip("onnxscript")
    explicit = ["--model", digits, "--engine", "onnxruntime", "--out", tmp_path / "x.png"]
    refuse("FREE_CACHE must name a folder that can be written to", "sample", *explicit)
    assert no_cache in line


def test_where_an_export_fails_on_a_full_disk_it_is_torch(monkeypatch, capsys) -> None:
    def full(*networks: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "new/weights.bin")

    monkeypatch.setattr("free.export.cache.cached_export", full)
    loaded = Models(DiT(CONFIG), FrozenDrafter(), PixelCoder(), "onnxruntime")
    settings = {"window": 4, "sweeps": 1}
    placed = put_on_engine(loaded, EngineOptions(), settings, 1)
    assert placed == loaded._replace(engine="torch")
    line = capsys.readouterr().err
    assert line.endswith("cannot be kept: No space left on device: new/weights.bin\n")
    with pytest.raises(OSError, match="No space left"):
        put_on_engine(loaded, EngineOptions(engine="onnxruntime"), settings, 1)
