"""Which images a folder has, and folders that are not what they should be."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from free.training.dataset.listing import list_images
from tests.training.dataset.folders import class_folders, labelled


def test_classes_are_folders_in_order(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "a", classes=3, each=4)
    (folder / "c1" / "notes.txt").write_text("not an image")
    (folder / "c1" / ".3.png").write_bytes(b"half a download")
    (folder / "c2" / "3.WEBP").write_bytes((folder / "c2" / "3.webp").read_bytes())
    (folder / ".cache").mkdir()
    (folder / "README").write_text("ours")
    listing = list_images(folder, 3)
    assert listing.classes == ["c0", "c1", "c2"]
    assert listing.files[:4] == ["c0/0.jpeg", "c0/1.jpg", "c0/2.png", "c0/3.webp"]
    assert listing.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 5
    part = listing.take(torch.tensor([2, 12]))
    assert (part.files, part.labels.tolist()) == (["c0/2.png", "c2/3.webp"], [0, 2])


def test_the_digest_is_of_names_and_labels(tmp_path: Path) -> None:
    listing = list_images(labelled(tmp_path / "a", {"x.png": 1, "y.png": 0}), 2)
    moved = list_images((tmp_path / "a").rename(tmp_path / "b"), 2)
    assert moved.digest() == listing.digest()
    for labels in ({"x.png": 0, "y.png": 1}, {"x.png": 1, "z.png": 0}, {"x.png": 1}):
        other = list_images(labelled(tmp_path / str(labels), labels), 2)
        assert other.digest() != listing.digest()


def test_labels_come_from_a_file(tmp_path: Path) -> None:
    labels = {"x.png": 7, "sub/y,z.png": 0, "ü.png": 7}
    (tmp_path / "sub").mkdir()
    labelled(tmp_path, labels)
    from_json = list_images(tmp_path, 8)
    assert (from_json.files, from_json.labels.tolist()) == (list(labels), [7, 0, 7])
    assert from_json.classes is None
    (tmp_path / "labels.json").unlink()
    text = '\ufefffile,label\r\nx.png,7\r\n"sub/y,z.png",0\r\nü.png,7\r\n'
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    from_csv = list_images(tmp_path, 8)
    assert (from_csv.files, from_csv.labels.tolist()) == (list(labels), [7, 0, 7])


def _csv(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "labels.csv").write_text(text)


def _json(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "labels.json").write_text(text)


def _an_empty_class(folder: Path) -> None:
    class_folders(folder)
    (folder / "c7").mkdir()


def _loose(folder: Path) -> None:
    labelled(folder, {"x.png": 0})
    (folder / "labels.json").unlink()


def _both(folder: Path) -> None:
    labelled(folder, {"x.png": 0})
    _csv("file,label\nx.png,0\n")(folder)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "one folder a class, or .* got .* with 0 images and none of these"),
        (_loose, "one folder a class, or .* got .* with 1 images and none of these"),
        (_an_empty_class, r"images \(.jpeg, .*\) in the folder of each class, got .*c7 without"),
        (
            lambda folder: class_folders(folder, classes=1),
            r"one folder for each of the model's 3 classes, got 1 in .* \(c0\); labels.csv or",
        ),
        (
            lambda folder: class_folders(folder, classes=5),
            r"the model's 3 classes, got 5 in .* \(c0, c1, c2, ...\)",
        ),
        (_both, "labels.csv or labels.json, got .* with both"),
        (_csv("file,label\n"), "data must have images, got none in .*labels.csv"),
        (_json("{}"), "data must have images, got none in .*labels.json"),
        (_csv(""), "must begin with file,label, got ''"),
        (_csv("a.png,1\n"), "must begin with file,label, got 'a.png,1'"),
        (_csv("file,label\na.png,cat\n"), r"an integer in each row, got .*'cat'\] in row 2"),
        (_csv("file,label\na.png,1\n\n"), r"an integer in each row, got \[\] in row 3"),
        (_csv("file,label\na,0\na,1\n"), "must name each file once, got 'a' again"),
        (_json('{"a": 0, "a": 1}'), "must name each file once, got 'a' again"),
        (_csv("file,label\na,3\n"), r"labels must be in 0..2, the model's classes, got 3 for 'a'"),
        (_csv("file,label\na,-1\n"), r"labels must be in 0..2, the model's classes, got -1"),
        (_json('{"a": 1.0}'), r"must be an object .* of integer labels"),
        (_json('{"a": true}'), r"must be an object .* of integer labels"),
        (_json('{"a": {}}'), r"must be an object .* of integer labels"),
        (_json('["a"]'), r"must be an object .* of integer labels"),
        (_json('{"a"'), "must have labels that can be read, got .*labels.json"),
        (_json("[" * 100_000), "must have labels that can be read, got .*labels.json"),
        (
            lambda folder: (folder / "labels.csv").write_bytes(b"file,label\n\xff,1\n"),
            "must have labels that can be read, got .*labels.csv",
        ),
    ],
)
def test_other_folders_are_refused(tmp_path, make, message) -> None:
    make(tmp_path)
    with pytest.raises(ValueError, match=message):
        list_images(tmp_path, 3)


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("none", "file"):
        got = re.escape(repr(str(tmp_path / name)))
        with pytest.raises(ValueError, match=f"mnist or a folder that is there, got {got}"):
            list_images(tmp_path / name, 3)
