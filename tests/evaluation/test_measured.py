"""Measured sets in files."""

import json
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from free.evaluation import Measured, measure, quality
from free.evaluation.measured import read_measured, write_measured
from free.evaluation.statistics import gaussian
from free.version import __version__
from tests.evaluation.networks import Pixels, noise

A, B = noise(40, 5, 5, 1), noise(45, 5, 5, 1)


def _same(one: Measured, two: Measured) -> None:
    for field in fields(Measured):
        ours, theirs = getattr(one, field.name), getattr(two, field.name)
        if isinstance(ours, torch.Tensor | np.ndarray):
            assert (ours == theirs).all()
            assert ours.dtype == theirs.dtype
        elif field.name.startswith("published") and ours is not None:
            assert all(torch.equal(x, y) for x, y in zip(ours, theirs, strict=True))
        else:
            assert ours == theirs


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    features = torch.randn(30, 4)
    whole = Measured(
        "x", "pixel", True, None, (5, 5, 1), features, features[:, :2], features.softmax(1),
        np.arange(30), gaussian(features), gaussian(features[:, :2]),
    )  # fmt: skip
    for measured in (whole, measure(A, Pixels())):
        write_measured(measured, tmp_path / "x.safetensors")
        _same(read_measured(tmp_path / "x.safetensors", "reference"), measured)


def test_a_kept_reference_gives_the_same_figures(tmp_path: Path) -> None:
    kept = tmp_path / "x.safetensors"
    found = quality(A, B, Pixels(), keep_reference=kept)
    assert quality(A, kept, Pixels()) == found
    assert quality(A, str(kept), Pixels(bad=50)) == found  # not looked at again
    with pytest.raises(ValueError, match="reference must be measured by other, got .* by pixel"):
        quality(A, kept, Pixels(name="other"))


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"

    def refuse(message: str = "reference must be a file of --keep-reference, got .*x") -> None:
        with pytest.raises(ValueError, match=message):
            quality(A, path, Pixels())

    refuse()
    os.mkfifo(path)
    refuse()
    path.unlink()
    path.write_bytes(b"nothing")
    refuse()
    about = {"free": __version__, "name": "x", "network": "pixel", "is_inception": False,
             "classes": "3", "shape": [5, 5, 1]}  # fmt: skip
    for note in (
        {},
        {"measured": "3"},
        {"measured": json.dumps(about)},
        {"measured": "[" * 100_000},
        {"measured": '{"free": 1, "shape": []}'},
    ):
        save_file({"pooled": torch.zeros(2, 2)}, path, note)
        refuse()
    write_measured(measure(A, Pixels()), path)
    monkeypatch.setattr("free.evaluation.measured.__version__", "9.9")
    refuse("by this version of free, 9.9, got .*: measure it again")
