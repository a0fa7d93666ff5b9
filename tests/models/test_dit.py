"""DiT: the published checkpoints' layout, and the forward pass against NumPy."""

import numpy as np
import pytest
import torch

from free import DiT, DiTConfig, DrafterNet
from free.models.layers import sincos_position_embedding, unpatchify
from tests.models.numpy_dit import numpy_dit
from tests.networks import randomized

XL_SHAPES = {
    "pos_embed": (1, 256, 1152),
    "x_embedder.proj.weight": (1152, 4, 2, 2),
    "x_embedder.proj.bias": (1152,),
    "t_embedder.mlp.0.weight": (1152, 256),
    "t_embedder.mlp.2.weight": (1152, 1152),
    "y_embedder.embedding_table.weight": (1001, 1152),
    "blocks.27.attn.qkv.weight": (3456, 1152),
    "blocks.0.attn.proj.weight": (1152, 1152),
    "blocks.0.mlp.fc1.weight": (4608, 1152),
    "blocks.0.mlp.fc2.weight": (1152, 4608),
    "blocks.5.adaLN_modulation.1.weight": (6912, 1152),
    "final_layer.linear.weight": (32, 1152),
    "final_layer.adaLN_modulation.1.weight": (2304, 1152),
}


def small() -> DiT:
    return randomized(DiT(DiTConfig(8, 4, 1, 16, 1, 2, num_classes=5, learn_sigma=False)))


def test_xl_has_the_published_layout() -> None:
    with torch.device("meta"):
        state = DiT(DiTConfig.named("DiT-XL/2")).state_dict()
        drafter = DrafterNet(DiTConfig.named("DiT-XL/2"))
    assert len(state) == 292
    assert sum(value.numel() for value in state.values()) == 675_129_632
    for name, shape in XL_SHAPES.items():
        assert tuple(state[name].shape) == shape
    assert sum(value.numel() for value in drafter.parameters()) == 32_226_064


@pytest.mark.parametrize(
    ("name", "millions"), [("S/8", 33), ("B/4", 130), ("L/2", 458), ("XL/4", 675)]
)
def test_published_sizes(name: str, millions: int) -> None:
    with torch.device("meta"):
        network = DiT(DiTConfig.named(f"DiT-{name}"))
    count = sum(value.numel() for value in network.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.02)


def test_forward_matches_numpy() -> None:
    network = randomized(DiT(DiTConfig(8, 2, 3, 32, 2, 4, num_classes=5)))
    t, y = torch.tensor([1, 10, 100, 500, 999]), torch.tensor([2, 0, 5, 4, 1])
    x = torch.randn(5, 3, 8, 8)
    out = network(x, t, y)
    actual = torch.cat([out.eps, out.variance], dim=1).double().numpy()
    for row in range(5):
        image, step, label = x[row].double().numpy(), int(t[row]), int(y[row])
        expected = numpy_dit(network.state_dict(), 4, image, step, label)
        atol = 3e-5 * np.abs(expected).max()
        np.testing.assert_allclose(actual[row], expected, rtol=1e-4, atol=atol)


def test_feature_is_what_the_final_layer_sees() -> None:
    network = small()
    x, t, y = torch.randn(3, 1, 8, 8), torch.tensor([0, 7, 999]), torch.tensor([0, 4, 5])
    out = network(x, t, y)
    assert out.variance is None
    assert out.feature.shape == (3, 4, 16)
    c = network.t_embedder(t) + network.label_embedding(y)
    eps = unpatchify(network.final_layer(out.feature, c), 4, 1)
    torch.testing.assert_close(out.eps, eps)


def test_position_table_has_the_column_first() -> None:
    table = sincos_position_embedding(3, 8)[0].view(3, 3, 8)
    torch.testing.assert_close(table[0, 2, :4], table[1, 2, :4])
    torch.testing.assert_close(table[2, 0, 4:], table[2, 1, 4:])
    torch.testing.assert_close(table[1, 2, 0], torch.tensor(2.0).sin())
    torch.testing.assert_close(table[1, 2, 4], torch.tensor(1.0).sin())


def test_rows_are_independent() -> None:
    network = small()
    x, t, y = torch.randn(5, 1, 8, 8), torch.arange(5) * 100, torch.arange(5)
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1], y[i : i + 1]).eps for i in range(5)])
    torch.testing.assert_close(network(x, t, y).eps, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch_size": 3}, r"image_size must be a multiple of patch_size \(3\), got 8"),
        ({"hidden_size": 18}, r"hidden_size must be a multiple of heads \(2\) and of 4, got 18"),
        ({"heads": 5}, r"hidden_size must be a multiple of heads \(5\)"),
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
        ({"mlp_ratio": 0.0}, r"mlp_ratio must be a number in \(0, 64\], got 0.0"),
        ({"mlp_ratio": float("inf")}, r"mlp_ratio must be a number in \(0, 64\], got inf"),
        ({"mlp_ratio": float("nan")}, r"mlp_ratio must be a number in \(0, 64\], got nan"),
        ({"mlp_ratio": "4"}, r"mlp_ratio must be a number in \(0, 64\], got '4'"),
        ({"mlp_ratio": 1e-9}, "mlp_ratio must leave the MLP a width, got 1e-09 of 16"),
        ({"learn_sigma": "no"}, "learn_sigma must be true or false, got 'no'"),
        ({"null_class": 1}, "null_class must be true or false, got 1"),
        ({"timestep_divisor": 100}, "timestep_divisor must be 128 or 127, got 100"),
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
    assert {type(value) for value in vars(config).values()} == {int, float, bool}  # JSON


def test_other_names_and_inputs_are_refused() -> None:
    for name in ("DiT-H/2", "XL/2", "DiT-XL/3", "DiT-XL"):
        with pytest.raises(ValueError, match="name must be DiT-S, -B, -L or -XL"):
            DiTConfig.named(name)
    with pytest.raises(ValueError, match=r"x must have shape \[R, 1, 8, 8\], got \[1, 1, 7, 8\]"):
        small()(torch.zeros(1, 1, 7, 8), torch.zeros(1).long(), torch.zeros(1).long())
