"""Sets of images beside a reference: in the right order, under honest names, in little memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from free import Schedule, SequentialSampler, load_pretrained
from free.evaluation import Figure, Quality, load_network, measure, named_as_asked, quality
from free.evaluation.bootstrap import QUANTILE, standard_errors
from free.evaluation.image_stream import ImageStream, open_images
from free.evaluation.statistics import frechet_distance, gaussian
from free.images.picture import to_uint8
from tests.evaluation.networks import Pixels, noise

NUM = 200
DIGITS = (28, 28, 1)


@pytest.fixture(scope="module")
def real() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All real digits and their labels, shuffled."""
    digits = open_images("mnist", "reference")
    order = np.random.default_rng(0).permutation(digits.count)
    return np.concatenate(list(digits.chunks(5000)))[order], digits.labels[order]


def _drawn() -> NDArray[np.uint8]:
    teacher, _ = load_pretrained("mnist")
    sampler = SequentialSampler(teacher, Schedule.ddpm(12), 1.5)
    batches = [
        to_uint8(sampler.sample([i % 10 for i in range(100)], start).samples).numpy()
        for start in range(0, NUM, 100)
    ]
    return np.concatenate(batches)


def _value(found: Quality, name: str = "frechet") -> float:
    return found.figures[name].value


def _ends(figure: Figure) -> tuple[float, float]:
    assert None not in (figure.low, figure.high)
    return figure.low, figure.high


def test_real_digits_are_nearer_to_real_ones_than_generated_or_degraded_ones(real) -> None:
    images, network = real[0], load_network("digits", DIGITS)
    reference, others = measure(images[:NUM], network, "reference"), images[NUM : 2 * NUM]
    rough = np.random.default_rng(1).normal(others, 40).clip(0, 255).astype(np.uint8)
    same, drawn, worse = (quality(part, reference) for part in (others, _drawn(), rough))
    for name in ("frechet", "spatial_frechet"):
        assert _value(drawn, name) > 1.3 * _value(same, name)
        assert _value(worse, name) > 1.3 * _value(same, name)
    assert _value(drawn, "recall") < _value(same, "recall")
    assert same.samples == same.reference == NUM


def test_figures_are_those_of_the_features(real: tuple[NDArray[np.uint8], Any]) -> None:
    images, labels = real
    network = load_network("digits", DIGITS)
    ours, theirs = (measure(part, network) for part in (images[:150], images[200:500]))
    found = quality(ours, theirs, labels=labels[:150])
    target = gaussian(theirs.pooled)
    assert _value(found) == frechet_distance(gaussian(ours.pooled), target)
    wanted = frechet_distance(gaussian(ours.spatial), gaussian(theirs.spatial))
    assert _value(found, "spatial_frechet") == wanted
    assert _value(found, "accuracy") > 0.95
    for figure in found.figures.values():
        low, high = _ends(figure)
        assert low < figure.value < high
    figures = {"": lambda counts: frechet_distance(gaussian(ours.pooled, counts), target)}
    reach = QUANTILE * standard_errors(figures, 150, 50)[""]
    ends = _value(found) - reach, _value(found) + reach
    assert _ends(found.figures["frechet"]) == pytest.approx(ends)
    assert quality(images[:150], theirs, labels=labels[:150]) == found
    none = quality(ours, theirs, resamples=0)
    assert none.figures["frechet"].low is None
    assert _value(none) == _value(found)


def test_only_inceptions_figures_are_called_fid(real: tuple[NDArray[np.uint8], Any]) -> None:
    found = quality(real[0][:150], real[0][200:400], resamples=2)
    titles = {figure["title"] for figure in json.loads(found.to_json())["figures"].values()}
    assert "Frechet distance, digit-classifier features" in titles
    assert not any(word in title for title in titles for word in ("FID", "IS"))
    network = Pixels()
    network.is_inception = True
    found = quality(noise(40, 5, 5, 1), noise(50, 5, 5, 1), network)
    assert found.title("frechet") == "FID"
    assert set(found.figures) == {"frechet", "precision", "recall"}


def test_few_images_can_still_be_named(real: tuple[NDArray[np.uint8], Any]) -> None:
    images, labels = real
    figure = named_as_asked(images[:30], labels[:30])
    assert figure.value > 0.9
    assert named_as_asked(images[:30], (labels[:30] + 1) % 10).value < 0.1
    digits = ImageStream("x", 30, DIGITS, lambda rows: iter([images[:30]]), labels[:30])
    assert named_as_asked(digits, "archive") == figure


