"""DiT: the published checkpoints' layout; test_original.py has the forward pass against NumPy."""

import pytest
import torch

from free import DiT, DiTConfig, DrafterNet
from free.models.layers import unpatchify
from tests.networks import randomized


def small() -> DiT:
    return randomized(DiT(DiTConfig(8, 4, 1, 16, 1, 2, num_classes=5, learn_sigma=False)))


def test_xl_has_the_published_layout() -> None:
    with torch.device("meta"):
        state = DiT(DiTConfig.named("DiT-XL/2")).state_dict()
        drafter = DrafterNet(DiTConfig.named("DiT-XL/2"))
    assert len(state) == 292
    assert sum(value.numel() for value in state.values()) == 675_129_632
    assert state["y_embedder.embedding_table.weight"].shape == (1001, 1152)
    assert sum(value.numel() for value in drafter.parameters()) == 32_226_064


@pytest.mark.parametrize(
    ("name", "millions"), [("S/8", 33), ("B/4", 130), ("L/2", 458), ("XL/4", 675)]
)
def test_published_sizes(name: str, millions: int) -> None:
    with torch.device("meta"):
        network = DiT(DiTConfig.named(f"DiT-{name}"))
    count = sum(value.numel() for value in network.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.02)


def test_feature_is_what_the_final_layer_sees() -> None:
    network = small()
    x, t, y = torch.randn(3, 1, 8, 8), torch.tensor([0, 7, 999]), torch.tensor([0, 4, 5])
    out = network(x, t, y)
    assert out.variance is None
    assert out.feature.shape == (3, 4, 16)
    c = network.t_embedder(t) + network.label_embedding(y)
    eps = unpatchify(network.final_layer(out.feature, c), 4, 1)
    torch.testing.assert_close(out.eps, eps)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch_size": 3}, r"image_size must be a multiple of patch_size \(3\), got 8"),
        ({"hidden_size": 18}, r"hidden_size must be a multiple of heads \(2\) and of 4, got 18"),
        ({"depth": 0}, "depth must be a positive integer, got 0"),
        ({"channels": True}, "channels must be a positive integer, got True"),
        ({"timestep_divisor": 100}, "timestep_divisor must be 128 or 127, got 100"),
        ({"norm_eps": 0.0}, "norm_eps must be positive and finite, got 0.0"),
    ],
)
def test_config_refuses(fields: dict, message: str) -> None:
    sizes = {"image_size": 8, "patch_size": 2, "channels": 1, "hidden_size": 16, "depth": 1}
    with pytest.raises(ValueError, match=message):
        DiTConfig(**sizes | {"heads": 2} | fields)


def test_other_names_and_inputs_are_refused() -> None:
    for name in ("DiT-H/2", "XL/2", "DiT-XL/3", "DiT-XL"):
        with pytest.raises(ValueError, match="name must be DiT-S, -B, -L or -XL"):
            DiTConfig.named(name)
    with pytest.raises(ValueError, match=r"x must have shape \[R, 1, 8, 8\], got \[1, 1, 7, 8\]"):
        small()(torch.zeros(1, 1, 7, 8), torch.zeros(1).long(), torch.zeros(1).long())
