"""DiT: the published checkpoints' layout; test_original.py has the forward pass against NumPy."""

import numpy as np
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


def test_timesteps_may_lie_between() -> None:
    """Whole ones give the same bits in either type; the outputs between are between them."""
    network = small()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 8, 8, generator=generator).expand(5, 1, 8, 8)
    y = torch.zeros(5, dtype=torch.int64)
    t = torch.tensor([6.0, 6.999, 7.0, 7.001, 8.0])
    eps = network(x, t, y).eps
    assert torch.equal(network(x, t.long().float(), y).eps, network(x, t.long(), y).eps)
    near = (eps[1::2] - eps[2]).abs().amax((1, 2, 3))
    assert (near > 0).all()
    assert (near < 0.01 * (eps[0] - eps[4]).abs().max()).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch_size": 3}, r"image_size must be a multiple of patch_size \(3\), got 8"),
        ({"hidden_size": 18}, r"hidden_size must be a multiple of heads \(2\) and of 4, got 18"),
        ({"depth": 0}, r"depth must be an integer in 1\.\.1000, got 0"),
        ({"depth": 10**6}, r"depth must be an integer in 1\.\.1000, got 1000000"),
        ({"channels": True}, r"channels must be an integer in 1\.\.4096, got True"),
        (
            {"hidden_size": 2**40},
            r"hidden_size must be an integer in 1\.\.65536, got 1099511627776",
        ),
        ({"heads": 10**3000}, r"heads must be an integer in 1\.\.4096, got 1000.{,40}$"),
        ({"num_classes": 2**63}, r"num_classes must be an integer in 1\.\.16777216, got 9223"),
        ({"image_size": 2**14, "patch_size": 1}, "image_size must leave at most 67108864 values"),
        ({"mlp_ratio": float("nan")}, r"mlp_ratio must be a number in \(0, 64\], got nan"),
        ({"mlp_ratio": "4"}, r"mlp_ratio must be a number in \(0, 64\], got '4'"),
        ({"mlp_ratio": 1e-9}, "mlp_ratio must leave the MLP a width, got 1e-09 of 16"),
        ({"learn_sigma": "no"}, "learn_sigma must be true or false, got 'no'"),
        ({"null_class": 1}, "null_class must be true or false, got 1"),
        ({"timestep_divisor": 100}, "timestep_divisor must be 128 or 127, got 100"),
        ({"prediction": "score"}, "prediction must be 'epsilon' or 'velocity', got 'score'"),
        ({"prediction": ["velocity"]}, r"prediction must be 'epsilon' or .* got \['velocity'\]"),
        ({"reversed_time": True}, "reversed_time must be false unless .* got true with 'epsilon'"),
        ({"qk_norm": 1}, "qk_norm must be true or false, got 1"),
        ({"norm_eps": 0.0}, r"norm_eps must be a number in \(0, 1\], got 0.0"),
        ({"norm_eps": 10**400}, r"norm_eps must be a number in \(0, 1\], got 1000.{,40}$"),
    ],
)
def test_config_refuses(fields: dict, message: str) -> None:
    sizes = {"image_size": 8, "patch_size": 2, "channels": 1, "hidden_size": 16, "depth": 1}
    with pytest.raises(ValueError, match=message):
        DiTConfig(**sizes | {"heads": 2} | fields)


def test_numbers_of_numpy_are_numbers() -> None:
    config = DiTConfig(np.int64(8), 4, 1, np.int32(16), 1, 2, mlp_ratio=np.float32(4))
    assert config == DiTConfig(8, 4, 1, 16, 1, 2)
    assert {type(value) for value in vars(config).values()} == {int, float, bool, str}  # JSON


def test_other_names_and_inputs_are_refused() -> None:
    for name in ("DiT-H/2", "XL/2", "DiT-XL/3", "DiT-XL"):
        with pytest.raises(ValueError, match="name must be DiT-S, -B, -L or -XL"):
            DiTConfig.named(name)
    with pytest.raises(ValueError, match=r"x must have shape \[R, 1, 8, 8\], got \[1, 1, 7, 8\]"):
        small()(torch.zeros(1, 1, 7, 8), torch.zeros(1).long(), torch.zeros(1).long())
