"""Two sets of images of one law pass, a spoilt one is found."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from free.images.emoji import load_emoji
from free.images.picture import to_uint8

two_archives = importlib.import_module("benchmarks.two_archives")


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The glyphs, dealt at random to two archives."""
    images, _ = load_emoji()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    folder = tmp_path_factory.mktemp("sets")
    paths = (folder / "one.npz", folder / "two.npz")
    for path, part in zip(paths, order.split(len(images) // 2 + 1), strict=True):
        np.savez(path, to_uint8(images[part]).numpy())
    return paths


@pytest.mark.parametrize(("spoilt", "verdict"), [([], "cannot be told apart"),
                                                 (["--planted", "2"], "differ")])  # fmt: skip
def test_a_spoilt_set_is_found(halves, spoilt, verdict, monkeypatch, tmp_path) -> None:
    json_path = tmp_path / "x.json"
    arguments = ["x", *map(str, halves), "--features", "emoji", "--json", str(json_path), *spoilt]
    monkeypatch.setattr(sys, "argv", arguments)
    two_archives.main()
    assert json.loads(json_path.read_text())["verdict"] == verdict
