"""``free sample`` on an engine."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from free import DiT, DiTConfig, DrafterNet, FeatureDrafter
from free.cli import app, engine
from free.cli.engine import choose_engine
from tests.networks import randomized

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    teacher = randomized(DiT(CONFIG))
    for weight in teacher.parameters():
        weight *= 0.5
    teacher.save_pretrained(folder / "teacher")
    DrafterNet(CONFIG).save_pretrained(folder / "drafter")
    return folder


def sample(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["sample", *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("drafter", ["trained", "frozen"])
def test_the_engine_draws_what_torch_draws(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drafter: str
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setenv("FREE_CACHE", str(tmp_path / "cache"))
    pictures, rounds = [], []
    for used in ("torch", "onnxruntime"):
        out = tmp_path / f"{used}.png"
        code, text = sample(
            *("--model", bundle, "--labels", "0-2", "--steps", 40, "--window", 3, "--sweeps", 1),
            *("--recycle", "response", "--drafter", drafter, "--cfg", 2, "--engine", used),
            *("--out", out, "--json", tmp_path / "r.json"),
        )
        assert code == 0, text
        assert f"on {used}:" in text
        pictures.append(Image.open(out).tobytes())
        rounds.append(json.loads((tmp_path / "r.json").read_text())["free"]["rounds_by_sample"])
    assert rounds[0] == rounds[1]
    assert max(abs(a - b) for a, b in zip(*pictures, strict=True)) <= 1
    assert (tmp_path / "cache" / "onnx").is_dir()


def test_networks_on_a_gpu_are_exported_from_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[object] = []
    teacher, network = DiT(CONFIG), DrafterNet(CONFIG)
    for name, part in (("teacher", teacher), ("drafter", network)):
        monkeypatch.setattr(part, "cpu", lambda name=name: moves.append((name, "cpu")))
        monkeypatch.setattr(part, "to", lambda place, name=name: moves.append((name, str(place))))
    monkeypatch.setattr(engine, "device_of", lambda network: torch.device("cuda", 1))

    def export(*_: object, **__: object) -> None:
        moves.append("export")
        raise ValueError("no further")

    monkeypatch.setattr("free.export.cache.cached_export", export)
    drafter, settings = FeatureDrafter(network, teacher), {"window": 4, "sweeps": 1}
    with pytest.raises(ValueError, match="no further"):
        engine.put_on_engine("onnxruntime", teacher, drafter, settings, False, 1, "cuda", "float32")
    there = [("teacher", "cpu"), ("drafter", "cpu")]
    assert moves == [*there, "export", ("teacher", "cuda:1"), ("drafter", "cuda:1")]


def test_auto_is_onnx_runtime_for_embedded_models_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: object())
    assert choose_engine("auto", "mnist", "cpu", "float32") == "onnxruntime"
    assert choose_engine("auto", "mnist", "cuda", "float32") == "torch"
    assert choose_engine("auto", "mnist", "cpu", "float16") == "torch"
    assert choose_engine("auto", "my/bundle", "cpu", "float32") == "torch"
    assert choose_engine("torch", "mnist", "cpu", "float32") == "torch"
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    assert choose_engine("auto", "mnist", "cpu", "float32") == "torch"
    with pytest.raises(ValueError, match="--engine must be one of auto, torch, .*, got 'tpu'"):
        choose_engine("tpu", "mnist", "cpu", "float32")
