"""Checkpoints of diffusers: its own network is the reference."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from free import DiT, DiTConfig
from free.models.adopt import adopt_transformer
from free.models.summary import inspect
from tests.models.checkpoints.files import (
    CONFIG,
    change,
    original_state,
    outputs,
    same_weights,
    save_original,
)
from tests.networks import randomized

diffusers = pytest.importorskip("diffusers")


def _reference(norm_eps: float = 1e-5) -> torch.nn.Module:
    """A small network of diffusers, with random non-zero weights, alike in all blocks' copies."""
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=3,
        sample_size=8, num_embeds_ada_norm=5, norm_eps=norm_eps,
    )  # fmt: skip
    randomized(network)
    first = network.transformer_blocks[0].norm1.emb.state_dict()
    for block in network.transformer_blocks:
        block.norm1.emb.load_state_dict(first)
    return network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of diffusers, as its pipelines have it."""
    _reference().save_pretrained(tmp_path / "pipe" / "transformer")
    (tmp_path / "pipe" / "model_index.json").write_text('{"_class_name": "DiTPipeline"}')
    return tmp_path / "pipe"


def _relative(one: Tensor, two: Tensor) -> float:
    return float((one - two).abs().max() / two.abs().max())


def _error(network: DiT, reference: torch.nn.Module, t: Tensor) -> float:
    """The largest of the rows' relative differences; the fifth has no label."""
    x, y = torch.randn(len(t), 4, 8, 8), torch.arange(1, 1 + len(t))
    out = network(x, t, y)
    with torch.no_grad():
        expected = reference(x, t, y).sample
    return max(map(_relative, torch.cat([out.eps, out.variance], dim=1), expected))


@pytest.mark.parametrize(("norm_eps", "divisor"), [(1e-5, 127), (1e-6, 127), (1e-6, 128)])
def test_parity(tmp_path: Path, norm_eps: float, divisor: int) -> None:
    reference = _reference(norm_eps)
    reference.save_pretrained(tmp_path)
    for module in reference.modules():
        if hasattr(module, "downscale_freq_shift"):
            module.downscale_freq_shift = 128 - divisor
    if divisor == 128:  # what the configuration of a folder of ours would say
        change(tmp_path / "config.json", _free={"timestep_divisor": 128})
    network = DiT.from_pretrained(tmp_path)
    assert network.config.timestep_divisor == divisor
    assert _error(network, reference, torch.tensor([1, 10, 100, 500, 999])) < 1e-5


def test_all_ways_to_name_it_and_all_files(folder: Path, tmp_path: Path) -> None:
    expected = outputs(DiT.from_pretrained(folder))
    network = _reference()
    network.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    network.save_pretrained(tmp_path / "sharded", max_shard_size="60KB")
    network.save_pretrained(tmp_path / "both", safe_serialization=False, max_shard_size="60KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    assert (tmp_path / "pickled" / "diffusion_pytorch_model.bin").is_file()
    assert (tmp_path / "both" / "diffusion_pytorch_model.bin.index.json").is_file()
    for source in (
        folder / "transformer",
        folder / "transformer" / "diffusion_pytorch_model.safetensors",
        tmp_path / "pickled",
        tmp_path / "sharded",
        tmp_path / "both",
    ):
        assert torch.equal(outputs(DiT.from_pretrained(source)), expected)


def test_a_file_without_its_configuration(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "transformer" / "diffusion_pytorch_model.safetensors", tmp_path / "x")
    with pytest.raises(ValueError, match="heads must be given"):
        DiT.from_pretrained(tmp_path / "x")
    network = DiT.from_pretrained(tmp_path / "x", heads=4, image_size=8)
    assert torch.equal(outputs(network), outputs(DiT.from_pretrained(folder)))
    with pytest.raises(ValueError, match="heads must be the 4 of .*, got 2"):
        DiT.from_pretrained(folder, heads=2)
    with pytest.raises(ValueError, match="image_size must be the 8 of .*, got 16"):
        DiT.from_pretrained(folder, image_size=16)


def test_the_class_of_older_versions(folder: Path) -> None:
    path = folder / "transformer" / "config.json"
    change(path, _class_name="Transformer2DModel", norm_eps=None)
    assert inspect(folder).config.norm_eps == 1e-5
    change(path, norm_type=None)
    with pytest.raises(ValueError, match="must describe a DiT, got norm_type None"):
        DiT.from_pretrained(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"_class_name": "UNet2DModel"}, "must describe a DiT, got 'UNet2DModel'"),
        ({"activation_fn": "geglu"}, "must describe a DiT, got activation_fn 'geglu'"),
        ({"out_channels": 5}, "out_channels must be 4 or 8, got 5"),
        ({"num_layers": "3"}, "config.json is missing or malformed"),
        ({"num_layers": 4}, r"missing transformer_blocks.3.attn1.to_k.bias; .*and \d+ more"),
        ({"attention_head_dim": 9}, r"to_k.bias has shape \[32\], expected \[36\]"),
    ],
)
def test_configurations_that_do_not_fit(folder: Path, fields: dict, message: str) -> None:
    change(folder / "transformer" / "config.json", **fields)
    with pytest.raises(ValueError, match=message):
        DiT.from_pretrained(folder)


