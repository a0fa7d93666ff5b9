"""Checkpoints of diffusers: its own network is the reference."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from free import DiT, DiTConfig, DrafterNet, FeatureDrafter, Schedule, SpeculativeSampler
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


def test_variants(folder: Path) -> None:
    """The only variant there is will do, and a file that is named is the one that is read."""
    place, reference = folder / "transformer", _reference().half()
    expected = outputs(adopt_transformer(_reference().half().float()))
    reference.save_pretrained(place, variant="fp16")
    half = place / "diffusion_pytorch_model.fp16.safetensors"
    assert inspect(folder).dtypes == (torch.float32,)
    assert inspect(half).dtypes == (torch.float16,)
    assert torch.equal(outputs(DiT.from_pretrained(half)), expected)
    assert torch.equal(outputs(DiT.from_pretrained(folder, variant="fp16")), expected)
    with pytest.raises(ValueError, match=r"must have weights, got .* without .*bf16"):
        DiT.from_pretrained(folder, variant="bf16")
    (place / "diffusion_pytorch_model.safetensors").unlink()
    assert torch.equal(outputs(DiT.from_pretrained(folder)), expected)
    reference.save_pretrained(place, variant="ema")
    with pytest.raises(ValueError, match=r"one variant, got .* with ema and fp16: name the file"):
        DiT.from_pretrained(folder)
    for path in place.glob("*.safetensors"):
        path.unlink()
    for safe in (True, False):
        reference.save_pretrained(
            place, variant="fp16", max_shard_size="60KB", safe_serialization=safe
        )
        assert len(list(place.glob("*.fp16-*"))) > 2
        assert torch.equal(outputs(DiT.from_pretrained(folder)), expected)
        for path in place.glob("*.fp16*"):
            path.unlink()
    with pytest.raises(ValueError, match=r"must have weights, got .* without diffusion_pytorch_mo"):
        DiT.from_pretrained(folder)


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
        ({"num_layers": 4}, "do not fit the architecture: 3 blocks, expected 4"),
        ({"num_layers": 10**6}, r"malformed: .*depth must be an integer in 1\.\.1000, got 1000000"),
        ({"attention_head_dim": 2**63}, r"malformed: .*attention_head_dim must be an integer in"),
        ({"num_attention_heads": [4]}, r"malformed: .*num_attention_heads must be an integer in"),
        ({"norm_eps": "x" * 9999}, r"malformed: .*norm_eps must be a number in .{,60}$"),
        ({"attention_head_dim": 9}, r"to_k.bias has shape \[32\], expected \[36\]"),
    ],
)
def test_configurations_that_do_not_fit(folder: Path, fields: dict, message: str) -> None:
    change(folder / "transformer" / "config.json", **fields)
    with pytest.raises(ValueError, match=message):
        DiT.from_pretrained(folder)


def _trained() -> torch.nn.Module:
    """The reference after one step of training: its blocks' embedders are alike no more."""
    torch.manual_seed(0)
    network = _reference().train().requires_grad_(True)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    out = network(torch.randn(8, 4, 8, 8), torch.arange(8) * 100, torch.arange(8) % 5)
    out.sample.square().mean().backward()
    optimizer.step()
    return network.eval().requires_grad_(False)


def test_parity_after_a_step_of_training(tmp_path: Path) -> None:
    """Blocks have embedders of their own then, in a file and in memory, and when saved again."""
    reference, t = _trained(), torch.tensor([1, 10, 100, 500, 999])
    reference.save_pretrained(tmp_path / "theirs")
    network = DiT.from_pretrained(tmp_path / "theirs")
    assert network.config.block_embedders
    assert _error(network, reference, t) < 1e-5
    assert same_weights(adopt_transformer(reference), network)
    for form in ("free", "diffusers"):
        network.save_pretrained(tmp_path / form, form)
        again = DiT.from_pretrained(tmp_path / form)
        assert again.config == network.config
        assert same_weights(again, network)
    theirs = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "diffusers")
    assert _error(network, theirs, t) < 1e-5
    # One embedder for all would be another network.
    shared = DiT(dataclasses.replace(network.config, block_embedders=False)).eval()
    shared.load_state_dict(network.state_dict(), strict=False)
    assert _error(shared.requires_grad_(False), reference, t) > 1e-2
    with pytest.raises(ValueError, match="'original' must have one embedder for all blocks, got"):
        network.save_pretrained(tmp_path / "original", "original")


@pytest.mark.parametrize(
    "name",
    [
        "timestep_embedder.linear_1.bias",
        "timestep_embedder.linear_2.weight",
        "class_embedder.embedding_table.weight",
    ],
)
def test_any_copy_may_differ(name: str) -> None:
    reference = _reference()
    assert not adopt_transformer(reference).config.block_embedders
    reference.state_dict()[f"transformer_blocks.2.norm1.emb.{name}"].view(-1)[-1] += 0.1
    network = adopt_transformer(reference)
    assert network.config.block_embedders
    assert _error(network, reference, torch.tensor([0, 9, 90, 500, 999])) < 1e-5


def test_drafters_are_given_the_first_blocks_labels() -> None:
    """Which condition the final layer too; a drafter fits whatever the others have."""
    teacher = adopt_transformer(_trained())
    config = dataclasses.replace(teacher.config, block_embedders=False)
    drafter = FeatureDrafter(randomized(DrafterNet(config)), teacher)
    first = teacher.y_embedder.embedding_table.weight
    assert torch.equal(teacher.label_embedding(torch.tensor([5, 0])), first[[5, 0]])
    schedule = Schedule.ddpm(6)
    sampler = SpeculativeSampler(teacher, drafter, schedule, window=3, cfg_scale=1.5)
    assert sampler.sample([1, 2]).samples.isfinite().all()
    DrafterNet(teacher.config).initialize_from(teacher)


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