def test_statistics_of_an_archive_serve_inception_alone(tmp_path: Path) -> None:
    """As ADM's evaluator does; its images still serve precision and recall."""
    other = np.random.default_rng(1).normal(0.5, 0.3, (900, 16))
    statistics = {"mu": other.mean(0), "sigma": np.cov(other, rowvar=False)}
    path, alone = tmp_path / "x.npz", tmp_path / "alone.npz"
    np.savez(path, arr_0=noise(50, 5, 5, 1), **statistics)
    np.savez(alone, **statistics)
    samples = noise(60, 5, 5, 1)[10:]
    network = Pixels()
    plain = quality(samples, path, network)
    assert not plain.published
    network.is_inception = True
    found = quality(samples, path, network)
    assert found.published
    ours = gaussian(measure(samples, network).pooled)
    wanted = frechet_distance(ours, gaussian(torch.from_numpy(other)))
    assert _value(found) == pytest.approx(wanted, rel=1e-9)
    assert _value(found, "precision") == _value(plain, "precision")
    found = quality(samples, alone, network)
    assert _value(found) == pytest.approx(wanted, rel=1e-9)
    assert (found.reference, set(found.figures)) == (0, {"frechet"})
    with pytest.raises(ValueError, match="reference must have arr_0, the images, for pixel feat"):
        quality(samples, alone, Pixels())
    with pytest.raises(ValueError, match=r"samples must have arr_0, the images, got .*alone.npz"):
        quality(alone, samples, network)
    np.savez(alone, mu=other.mean(0)[:7], sigma=np.eye(7))
    with pytest.raises(ValueError, match=r"mu of shape \[16\] and sigma .* got \[7\] and \[7, 7\]"):
        quality(samples, alone, network)


A, B = noise(40, 5, 5, 1), noise(45, 5, 5, 1)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((A[:16], B), {}, "samples must be more than 16 images for a cov.* 16 features, got 16"),
        ((A, B[:3]), {}, "reference must be more than 16 images .* got 3"),
        ((A, noise(40, 5, 6, 1)), {}, r"one size \[H, W, C\], got \[5, 5, 1\] and \[5, 6, 1\]"),
        ((A, B), {"neighbours": 40}, "neighbours must be from 1 to 39, got 40"),
        ((A, B), {"resamples": 1}, "resamples must be 0 or from 2 on, got 1"),
        ((A, B), {"seed": -1}, r"seed must be an integer from 0 to 2\^63 - 1, got -1"),
        ((A, B), {"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ((A, B), {"labels": [0] * 40}, "labels must come with features that name classes"),
        ((A, B), {"keep_reference": "x.npz"}, "keep_reference must end in .safetensors, got 'x.n"),
        ((A, B), {"labels": [1] * 39}, "labels must be 40 integers, one for each .* int64 of sh"),
        ((A, B), {"labels": [3] * 40}, r"labels must be in 0..2, got 3..3"),
        ((A, B), {"labels": "archive"}, "'archive' for samples with arr_1, got 'archive' for sam"),
        ((A, B), {"labels": "all"}, "labels must be classes, or 'archive' .* got 'all'"),
    ],
)
def test_bad_input_is_named_before_the_network_runs(arguments, options, message) -> None:
    network = Pixels(classes=None if "name classes" in message else 3)
    with pytest.raises(ValueError, match=message):
        quality(*arguments, network, **options)
    assert network.seen == 0


def test_what_networks_say_must_do() -> None:
    with pytest.raises(ValueError, match="features must have probabilities for accuracy, got pix"):
        quality(A, B, Pixels(classes=3), labels=[0] * 40)
    message = r"pixel must give finite .* for reference, images \[33\]"
    with pytest.raises(FloatingPointError, match=message):
        quality(A, B, Pixels(bad=33), batch_size=8)
    one, two = measure(A, Pixels()), measure(B, Pixels(name="other"))
    with pytest.raises(ValueError, match="measured by one network, got pixel and other"):
        quality(one, two)
    with pytest.raises(ValueError, match="reference must be measured by pixel, got .* by other"):
        quality(A, two, Pixels())


def test_a_stream_must_keep_its_word() -> None:
    def stream(count: int) -> ImageStream:
        return ImageStream("x", count, (5, 5, 1), lambda rows: iter([A[:20], A[20:]]))

    assert len(measure(stream(40), Pixels())) == 40
    with pytest.raises(ValueError, match="samples must have 41 images, got 40"):
        measure(stream(41), Pixels())
    with pytest.raises(ValueError, match="samples must have 39 images, got more"):
        measure(stream(39), Pixels())


_MEMORY = """
import resource, sys, torch
import numpy as np
from free.evaluation import quality
from free.evaluation.image_stream import ImageStream
from tests.evaluation.networks import Pixels
torch.set_num_threads(1)
def stream(count, seed):
    def chunks(rows):
        rng = np.random.default_rng(seed)
        for start in range(0, count, rows):
            yield rng.integers(0, 256, (min(rows, count - start), 64, 64, 3), np.uint8)
    return ImageStream("stream", count, (64, 64, 3), chunks)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
quality(stream(100, 0), stream(100, 1), Pixels(), resamples=2)
before, count = peak(), int(sys.argv[1])
quality(stream(count, 0), stream(count, 1), Pixels(), resamples=int(sys.argv[2]))
print(peak() - before)
"""


def _growth(count: int, resamples: int) -> float:
    """Megabytes that an evaluation of twice ``count`` images of 64 x 64 adds at its peak."""
    command = [sys.executable, "-c", _MEMORY, str(count), str(resamples)]
    return float(subprocess.check_output(command))


def test_neither_images_nor_distances_are_kept() -> None:
    """Images: 98 MB. Distances: 128 MB a matrix, of which there are three."""
    assert _growth(4000, 2) < 65


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_50000_images_take_no_more_memory() -> None:
    """Images: 1.2 GB. Distances: 20 GB a matrix. The features are 3 MB a set."""
    growth = _growth(50_000, 50)
    print(f"{growth:.0f} MB")
    assert growth < 150
