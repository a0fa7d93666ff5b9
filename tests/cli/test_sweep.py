"""``free sweep`` as users run it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.commands import refuse, succeed
from tests.evaluation.networks import noise


def test_a_grid_with_quality_is_written_drawn_and_continued(digits: Path, tmp_path: Path) -> None:
    path, plot, reference = tmp_path / "x.json", tmp_path / "x.png", tmp_path / "reference.npz"
    np.savez(reference, arr_0=noise(140, 28, 28, 1))
    command = ["sweep", "--model", digits, "--steps", 5, "--per-label", 13, "--batch-size", 130,
               "--reference", reference, "--json", path]  # fmt: skip
    text = succeed(*command, "--window", "1,2", "--relax", "none,temper:9:0.5", "--plot", plot)
    assert "130 images a row, guidance 1.5" in text
    assert f"quality beside {reference}, digit-classifier features: no FID" in text
    record = json.loads(path.read_text())
    assert record["shared"]["model"] == str(digits)
    assert record["shared"]["reference"] == str(reference)
    assert record["shared"]["labels"][:14] == [0] * 13 + [1]
    plain, exact, relaxed = record["rows"]
    assert plain["setting"]["window"] == 1
    assert exact["setting"]["relax"] == "none"
    assert exact["tv_bound"]["value"] == 0 < relaxed["tv_bound"]["value"] <= 0.5
    assert exact["quality"]["frechet"]["low"] > 0
    assert abs(exact["against_plain"]["accuracy"]["value"]) < 0.1
    assert relaxed["fewer_rounds"] >= 1
    with Image.open(plot) as picture:
        assert picture.width > 800

    refuse("--json must be a new file, or come with --resume", *command, "--window", 1)
    succeed(*command, "--resume", "--window", "2", "--recycle", "off")
    again = json.loads(path.read_text())["rows"]
    assert again[:3] == record["rows"]
    assert [row["setting"]["recycle"] for row in again] == [False, "response", "response", False]
    refuse("with seed 0, not 1", *command, "--resume", "--seed", 1)


def test_laws_without_quality(digits: Path) -> None:
    """No quality is the default for models that are not embedded."""
    text = succeed("sweep", "--model", digits, "--steps", "4,5", "--sde", "--stochasticity",
                   "0.5,2", "--window", 3, "--per-label", 1, "--labels", "3,4")  # fmt: skip
    assert "2 images a row" in text
    assert text.count("5 steps, stochasticity") == 2
    assert "Frechet" not in text


def test_laws_by_name(digits: Path) -> None:
    pytest.importorskip("diffusers")
    text = succeed("sweep", "--model", digits, "--steps", 5, "--law", "ddpm,euler-ancestral,ddim",
                   "--window", 3, "--per-label", 1, "--labels", "3,4")  # fmt: skip
    _, *rows = text.split("tv_estimate ")
    assert rows[0].split("5.0")[0].strip() == "ddpm"
    assert " euler-ancestral 5.0 " in rows[0]
    assert " ddim 5.0 " in rows[0]
