"""Which images a folder has, and folders that are not what they should be."""

import re
from pathlib import Path

import pytest
import torch

from free.training.dataset.listing import count_classes, list_images
from tests.training.dataset.folders import class_folders, labelled


def test_classes_are_folders_in_order(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "a", classes=3, each=4)
    (folder / "c1" / "notes.txt").write_text("not an image")
    (folder / "c1" / ".3.png").write_bytes(b"half a download")
    (folder / "c2" / "3.WEBP").write_bytes((folder / "c2" / "3.webp").read_bytes())
    (folder / ".cache").mkdir()
    (folder / "README").write_text("ours")
    for name in ("loose.png", "c1/3.bmp", "c1/sub/3.png", "c1/.thumbnails/3.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((folder / "c1" / "2.png").read_bytes())
    listing = list_images(folder, 3)
    assert listing.classes == ["c0", "c1", "c2"]
    assert listing.files[:4] == ["c0/0.jpeg", "c0/1.jpg", "c0/2.png", "c0/3.webp"]
    assert listing.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 5
    left_out = ["README", "c1/3.bmp", "c1/notes.txt", "c1/sub/3.png", "loose.png"]
    assert listing.left_out == left_out  # but for what is hidden
    part = listing.take(torch.tensor([2, 12]))
    assert (part.files, part.labels.tolist()) == (["c0/2.png", "c2/3.webp"], [0, 2])


def test_classes_are_counted(tmp_path: Path) -> None:
    assert count_classes(class_folders(tmp_path / "a", classes=3, each=1)) == 3
    assert count_classes(labelled(tmp_path / "b", {"a.png": 7, "b.png": 0})) == 8
    with pytest.raises(ValueError, match="mnist, emoji or a folder that is there"):
        count_classes(tmp_path / "none")


def test_folders_named_by_numbers(tmp_path: Path) -> None:
    """Sorted as text, 10 would be class 2; with zeros before them the orders agree."""
    folder = class_folders(tmp_path / "a", classes=12, each=1)
    for number in range(12):
        (folder / f"c{number}").rename(folder / f"{number}")
    message = r"got .*a where class 2 would be 10, not 2: pad .* zeros .* in labels.csv or labels"
    with pytest.raises(ValueError, match=message):
        list_images(folder, 12)
    for number in range(10):
        (folder / f"{number}").rename(folder / f"0{number}")
    listing = list_images(folder, 12)
    assert listing.classes == [f"{number:02d}" for number in range(12)]
    assert listing.labels.tolist() == list(range(12))
    folder = class_folders(tmp_path / "b", classes=3, each=1)
    for number in range(3):
        (folder / f"c{number}").rename(folder / f"-{number + 1}")
    with pytest.raises(ValueError, match="where class 0 would be -1, not -3: name the classes in"):
        list_images(folder, 3)


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
    text = '\ufefffile,label\r\nx.png,7\r\n"sub/y,z.png",0\r\nü.png,7\r\n\r\n'
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    from_csv = list_images(tmp_path, 8)
    assert (from_csv.files, from_csv.labels.tolist()) == (list(labels), [7, 0, 7])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "one folder a class, or .* got .* with 0 images and none of these"),
        ({"x.png": ""}, "one folder a class, or .* got .* with 1 images and none of these"),
        ({"a/x.png": "", "b/x.png": "", "c7/x": ""},
         r"images \(.jpeg, .*\) in the folder of each class, got .*c7 without"),
        ({"c0/x.png": ""}, r"for each of the model's 3 classes, got 1 in .* \(c0\); labels.csv or"),
        ({f"c{i}/x.png": "" for i in range(5)}, r"'s 3 classes, got 5 in .* \(c0, c1, c2, ...\)"),
        ({"labels.csv": "", "labels.json": ""}, "labels.csv or labels.json, got .* with both"),
        ({"labels.csv": "file,label\n"}, "data must have images, got none in .*labels.csv"),
        ({"labels.json": "{}"}, "data must have images, got none in .*labels.json"),
        ({"labels.csv": ""}, "must begin with file,label, got ''"),
        ({"labels.csv": "a.png,1\n"}, "must begin with file,label, got 'a.png,1'"),
        ({"labels.csv": "file,label\na.png,cat\n"}, r"integer in each row, got .*'cat'\] in row 2"),
        ({"labels.csv": "file,label\n\na.png\n"}, r"integer in each row, got .*'a.png'\] in row 3"),
        ({"labels.csv": "file,label\na,0\na,1\n"}, "must name each file once, got 'a' again"),
        ({"labels.json": '{"a": 0, "a": 1}'}, "must name each file once, got 'a' again"),
        ({"labels.csv": "file,label\na,3\n"}, r"in 0..2, the model's classes, got 3 for 'a'"),
        ({"labels.csv": "file,label\na,-1\n"}, r"labels must be in 0..2, .* classes, got -1"),
        ({"labels.json": '{"a": 1.0}'}, r"must be an object .* of integer labels"),
        ({"labels.json": '{"a": true}'}, r"must be an object .* of integer labels"),
        ({"labels.json": '{"a": {}}'}, r"must be an object .* of integer labels"),
        ({"labels.json": '["a"]'}, r"must be an object .* of integer labels"),
        ({"labels.json": '{"a"'}, "must have labels that can be read, got .*labels.json"),
        ({"labels.json": "[" * 100_000}, "must have labels that can be read, got .*labels.json"),
        ({"labels.csv": b"file,label\n\xff,1\n"}, "labels that can be read, got .*labels.csv"),
        ({"labels.csv": "file,label\n../x.png,1\n"}, "name files in its folder, got '../x.png'"),
        ({"labels.csv": "file,label\n/x.png,1\n"}, "must name files in its folder, got '/x.png'"),
        ({"labels.json": '{"a/../../b": 1}'}, "must name files in its folder, got 'a/../../b'"),
        ({"labels.json": '{"": 1}'}, "labels.json must name files in its folder, got ''"),
    ],
)  # fmt: skip
def test_other_folders_are_refused(tmp_path, files, message) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        list_images(tmp_path, 3)


def test_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("none", "file"):
        got = re.escape(repr(str(tmp_path / name)))
        with pytest.raises(ValueError, match=f"mnist, emoji or a folder that is there, got {got}"):
            list_images(tmp_path / name, 3)