def test_copies_that_do_not_agree(folder: Path) -> None:
    """In a file and in memory."""
    for key, own in (
        ("timestep_embedder.linear_1.bias", "t_embedder.mlp.0.bias"),
        ("timestep_embedder.linear_2.weight", "t_embedder.mlp.2.weight"),
        ("class_embedder.embedding_table.weight", "y_embedder.embedding_table.weight"),
    ):
        reference = _reference()
        name = f"transformer_blocks.2.norm1.emb.{key}"
        reference.state_dict()[name].view(-1)[-1] += 1e-3
        reference.save_pretrained(folder / "transformer")
        message = f"copies of {own} in .* must agree, got {name} unlike"
        with pytest.raises(ValueError, match=message):
            DiT.from_pretrained(folder)
        with pytest.raises(ValueError, match=message):
            adopt_transformer(reference)


def test_a_network_in_memory_is_adopted(folder: Path) -> None:
    """Its weights are shared, but for those that are one here."""
    reference = _reference()
    network, read = adopt_transformer(reference), DiT.from_pretrained(folder)
    assert network.config == read.config
    assert same_weights(network, read)
    weights = reference.state_dict()
    for own, name in (("mlp.fc1", "ff.net.0.proj"), ("attn.proj", "attn1.to_out.0")):
        one = network.state_dict()[f"blocks.1.{own}.weight"]
        assert one.data_ptr() == weights[f"transformer_blocks.1.{name}.weight"].data_ptr()
    with pytest.raises(ValueError, match="must be a DiTTransformer2DModel, got Linear"):
        adopt_transformer(torch.nn.Linear(2, 2))


def test_shards_that_are_not_there(tmp_path: Path) -> None:
    _reference().save_pretrained(tmp_path, max_shard_size="60KB")
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    shard = sorted(tmp_path.glob("*-of-*.safetensors"))[1]
    state = load_file(shard)
    name = next(iter(state))
    save_file({key: value for key, value in state.items() if key != name}, shard)
    with pytest.raises(ValueError, match=f"shards must have .*, got {shard.name} without {name}"):
        DiT.from_pretrained(tmp_path)
    shard.unlink()
    with pytest.raises(ValueError, match=f"must have all shards of .*, got none of {shard.name}"):
        DiT.from_pretrained(tmp_path)
    weights = json.loads(index.read_text())["weight_map"]
    for text in ("", "[]", "{}", json.dumps({"weight_map": dict.fromkeys(weights, "../x")})):
        index.write_text(text)
        with pytest.raises(ValueError, match=r"index.json is missing or malformed"):
            DiT.from_pretrained(tmp_path)


def test_diffusers_loads_what_is_saved_for_it(tmp_path, caplog) -> None:
    """Without a warning about the keys that are only ours."""
    state = original_state(DiTConfig(8, 2, 4, 32, 3, 4, num_classes=5))
    torch.save(state, tmp_path / "model.pt")
    network = DiT.from_pretrained(tmp_path / "model.pt", heads=4, constants="diffusers")
    network.save_pretrained(tmp_path / "saved", "diffusers", training={"steps": 3})
    logging.getLogger("diffusers").propagate = True
    reference = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "saved")
    assert not [record for record in caplog.records if "config" in record.message]
    config = reference.config
    assert (config.sample_size, config.out_channels, config.norm_eps) == (8, 8, 1e-5)
    assert _error(network, reference, torch.tensor([700, 3])) < 1e-5


def test_own_constants_survive_in_its_format(tmp_path: Path) -> None:
    network = DiT.from_pretrained(save_original(tmp_path), heads=4)
    network.save_pretrained(tmp_path / "saved", "diffusers", training={"steps": 3})
    assert DiT.from_pretrained(tmp_path / "saved").config == CONFIG
    assert inspect(tmp_path / "saved").training == {"steps": 3}
    stock = DiT.from_pretrained(tmp_path / "saved", constants="diffusers").config
    assert (stock.timestep_divisor, stock.norm_eps) == (127, 1e-6)  # as diffusers would run it
    other = DiT(DiTConfig(8, 2, 3, 32, 1, 4, mlp_ratio=2.0))
    with pytest.raises(ValueError, match="must have an mlp_ratio of 4, got one of 2"):
        other.save_pretrained(tmp_path / "other", "diffusers")
    assert not (tmp_path / "other").exists()
