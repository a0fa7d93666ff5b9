"""Exports appear whole or not at all; bad settings are refused before any work."""

import dataclasses
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from free import DiT, FeatureDrafter, FrozenDrafter
from free.engines.manifest import MANIFEST, Manifest
from free.engines.networks import EngineDrafter
from free.export.package import export_model, torch_engine
from tests.exports import small_model

TEACHER, DRAFTER = small_model()
ALL = {"teacher", "drafter", "draft"}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("untraced")
def test_a_folder_is_complete(tmp_path: Path) -> None:
    traced: list[str] = []
    out = tmp_path / "new" / "engine"
    manifest = export_model(
        TEACHER,
        DRAFTER,
        out,
        window=3,
        sweeps=2,
        max_batch=4,
        precision="bf16",
        drafter_precision="fp16",
        guidance=(False,),
        progress=traced.append,
    )
    assert traced == ["teacher", "drafter", "draft"]
    assert {path.name for path in out.iterdir()} == {f"{g}.onnx" for g in ALL} | {
        "weights.bin",
        MANIFEST,
    }
    assert [path.name for path in out.parent.iterdir()] == ["engine"]  # no scratch is left
    again = Manifest.read(out)
    again.check_files(out)
    assert again == manifest
    assert (again.precision, again.drafter_precision) == ("bf16", "fp16")
    assert (again.window, again.sweeps, again.max_batch) == (3, 2, 4)
    assert again.sampling == {"window": 3, "sweeps": 2, "recycle": False}
    assert again.teacher["hidden_size"] == 16
    assert again.versions["opset"] == "20"
    assert again.graphs["draft"].contract.axes["batch"].maximum == 4
    json.loads((out / MANIFEST).read_text(), parse_constant=pytest.fail)


@pytest.mark.usefixtures("untraced")
def test_recommended_settings_are_kept_but_for_what_the_graph_fixes(tmp_path: Path) -> None:
    record, own = {"1": [[0.1]]}, {"window": 9, "recycle": "response"}
    drafter = FeatureDrafter(DRAFTER.network, TEACHER, {**own, "acceptance": record})
    fixed = {"window": 3, "sweeps": None, "recycle": "response"}
    for precision in ("fp32", "bf16"):
        settings: dict[str, Any] = {"precision": precision, "guidance": (True,)}
        manifest = export_model(TEACHER, drafter, tmp_path / precision, 3, None, **settings)
        assert manifest.sampling == {**fixed, "acceptance": record}
        _, on_torch = torch_engine(TEACHER, drafter, 3, None, **settings)
        assert on_torch.sampling == fixed
        assert on_torch.acceptance == record  # type: ignore[union-attr]
    assert drafter.sampling == own


def test_the_teacher_alone_drafts_frozen_within_its_window() -> None:
    for window, expected in ((4, 4), (64, FrozenDrafter().sampling["window"])):
        _, drafter = torch_engine(TEACHER, None, window)
        assert isinstance(drafter, FrozenDrafter)
        assert drafter.sampling["window"] == expected
    _, drafter = torch_engine(TEACHER, DRAFTER, 1)
    assert isinstance(drafter, EngineDrafter)


@pytest.mark.parametrize("fails", [False, True])
def test_an_earlier_export_is_replaced_whole_or_left(tmp_path, untraced, fails) -> None:
    out = tmp_path / "engine"
    untraced["fail"] = "draft_guided"
    with pytest.raises(RuntimeError, match="the disk is full"):
        export_model(TEACHER, DRAFTER, out, window=2)
    assert list(tmp_path.iterdir()) == []
    untraced["fail"] = None
    export_model(TEACHER, DRAFTER, out, window=2)
    (out / "parity.json").write_text("{}")
    before = content(out)
    untraced |= {"fail": "teacher_guided" if fails else None, "content": "newer"}
    with pytest.raises(RuntimeError, match="the disk is full") if fails else nullcontext():
        manifest = export_model(TEACHER, None, out, window=2, guidance=(True,))
    assert list(tmp_path.iterdir()) == [out]
    if fails:
        assert content(out) == before
        return
    assert content(out).keys() == {"teacher_guided.onnx", "weights.bin", MANIFEST}
    assert (out / "teacher_guided.onnx").read_text() == "newerteacher_guided"
    assert Manifest.read(out) == manifest


@pytest.mark.usefixtures("untraced")
def test_empty_folders_and_relative_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export_model(TEACHER, None, ".", window=1)
    Manifest.read(tmp_path / "here").check_files(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("here")
    export_model(TEACHER, None, "link", window=2)
    assert (tmp_path / "link").is_symlink()
    assert Manifest.read("here").window == 2


@pytest.mark.usefixtures("untraced")
def test_foreign_folders_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("photos", "file"):
        with pytest.raises(ValueError, match=f"out must be a new or empty folder, or .*{name}$"):
            export_model(TEACHER, None, tmp_path / name)
    assert (tmp_path / "photos" / "a.png").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "window must be an integer >= 1, got 0"),
        ({"max_batch": 2.0}, "max_batch must be an integer >= 1, got 2.0"),
        ({"sweeps": 0}, r"sweeps must be None or an integer in 1\.\.window - 1 at window 3, got 0"),
        ({"sweeps": 3}, "sweeps must be None or an integer in .* at window 3, got 3"),
        ({"guidance": ()}, r"guidance must be False, True or both, got \(\)"),
        ({"guidance": ("both",)}, r"guidance must be False, True or both, got \('both',\)"),
        ({"precision": "fp8"}, "^precision must be one of fp32, fp16, bf16, got 'fp8'"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_model(TEACHER, DRAFTER, tmp_path / "e", **{"window": 3, **settings})
    assert list(tmp_path.iterdir()) == []


def test_guidance_needs_a_null_class(tmp_path: Path) -> None:
    teacher = DiT(dataclasses.replace(TEACHER.config, null_class=False))
    with pytest.raises(ValueError, match="guidance must be False for a teacher without a null cla"):
        export_model(teacher, None, tmp_path / "e", guidance=(True,))


def test_networks_are_lowered_by_export_alone(tmp_path: Path) -> None:
    low, drafter = small_model()
    low.bfloat16()
    with pytest.raises(ValueError, match="teacher must be float32 on the CPU .* got bfloat16 on c"):
        export_model(low, None, tmp_path / "e")
    drafter.network.half()
    with pytest.raises(ValueError, match="drafter must be float32 on the CPU .* got float16 on c"):
        export_model(TEACHER, drafter, tmp_path / "e")


@pytest.mark.parametrize("package_name", ["onnx", "onnxscript"])
def test_what_is_missing_is_named_with_its_extra(tmp_path, monkeypatch, package_name) -> None:
    monkeypatch.setitem(sys.modules, package_name, None)
    with pytest.raises(ImportError, match=rf"needs {package_name}: pip install 'free-dit\[onnx\]'"):
        export_model(TEACHER, DRAFTER, tmp_path / "e")
    assert list(tmp_path.iterdir()) == []
