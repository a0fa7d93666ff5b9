"""Rounds against dimension: the denoiser of a folder, what is measured, and its picture."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from free.files import read_json


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six images of two classes, two of them equal; the first is red at the top."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (6, 16, 16, 3), np.uint8)
    pixels[0], pixels[5] = 0, pixels[4]
    pixels[0, :8, :, 0] = 255
    for index, picture in enumerate(pixels):
        folder = tmp_path / "images" / f"class-{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{index}.png")
    return tmp_path / "images"


@pytest.fixture
def dimension(load: Any) -> ModuleType:
    return load("dimension")


def test_the_images_of_a_folder(dimension: ModuleType, images: Path) -> None:
    rows = dimension.folder(images, 16)
    assert rows.shape == (5, 3 * 16 * 16)  # equal ones once
    red = torch.full((3, 16, 16), -1.0)
    red[0, :8] = 1.0
    assert any(torch.equal(row.view(3, 16, 16), red) for row in rows)
    assert dimension.folder(images, 8).shape == (5, 192)


def test_rounding_is_measured(dimension: ModuleType, images: Path) -> None:
    network = dimension.open_network("192", images, 1.0)
    assert network.dimensions == 192
    assert dimension.rounding(network.teacher) < 1e-4
    network.teacher.bandwidth *= 1.01  # another law than the images' exact one
    assert dimension.rounding(network.teacher) > 1e-4


def test_a_run_that_goes_on(
    dimension: ModuleType,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    path, plot = tmp_path / "x.json", tmp_path / "x.png"
    measured: list[Any] = []
    measure = dimension.measure
    monkeypatch.setattr(dimension, "measure", lambda *a: measured.append(a) or measure(*a))

    def run(*arguments: object) -> list[dict[str, Any]]:
        words = map(str, ["--steps", 20, "--windows", 4, "--draws", 3, *arguments])
        monkeypatch.setattr(sys, "argv", ["dimension.py", *words])
        dimension.main()
        return read_json(path, "--json")["rows"]

    exact = ["--networks", "192", "--images", images, "--json", path]
    rows = run(*exact, "--ways", "eps")
    rows = run(*exact, "--resume")
    by_way = {row["way"]: row for row in rows}
    assert [row["way"] for row in rows] == ["eps", "image", "recycled"]
    assert len(measured) == 3
    assert by_way["eps"]["steps_a_round"] < by_way["image"]["steps_a_round"] <= 4
    assert by_way["recycled"]["dimensions"] == 192
    record = read_json(path, "--json")
    assert record["runs"][0]["192"]["centres"] == 5
    assert str(tmp_path) not in str([run["command"] for run in record["runs"]])
    capsys.readouterr()
    run("--draw", path, "--plot", plot)
    assert len(measured) == 3
    assert (
        "| 192 | exact denoiser | last noise kept (De Bortoli et al.) | 1."
        in capsys.readouterr().out
    )
    with Image.open(plot) as picture:
        assert picture.size[0] > 500


def test_what_cannot_be_measured(dimension: ModuleType, images: Path) -> None:
    with pytest.raises(SystemExit, match="--networks must be models or 3 size.2, got 193"):
        dimension.open_network("193", images, 1.0)
    with pytest.raises(SystemExit, match="--images must be given, the folder of images for 192"):
        dimension.open_network("192", None, 1.0)
