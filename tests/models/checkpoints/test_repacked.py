"""Files that were changed after they were saved, and folders with two formats."""

import zipfile
from pathlib import Path

import pytest

from free import DiT, DiTConfig
from tests.networks import randomized

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3)


def test_a_compressed_archive_is_not_mapped(tmp_path: Path) -> None:
    randomized(DiT(CONFIG)).save_pretrained(tmp_path / "a.pt", "original")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as stored,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in stored.infolist():
            packed.writestr(member.filename, stored.read(member))
    DiT.from_pretrained(tmp_path / "a.pt", heads=2)
    with pytest.raises(ValueError, match=r"source must be stored as torch.save .* compressed"):
        DiT.from_pretrained(tmp_path / "b.pt", heads=2)


def test_two_formats_do_not_share_a_folder(tmp_path: Path) -> None:
    network = randomized(DiT(CONFIG))
    network.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="folder must have no config.json for format 'original'"):
        network.save_pretrained(tmp_path, "original")


def test_heads_must_be_positive(tmp_path: Path) -> None:
    randomized(DiT(CONFIG)).save_pretrained(tmp_path / "a.pt", "original")
    with pytest.raises(ValueError, match="heads must be positive, got 0"):
        DiT.from_pretrained(tmp_path / "a.pt", heads=0)
