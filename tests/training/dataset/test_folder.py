"""Images of folders for a teacher: pixels and latents, the same whoever asks for which rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from free.images.autoencoder import LatentCoder
from free.training.dataset.open import open_images
from free.training.dataset.pixels import read_image
from free.training.dataset.sets import TrainingImages, embedded_set
from free.training.randomness import RowRandom
from tests.pipelines import tiny_vae
from tests.training.dataset.folders import class_folders, picture, teacher

SEED = 11


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "images")


def _steps(data: TrainingImages, steps: range, parts: list[range], of: int) -> torch.Tensor:
    """All of the batches, labels beside the pixels."""
    rows = []
    for step in steps:
        for part in parts:
            x0, labels = data.batch(SEED, step, part, of)
            assert x0.dtype is torch.float32
            assert x0.shape == (len(part), *data.sample_shape)
            assert labels.dtype is torch.int64
            rows.append(torch.cat([x0.flatten(1), labels[:, None].float()], 1))
    return torch.cat(rows)


def test_pixels_and_labels(folder: Path) -> None:
    data = open_images(folder, teacher(), subset=1.0)
    assert (len(data), data.num_classes, data.sample_shape) == (12, 3, (3, 16, 16))
    x0, labels = data.batch(SEED, 0, range(12), 12)
    found = sorted(zip(labels.tolist(), x0, strict=True), key=lambda pair: pair[0])
    expected = [
        (label, torch.tensor(read_image(path, 16, 3, False)).permute(2, 0, 1) / 127.5 - 1)
        for label in range(3)
        for path in sorted((folder / f"c{label}").iterdir())
    ]
    for label, image in expected:
        assert any(label == other and torch.equal(image, x) for other, x in found)
    assert x0.min() >= -1
    assert x0.max() <= 1
    grey = open_images(folder, teacher(channels=1), subset=1.0)
    assert grey.batch(SEED, 0, range(2), 2)[0].shape == (2, 1, 16, 16)


def _latents(folder: Path, **options: Any) -> TrainingImages:
    return open_images(folder, teacher(2, 4), LatentCoder(tiny_vae()), **options)


@pytest.mark.parametrize("latents", [False, True])
def test_ranks_micro_batches_and_resuming_change_no_bit(folder: Path, latents: bool) -> None:
    (folder / "c1" / "0.jpeg").write_bytes(b"damaged")

    def data() -> TrainingImages:
        options: Any = {"subset": 0.9, "flip": True}
        return _latents(folder, **options) if latents else open_images(folder, teacher(), **options)

    whole = _steps(data(), range(3), [range(6)], 6)
    micro = _steps(data(), range(3), [range(1), range(1, 4), range(4, 6)], 6)
    assert torch.equal(micro, whole)
    assert torch.equal(_steps(data(), range(2, 3), [range(6)], 6), whole[12:])
    ranks = [_steps(data(), range(3), [rows], 6).view(3, 3, -1) for rows in (range(3), range(3, 6))]
    assert torch.equal(torch.cat(ranks, 1).flatten(0, 1), whole)
    assert not torch.equal(data().batch(SEED + 1, 0, range(6), 6)[0].flatten(1), whole[:6, :-1])


def test_half_are_mirrored(folder: Path) -> None:
    plain, flipped = (
        _steps(open_images(folder, teacher(), subset=1.0, flip=flip), range(20), [range(12)], 12)
        for flip in (False, True)
    )
    assert torch.equal(plain[:, -1], flipped[:, -1])
    a, b = (x[:, :-1].view(-1, 3, 16, 16) for x in (plain, flipped))
    same = (a == b).flatten(1).all(1)
    assert torch.equal(b[~same], a[~same].flip(-1))
    assert 85 <= int(same.sum()) <= 155  # 240 coins, 4.5 standard deviations


def test_latents_are_drawn_from_the_posterior(folder: Path) -> None:
    vae = tiny_vae()
    drawn, mean = _latents(folder, subset=1.0), _latents(folder, subset=1.0, posterior="mean")
    images = open_images(folder, teacher(), subset=1.0)
    assert drawn.sample_shape == (4, 2, 2)
    scores = []
    for step in range(6):
        rows = range(12)
        posterior = vae.encode(images.batch(SEED, step, rows, 12)[0]).latent_dist
        expected = posterior.mean * 0.18215
        torch.testing.assert_close(mean.batch(SEED, step, rows, 12)[0], expected)
        draw = drawn.batch(SEED, step, rows, 12)[0]
        scores.append((draw - expected) / (0.18215 * posterior.std))
    z = torch.stack(scores).flatten()
    assert abs(z.mean()) < 4.5 / len(z) ** 0.5
    assert abs(z.var() - 1) < 4.5 * (2 / len(z)) ** 0.5
    assert len(z.unique()) > 0.99 * len(z)  # every image, step and element has its own noise


def test_the_record_says_what_was_trained_on(folder: Path) -> None:
    data = open_images(folder, teacher(), subset=0.5, seed=3, flip=True)
    record = json.loads(json.dumps(data.record))
    assert record["classes"] == ["c0", "c1", "c2"]
    assert (record["images"], record["subset"], record["subset_seed"]) == (6, 0.5, 3)
    assert (record["image_size"], record["flip"], record["upscale"]) == (16, True, False)
    assert "vae" not in record
    assert len(open_images(folder, teacher())) == 4  # 30 % of 12
    assert open_images(folder, teacher(), subset=0.5, seed=4).record["files"] != record["files"]
    moved = open_images(folder.rename(folder.parent / "moved"), teacher(), subset=0.5, seed=3)
    assert moved.record == {**record, "flip": False}
    one, two = (_latents(folder.parent / "moved", posterior=p).record for p in ("sample", "mean"))
    assert (one["posterior"], two["posterior"]) == ("sample", "mean")
    assert one["vae"] == two["vae"]
    other = tiny_vae()
    other.encoder.conv_in.weight.data[0, 0, 0, 0] += 1
    changed = open_images(folder.parent / "moved", teacher(2, 4), LatentCoder(other))
    assert changed.record["vae"] != one["vae"]


def test_damaged_files_are_left_out_and_listed(folder: Path) -> None:
    """Truncated, empty, not an image, too small, a bomb, gone: none ends the run."""
    (folder / "c3").mkdir()
    whole = (folder / "c0" / "0.jpeg").read_bytes()
    bad = {
        "truncated.jpeg": whole[:-30],
        "empty.png": b"",
        "page.webp": b"<!doctype html>",
        "header.jpg": whole[:20],
    }
    for name, content in bad.items():
        (folder / "c3" / name).write_bytes(content)
    picture(15, 40).save(folder / "c3" / "small.png")
    Image.fromarray(np.zeros((9000, 9000), np.uint8)).save(folder / "c3" / "vast.png")
    (folder / "c3" / "gone.png").symlink_to(folder / "nowhere")
    (folder / "c3" / "folder.png").mkdir()
    picture(20, 20).save(folder / "c3" / "good.png")
    data = open_images(folder, teacher(classes=4), subset=1.0)
    _, labels = data.batch(SEED, 0, range(21), 21)
    assert [entry["file"] for entry in data.skipped] == [
        f"c3/{name}" for name in sorted([*bad, "small.png", "vast.png", "gone.png", "folder.png"])
    ]
    reasons = {entry["file"]: entry["reason"] for entry in data.skipped}
    assert reasons["c3/small.png"].startswith("15 x 40, smaller than the crop of 16 x 16; upscale")
    assert reasons["c3/vast.png"] == "9000 x 9000, more than 67108864 pixels"
    assert "truncated" in reasons["c3/truncated.jpeg"]
    assert str(folder) not in json.dumps(data.skipped)
    # Those behind good.png are replaced by the first of all, the others by good.png.
    behind = sum(name > "good.png" for name in [*bad, "small.png", "vast.png"])
    assert labels.bincount().tolist() == [4 + behind, 4, 4, 9 - behind]


def test_small_images_are_enlarged_when_asked_to_be(folder: Path) -> None:
    message = "of the 12 that were tried cannot: c0/0.jpeg: 20 x 23, smaller than the crop of 32"
    with pytest.raises(ValueError, match=message):
        open_images(folder, teacher(32), subset=1.0)
    data = open_images(folder, teacher(32), subset=1.0, upscale=True)
    assert data.batch(SEED, 0, range(3), 3)[0].shape == (3, 3, 32, 32)
    assert data.skipped == []


def test_what_does_not_fit_the_teacher_is_refused(folder) -> None:
    for shape, vae, options, message in (
        ((16, 4), None, {}, r"vae must be given for samples of shape \[4, 16, 16\].* got None"),
        ((2, 8), {}, {}, r"the teacher's samples, \[8, 2, 2\], got latents of shape \[4, 2, 2\]"),
        ((2, 4), {}, {"image_size": 32}, r"\[4, 2, 2\], got latents of shape \[4, 4, 4\]"),
        ((2, 4), {}, {"image_size": 20}, r"got latents of 4 channels from images of side 20"),
        ((16, 3), None, {"image_size": 32}, r"\[3, 16, 16\], got images of shape \[3, 32, 32\]"),
        ((16, 3), None, {"posterior": "mode"}, "posterior must be 'sample' or 'mean', got 'mode'"),
    ):
        coder = None if vae is None else LatentCoder(tiny_vae(**vae))
        with pytest.raises(ValueError, match=message):
            open_images(folder, teacher(*shape), coder, **options)


def test_a_vae_is_loaded_from_its_folder(folder, tmp_path) -> None:
    tiny_vae().save_pretrained(tmp_path / "vae")
    loaded = open_images(folder, teacher(2, 4), tmp_path / "vae")
    expected = _latents(folder).batch(SEED, 0, range(4), 4)[0]
    assert torch.equal(loaded.batch(SEED, 0, range(4), 4)[0], expected)


def test_the_digits() -> None:
    digits = embedded_set("mnist")
    assert open_images("mnist", teacher(28, 1, 10)) is digits
    assert (digits.images.min(), digits.images.max()) == (-1.0, 1.0)
    assert digits.labels.bincount().tolist() == [500] * 10
    part = open_images("mnist", teacher(28, 1, 10), subset=0.1, seed=2)
    assert (len(part), part.record["subset"]) == (500, 0.1)
    assert part.batch(0, 0, range(7), 7)[0].shape == (7, 1, 28, 28)
    message = r"shape \[1, 32, 32\] in 10 classes, as the teacher, got \[1, 28, 28\] in 10"
    with pytest.raises(ValueError, match=message):
        open_images("mnist", teacher(32, 1, 10))
    with pytest.raises(ValueError, match="mnist must come without vae, flip and .* got None, True"):
        open_images("mnist", teacher(28, 1, 10), flip=True)


def test_draws_by_place_in_the_micro_batch_are_told_apart(folder, monkeypatch) -> None:
    def by_place(seed: int, step: int, rows: range, *rest: Any) -> RowRandom:
        return RowRandom(seed, step, range(len(rows)), *rest)

    monkeypatch.setattr("free.training.dataset.folder.RowRandom", by_place)
    for make in (lambda: _latents(folder), lambda: open_images(folder, teacher(), flip=True)):
        whole = _steps(make(), range(2), [range(6)], 6)
        assert not torch.equal(_steps(make(), range(2), [range(3), range(3, 6)], 6), whole)


def test_ranks_share_the_cores(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(24)), raising=False)
    for ranks, threads in ((None, 16), ("2", 12), ("64", 1)):
        if ranks is not None:
            monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        data: Any = open_images(folder, teacher())
        assert data.decoder._pool._max_workers == threads
