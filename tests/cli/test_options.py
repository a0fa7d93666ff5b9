"""How the texts of shared options are read."""

from pathlib import Path

import pytest

from free import Relaxation
from free.cli.options import check_outputs, parse_labels, parse_relaxation
from free.images.labels import imagenet_names, label_table


def test_labels() -> None:
    assert parse_labels("0-2, 7") == [0, 1, 2, 7]
    assert parse_labels("1-2", per_label=2) == [1, 1, 2, 2]
    with pytest.raises(
        ValueError, match="at most 1000000 images, got 2 labels, each 1000000 times"
    ):
        parse_labels("1-2", per_label=10**6)
    for text in ("", "2-1", "a", "1;2", "-1"):
        with pytest.raises(ValueError, match="labels must look like 0-9 or 1,4-6, got"):
            parse_labels(text)


def test_labels_by_name() -> None:
    names = label_table(imagenet_names())
    assert parse_labels("tench, 5-6,golden retriever", names) == [0, 5, 6, 207]
    with pytest.raises(ValueError, match=r"labels must be ids or names .* did you mean 'tench'"):
        parse_labels("tenhc", names)
    with pytest.raises(ValueError, match="labels must look like"):
        parse_labels("1,,2", names)


def test_relaxations() -> None:
    assert parse_relaxation(None, "discrepancy") is None
    assert parse_relaxation("temper:1", "discrepancy") == Relaxation("temper", 1.0)
    relaxation = parse_relaxation("allow:.3:5e-2", "learned_variance")
    assert relaxation == Relaxation("allow", 0.3, 0.05, "learned_variance")


def test_bad_relaxations() -> None:
    for text, message in (
        ("temper", "--relax must look like temper:1 or allow:0.3:0.05, got 'temper'"),
        ("temper:x", "--relax must look like"),
        ("temper:1:2:3", "--relax must look like"),
        ("temper:-1", "strength must be finite and >= 0, got -1.0"),
        ("temper:1:2", "tv_budget must be in"),
        ("soft:1", "rule must be one of 'temper', 'allow', got 'soft'"),
        (None, "--uncertainty must come with --relax, got 'learned_variance'"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_relaxation(text, "discrepancy" if text else "learned_variance")


def test_outputs_are_checked_before_work_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_outputs(out=tmp_path / "new" / "x.png", json=None)
    with pytest.raises(ValueError, match="--json must be a file that can be written, got .*file/x"):
        check_outputs(out=tmp_path / "x.png", json=tmp_path / "file" / "x.json")
    with pytest.raises(ValueError, match="--json must be another file than --trace, got .*x.json"):
        check_outputs(trace=tmp_path / "x.json", json=tmp_path / "new" / ".." / "x.json")
