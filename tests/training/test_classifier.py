"""The digit classifier: how the one in the package was made."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from free.training.classifier import save_classifier, split_images, train_classifier
from free.training.dataset.sets import ImageSet, embedded_set


def test_it_learns_and_is_the_same_again(tmp_path: Path) -> None:
    """Whatever the random numbers before it were, and without changing those behind it."""
    digits = embedded_set("mnist")
    few = ImageSet(digits.images[::10], digits.labels[::10], 10)
    torch.manual_seed(3)
    network = train_classifier(few, steps=12)
    behind = torch.rand(1)
    assert network.record["accuracy"] > 0.2  # chance is 0.1
    assert not network.training
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), behind)
    again = train_classifier(few, steps=12)
    for one, two in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    save_classifier(network, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    for name, value in network.state_dict().items():
        assert torch.equal(stored[name].float(), value)
    assert json.loads((tmp_path / "config.json").read_text()) == network.record


def test_a_fifth_is_held_out() -> None:
    held, kept = split_images(5000)
    assert (len(held), len(kept)) == (1000, 4000)
    assert len(set(held.tolist()) | set(kept.tolist())) == 5000
