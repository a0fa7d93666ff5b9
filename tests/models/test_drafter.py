"""The drafter's network."""

import pytest
import torch

from free import DiT, DiTConfig, DrafterNet
from tests.networks import randomized

CONFIG = DiTConfig(8, 4, 2, 16, 2, 2, num_classes=5)


def inputs(t: int) -> list[torch.Tensor]:
    latent, innovation = torch.randn(2, 1, 2, 8, 8)
    return [latent, innovation, torch.tensor([t]), torch.randn(1, 16), torch.randn(1, 4, 16)]


def test_it_depends_on_latent_innovation_time_label_and_feature() -> None:
    network, base = randomized(DrafterNet(CONFIG), seed=1), inputs(10)
    change = network(*base)[0]
    for index, other in enumerate(inputs(500)):
        altered = [other if place == index else value for place, value in enumerate(base)]
        assert (network(*altered)[0] - change).abs().max() > 1e-3


@pytest.mark.parametrize("depth", [1, 2])
def test_depth(depth: int) -> None:
    teacher, network = randomized(DiT(CONFIG)), DrafterNet(CONFIG, depth)
    network.initialize_from(teacher)
    assert len(network.blocks) == depth
    for own, top in zip(network.blocks, teacher.blocks[2 - depth :], strict=True):
        for weight, source in zip(own.parameters(), top.parameters(), strict=True):
            assert torch.equal(weight, source)
    # Every block is run.
    base = inputs(7)
    randomized(network)
    change, _ = network(*base)
    for block in network.blocks:
        block.mlp.fc2.weight.data.zero_()
        other, _ = network(*base)
        assert (other - change).abs().max() > 1e-3
        change = other


def test_the_gate() -> None:
    """The change is affine in the innovation that is gated."""
    network = randomized(DrafterNet(CONFIG, gate=True))
    plain = randomized(DrafterNet(CONFIG))
    shared = {n: v for n, v in network.state_dict().items() if "final_layer.linear" not in n}
    plain.load_state_dict(shared, strict=False)
    # Outputs of a patch: the channel is the fastest axis.
    weight = network.final_layer.linear.weight.view(16, 4, 16)
    bias = network.final_layer.linear.bias.view(16, 4)
    base, parts = inputs(400), []
    for own in (slice(0, 2), slice(2, 4)):
        plain.final_layer.linear.weight.data = weight[:, own].flatten(0, 1)
        plain.final_layer.linear.bias.data = bias[:, own].flatten()
        parts.append(plain(*base)[0])
    torch.testing.assert_close(network(*base)[0], parts[0] + parts[1] * base[1])
    fresh = DrafterNet(CONFIG, gate=True)
    fresh.initialize_from(randomized(DiT(CONFIG)))
    assert not fresh(*base)[0].any()


@pytest.mark.parametrize("depth", [0, 3, True, 2**63])
def test_depths_that_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"depth must be an integer in 1\.\.2, got {depth}"):
        DrafterNet(CONFIG, depth)


def test_a_gate_is_a_flag() -> None:
    """A number would be saved, and the file refused."""
    with pytest.raises(ValueError, match="gate must be true or false, got 1"):
        DrafterNet(CONFIG, gate=1)
