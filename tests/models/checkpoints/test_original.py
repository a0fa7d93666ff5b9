"""The original's checkpoints: what they compute, and what is told from their tensors."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from free import DiT, DiTConfig, Schedule, SpeculativeSampler
from free.models.summary import inspect
from tests.models.checkpoints.files import (
    CONFIG,
    original_state,
    outputs,
    same_weights,
    save_original,
    training_checkpoint,
)
from tests.models.numpy_dit import numpy_dit


@pytest.mark.parametrize(
    ("constants", "divisor", "norm_eps"), [(None, 128, 1e-6), ("diffusers", 127, 1e-5)]
)
def test_it_computes_what_the_paper_says(tmp_path, constants, divisor, norm_eps) -> None:
    network = DiT.from_pretrained(save_original(tmp_path), heads=4, constants=constants)
    x, t = torch.randn(5, 3, 8, 8), torch.tensor([1, 10, 100, 500, 999])
    y = torch.tensor([2, 0, 5, 4, 1])
    out = network(x, t, y)
    actual = torch.cat([out.eps, out.variance], dim=1).numpy()
    for row, (step, label) in enumerate(zip(t.tolist(), y.tolist(), strict=True)):
        image = x[row].double().numpy()
        expected = numpy_dit(original_state(), 4, image, step, label, divisor, norm_eps)
        atol = 2e-5 * np.abs(expected).max()
        np.testing.assert_allclose(actual[row], expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("save", "name"),
    [(torch.save, "weights.pt"), (torch.save, "weights.safetensors"), (save_file, "weights")],
)
def test_the_suffix_does_not_matter(tmp_path: Path, save: Callable, name: str) -> None:
    state, path = original_state(), tmp_path / name
    save(state, path)
    network = DiT.from_pretrained(path, heads=4)
    assert network.config == CONFIG
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())


def test_training_checkpoint_gives_the_averaged_weights(tmp_path: Path) -> None:
    torch.save(training_checkpoint(original_state()), tmp_path / "0400000.pt")
    network = DiT.from_pretrained(tmp_path / "0400000.pt", heads=4)
    assert same_weights(network, DiT.from_pretrained(save_original(tmp_path), heads=4))
    summary = inspect(tmp_path / "0400000.pt", heads=4)
    assert summary.format == "training"
    # The run's numbers, not the paths of the machine it ran on.
    assert summary.training == {"model": "DiT-S/2", "global_batch_size": 256, "epochs": 1400}


def _named(before: str = "", between: str = "") -> dict[str, torch.Tensor]:
    """The weights under other names."""
    state = original_state()
    return {before + name.replace("s.1.", f"s.1.{between}"): v for name, v in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": _named("model."), "epoch": 3},
        {"model": _named("module."), "opt": {"state": {}}},
        {"model_state_dict": _named("_orig_mod.module.net."), "optimizer_state_dict": {}},
        {"model": {}, "model_ema": _named(), "args": argparse.Namespace(num_classes=5)},
        {"state_dict": {"module": _named()}},
        _named(between="_orig_mod."),
    ],
    ids=["lightning", "parallel", "compiled", "averaged", "nested", "compiled blocks"],
)
def test_what_wraps_the_weights_is_taken_off(tmp_path: Path, content: dict) -> None:
    torch.save(content, tmp_path / "x.pt")
    network = DiT.from_pretrained(tmp_path / "x.pt", heads=4)
    assert network.config == CONFIG
    assert same_weights(network, DiT.from_pretrained(save_original(tmp_path), heads=4))


def test_a_checkpoint_without_a_null_class(tmp_path: Path) -> None:
    """As many rows as classes, where the file or the caller says so."""
    state, path = original_state(), tmp_path / "model.pt"
    torch.save({"ema": state, "args": argparse.Namespace(num_classes=6)}, path)
    trained = DiT.from_pretrained(path, heads=4)
    torch.save({"model": state, "args": argparse.Namespace(num_classes=6, data_path="/x")}, path)
    summary = inspect(path, heads=4)
    assert (summary.format, summary.config, summary.training) == (
        "original", trained.config, {"num_classes": 6},
    )  # fmt: skip
    torch.save(state, path)
    assert DiT.from_pretrained(path, heads=4).null_label == 5
    given = DiT.from_pretrained(path, heads=4, num_classes=6)
    for network in (trained, given):
        assert (network.num_classes, network.null_label) == (6, None)
        assert same_weights(network, DiT.from_pretrained(path, heads=4))
    trained.save_pretrained(tmp_path / "free")
    assert DiT.from_pretrained(tmp_path / "free").config == trained.config
    with pytest.raises(ValueError, match="num_classes must be the 6 of .*, got 5"):
        DiT.from_pretrained(tmp_path / "free", num_classes=5)
    with pytest.raises(ValueError, match="'diffusers' must have a null class, got a network with"):
        trained.save_pretrained(tmp_path / "diffusers", "diffusers")
    with pytest.raises(ValueError, match="cfg_scale must be 1, .* without a null class .* got 1.5"):
        SpeculativeSampler(trained, "frozen", Schedule.ddpm(4), cfg_scale=1.5)
    sampler = SpeculativeSampler(trained, "frozen", Schedule.ddpm(4), window=2)
    assert sampler.sample([0, 5]).samples.isfinite().all()
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.5, got 6"):
        sampler.sample([6])
    table = "y_embedder.embedding_table.weight"
    torch.save({**state, table: state[table][:1]}, path)
    assert DiT.from_pretrained(path, heads=4, num_classes=1).null_label is None


@pytest.mark.parametrize(
    "config",
    [
        DiTConfig(16, 4, 4, 384, 2, 6, num_classes=1000),
        DiTConfig(16, 8, 1, 768, 1, 12, mlp_ratio=2.0, num_classes=10, learn_sigma=False),
        DiTConfig(4, 2, 3, 1024, 1, 16, mlp_ratio=8 / 3, num_classes=1),
        DiTConfig(4, 2, 4, 1152, 1, 16, num_classes=2),
    ],
)
def test_architecture_is_told_from_the_tensors(tmp_path: Path, config: DiTConfig) -> None:
    """Of a published width, the number of heads too."""
    with torch.device("meta"):
        state = DiT(config).state_dict()
    save_file(
        {name: torch.zeros_like(w, device="cpu") for name, w in state.items()}, tmp_path / "x"
    )
    found = inspect(tmp_path / "x").config
    assert not config.misfit(DiTConfig(**{**vars(found), "mlp_ratio": config.mlp_ratio}))
    assert found.mlp_ratio == pytest.approx(config.mlp_ratio, rel=1e-3)


def test_what_the_tensors_do_not_tell_is_asked_for(tmp_path: Path) -> None:
    path = save_original(tmp_path)
    for options, message in (
        ({}, "heads must be given for weights 32 wide"),
        ({"heads": 0}, r"heads must be an integer in 1\.\.\d+, got 0"),
        ({"heads": 4, "num_classes": "5"}, r"num_classes must be an integer in 1\.\.\d+, got '5'"),
        (
            {"heads": 4, "num_classes": 4},
            r"5 and a null class, or 6 without one, .* 6 rows.* got 4",
        ),
        ({"heads": 5}, r"hidden_size must be a multiple of heads \(5\)"),
        ({"heads": 4, "constants": "stock"}, "constants must be 'original', 'diffusers' or None"),
        ({"heads": 4, "dtype": "float16"}, "dtype must be a floating-point torch.dtype or None"),
        ({"heads": 4, "dtype": torch.int64}, "dtype must be a floating-point torch.dtype or None"),
    ):
        with pytest.raises(ValueError, match=message):
            DiT.from_pretrained(path, **options)
    state = original_state()
    table = state.pop("pos_embed")
    torch.save(state, path)
    with pytest.raises(ValueError, match="heads must be given"):
        DiT.from_pretrained(path, image_size=8)
    with pytest.raises(ValueError, match="image_size must be given for weights without pos_embed"):
        DiT.from_pretrained(path, heads=4)
    torch.testing.assert_close(DiT.from_pretrained(path, heads=4, image_size=8).pos_embed, table)


def test_a_position_table_of_its_own_is_kept(tmp_path: Path) -> None:
    state = original_state()
    state["pos_embed"] = torch.randn(state["pos_embed"].shape)
    torch.save(state, tmp_path / "model.pt")
    network = DiT.from_pretrained(tmp_path / "model.pt", heads=4)
    assert torch.equal(network.pos_embed, state["pos_embed"])
    with pytest.raises(ValueError, match="'diffusers' must have the fixed sine-cosine table"):
        network.save_pretrained(tmp_path / "diffusers", "diffusers")
    network.save_pretrained(tmp_path / "free")
    assert same_weights(network, DiT.from_pretrained(tmp_path / "free"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    """Angles need float32 frequencies whatever the rest is in."""
    path = save_original(tmp_path)
    network = DiT.from_pretrained(path, heads=4, dtype=dtype)
    full = DiT.from_pretrained(path, heads=4)
    for later in (network, DiT.from_pretrained(path, heads=4).to(dtype)):
        assert {value.dtype for value in later.state_dict().values()} == {dtype}
        assert later.t_embedder.frequencies.dtype == torch.float32
        assert torch.equal(later.t_embedder.frequencies, full.t_embedder.frequencies)
    difference = (outputs(network, t=999).float() - outputs(full, t=999)).abs().max()
    assert difference < 0.05 * outputs(full, t=999).abs().max()


def test_frequencies_follow_the_network() -> None:
    with torch.device("meta"):
        network = DiT(CONFIG)
    assert network.t_embedder.frequencies.is_meta
    network.to_empty(device="cpu")
    torch.testing.assert_close(
        network.t_embedder.frequencies, torch.exp(-np.log(1e4) * torch.arange(128) / 128)
    )
