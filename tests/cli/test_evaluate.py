"""``free evaluate`` as users run it."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from free.evaluation.image_stream import open_images
from tests.cli.commands import figures, refuse, succeed
from tests.evaluation.networks import noise


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """Real digits."""
    return np.concatenate(list(open_images("mnist", "reference").chunks(5000)))[::25]


@pytest.fixture(scope="module")
def samples(images: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of them, with their labels."""
    path = tmp_path_factory.mktemp("samples") / "x.npz"
    np.savez(path, arr_0=images, arr_1=np.arange(200) // 20)  # 500 of each class, in order
    return path


def test_digits_beside_the_real_ones(samples: Path) -> None:
    text = succeed("evaluate", samples, "mnist", "--resamples", 2)
    assert f"200 images of {samples} beside 5000 of mnist; digit-classifier features" in text
    assert "Frechet distance, digit-classifier features" in text
    assert "named as asked for, digit-classifier" in text
    assert "None of these is FID" in text


def test_json_for_programs(samples: Path, images: NDArray[np.uint8], tmp_path: Path) -> None:
    for index, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{index:06d}.png")
    arguments = ["evaluate", samples, tmp_path]
    record = figures(*arguments, "--resamples", 3)
    assert record["paths"] == {"samples": str(samples), "reference": str(tmp_path)}
    assert record["figures"]["frechet"]["value"] < 1e-6  # the same images
    assert record["figures"]["precision"]["value"] == 1
    assert record["figures"]["accuracy"]["value"] > 0.97
    assert record["left_out"] == {}
    assert "accuracy" not in succeed(*arguments, "--no-accuracy", "--resamples", 0)
    (tmp_path / "notes.txt").write_text("no image")
    text = succeed("evaluate", samples, tmp_path, "--resamples", 0)
    assert "reference: 1 file is left out, such as 'notes.txt': 1 of .txt" in text


def test_labels_that_name_no_digit_are_left_alone(tmp_path: Path) -> None:
    """Nobody asked for them."""
    path = tmp_path / "x.npz"
    np.savez(path, arr_0=noise(130, 28, 28, 1), arr_1=np.full(130, -1))
    arguments = ["evaluate", path, path, "--resamples", 0]
    assert "named as asked for" not in succeed(*arguments)
    refuse("labels must be in 0..9, got -1..-1", *arguments, "--accuracy")
