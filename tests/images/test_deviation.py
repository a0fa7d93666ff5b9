"""How far samples are from a reference."""

import math

import pytest
import torch

from free.images.deviation import Deviation


def test_psnr_is_of_the_span_and_the_mean_square() -> None:
    reference = torch.tensor([[-1.0, 0.0], [0.5, 1.0]])
    samples = reference + torch.tensor([[0.1, -0.1], [0.1, 0.3]])
    mean = (3 * 0.01 + 0.09) / 4
    for span, used in ((2.0, 2.0), (None, 2.0), (255.0, 255.0)):
        found = Deviation.of(samples, reference, span)
        assert found.psnr == pytest.approx(10 * math.log10(used**2 / mean), abs=1e-4)
        assert found.largest == pytest.approx(0.3, abs=1e-6)
    assert str(Deviation.of(samples, reference)) == "21.2 dB, at most 0.3"
    assert Deviation.of(reference, reference) == (math.inf, 0.0)


def test_bad_input() -> None:
    image = torch.tensor([0.0, 1.0])
    for samples, reference, span, message in (
        (image, image[:1], None, r"reference must be of the samples' shape, \[2\], got \[1\]"),
        (image, image / 0, None, "reference must be finite"),
        (image / 0, image, None, "samples must be finite"),
        (image, image, 0.0, "span must be a finite number > 0, got 0.0"),
        (image, image * 0, None, "span must be a finite number > 0, got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            Deviation.of(samples, reference, span)
