"""Image files: which a folder has, and which are opened."""

import os
from pathlib import Path

import pytest
from PIL import Image

from free.images import image_files
from free.images.image_files import FORMATS, describe_left_out, find_images, open_image


def _write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_hidden_is_left_alone_and_links_are_followed(tmp_path: Path) -> None:
    """What tools leave in a folder is not seen; a class folder may lie on another disk."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "images"
    _write(elsewhere, "0.png", "sub/1.JPEG", ".ipynb_checkpoints/0-checkpoint.png")
    _write(folder, "b/0.png", "b/.thumbnails/0.png", ".cache/x.png", ".0.png", "a.tif", "notes.txt")
    (folder / "c").symlink_to(elsewhere)
    (folder / "d.png").symlink_to(elsewhere / "0.png")
    (folder / "d2").symlink_to(elsewhere)  # a folder may be linked twice
    found = find_images(folder, FORMATS, "samples")
    assert found.files == ["a.tif", "b/0.png", "c/0.png", "c/sub/1.JPEG", "d.png",
                           "d2/0.png", "d2/sub/1.JPEG"]  # fmt: skip
    assert found.left_out == ["notes.txt"]
    assert "a.tif" in find_images(folder, ("PNG",), "samples").left_out


def test_a_link_that_leads_back(tmp_path: Path) -> None:
    _write(tmp_path, "a/0.png")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=r"samples must be a folder without circles, got .*a/back"):
        find_images(tmp_path, FORMATS, "samples")


def test_what_is_left_out_is_said() -> None:
    assert describe_left_out([]) == ""
    assert describe_left_out(["a/b"]) == "1 file is left out, such as 'a/b': 1 of no suffix"
    files = ["a/sub/1.PNG", "x.bmp", "y.png", *(f"z.{i}" for i in range(9))]
    text = "12 files are left out, such as 'a/sub/1.PNG': 2 of .png, 1 of .bmp, 1 of .0, "
    assert describe_left_out(files).startswith(text)
    assert describe_left_out(files).endswith(", others")


def test_formats_are_told_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript would be handed to a program, whatever the file is called."""

    def run(*arguments: object, **options: object) -> None:
        raise AssertionError("a program was run")

    picture, path = Image.new("RGB", (30, 20)), tmp_path / "a.png"
    picture.save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(path)
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run)
    with pytest.raises(AssertionError, match="a program was run"), Image.open(path) as image:
        image.load()
    for formats, names in ((FORMATS, "BMP, JPEG, PNG, TIFF, WEBP"), (("PNG",), "PNG")):
        with (
            pytest.raises(ValueError, match=f"^by its content it is none of {names}$"),
            open_image(path, formats) as image,
        ):
            image.load()
    picture.save(path, "TIFF")
    with open_image(path, FORMATS) as image:
        assert image.size == (30, 20)


def test_bombs_and_pipes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (30, 20)).save(path)
    monkeypatch.setattr(image_files, "MOST_PIXELS", 599)
    for pillows, message in ((600, "30 x 20, more than"), (200, "it has more than")):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows)
        with (
            pytest.raises(ValueError, match=f"^{message} 599 pixels$"),
            open_image(path, ("PNG",)),
        ):
            pass
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"), open_image(path, ("PNG",)):
        pass
