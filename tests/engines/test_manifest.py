"""Manifests: what is read back, and what is refused, with the reason."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from free import DiTConfig
from free.engines.interface import Contract, Profile, TensorSpec
from free.engines.manifest import MANIFEST, Graph, Manifest
from free.files import digest

CONTRACT = Contract(
    "teacher",
    (TensorSpec("x", "float32", ("rows", 2)), TensorSpec("y", "int64", ("rows",), 0, 3)),
    (TensorSpec("eps", "float32", ("rows", 2)),),
    {"rows": Profile(1, 2, 4)},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What an export looks like, without its content."""
    (tmp_path / "teacher.onnx").write_bytes(b"graph")
    (tmp_path / "weights.bin").write_bytes(b"numbers")
    Manifest(
        graphs={
            "teacher": Graph(CONTRACT, "teacher.onnx", digest(tmp_path / "teacher.onnx")),
        },
        weights=("weights.bin", digest(tmp_path / "weights.bin")),
        teacher=dataclasses.asdict(DiTConfig(4, 2, 2, 16, 1, 2)),
        precision="fp32",
        drafter_precision="fp16",
        window=2,
        sweeps=None,
        max_batch=2,
        sampling={"recycle": "response"},
        schedule={"steps": 250},
        versions={"free": "0"},
    ).write(tmp_path)
    return tmp_path


def rewrite(folder: Path, **changes: Any) -> None:
    """Change fields of the manifest; ``...`` leaves one out."""
    record = json.loads((folder / MANIFEST).read_text()) | changes
    kept = {name: value for name, value in record.items() if value is not ...}
    (folder / MANIFEST).write_text(json.dumps(kept))


def test_comes_back_as_written(folder: Path) -> None:
    manifest = Manifest.read(folder)
    assert manifest.graphs["teacher"].contract == CONTRACT
    assert manifest.weights == ("weights.bin", digest(folder / "weights.bin"))
    assert (manifest.sweeps, manifest.sampling) == (None, {"recycle": "response"})
    manifest.check_files(folder)
    manifest.write(folder)
    assert Manifest.read(str(folder)) == manifest
    with pytest.raises(ValueError, match="not JSON compliant"):
        dataclasses.replace(manifest, schedule={"steps": float("nan")}).write(folder)
    assert Manifest.read(folder) == manifest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "manifest .* is missing or malformed: "),
        (b"\xff\xfe", "manifest .* is missing or malformed: "),
        (b"{}", "must have format 1: export the model again"),
        (b'{"format": 2}', "must have format 1: export the model again"),
    ],
)
def test_files_of_another_form(folder: Path, content: bytes, message: str) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Manifest.read(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graphs": {}}, "must be a complete manifest, got .*graphs must have a teacher"),
        ({"graphs": {"teacher": {}}}, "must be a complete manifest, got KeyError"),
        ({"weights": "weights.bin"}, "must be a complete manifest, got ValueError"),
        ({"future": 1}, "must be a complete manifest, got TypeError.*future"),
        ({"teacher": {"depth": 1}}, "must be a complete manifest, got TypeError"),
        ({"window": ...}, "must be a complete manifest, got TypeError.*window"),
    ],
)
def test_a_manifest_with_other_content(folder: Path, changes: Any, message: str) -> None:
    rewrite(folder, **changes)
    with pytest.raises(ValueError, match=message):
        Manifest.read(folder)


def test_files_stay_in_the_folder(folder: Path) -> None:
    record = json.loads((folder / MANIFEST).read_text())
    weights, graphs = record["weights"], record["graphs"]
    for name in ("../weights.bin", "/etc/passwd", "a/b", "..", ".", "", ".hid", "a\\b", "a\n", 3):
        spoiled = {"teacher": {**graphs["teacher"], "file": name}}
        for changes in ({"weights": [name, weights[1]]}, {"weights": weights, "graphs": spoiled}):
            rewrite(folder, **{**record, **changes})
            with pytest.raises(ValueError, match="must name plain files, got"):
                Manifest.read(folder)


@pytest.mark.parametrize("name", ["teacher.onnx", "weights.bin"])
def test_files_that_are_not_what_was_exported(folder: Path, name: str) -> None:
    manifest, path = Manifest.read(folder), folder / name
    content = path.read_bytes()
    for other in (content[:-1], content[:-1] + b"?", b""):
        path.write_bytes(other)
        with pytest.raises(
            ValueError, match=rf"{name} must be .* exported \(sha256 [0-9a-f]{{12}}"
        ):
            manifest.check_files(folder)
    for spoil in (path.unlink, path.mkdir):
        spoil()
        with pytest.raises(ValueError, match=f"engine folder must hold {name}, got none in"):
            manifest.check_files(folder)
