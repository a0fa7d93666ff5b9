"""Saved networks: round trips among the formats, our own folders, and the model card."""

import dataclasses
import itertools
import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from free import DiT, DrafterNet, FeatureDrafter, FrozenDrafter, load_pretrained
from free.models.checkpoints import FORMATS, locate
from free.models.summary import inspect
from tests.models.checkpoints.files import CONFIG, change, same_weights, save_original
from tests.networks import randomized

RECORD = {"steps": 7, "loss": 0.5}
SAMPLING = {"window": 4, "sweeps": 2, "recycle": "reuse"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    randomized(DiT(CONFIG)).save_pretrained(tmp_path / "teacher", training=RECORD)
    drafter = randomized(DrafterNet(CONFIG), seed=1)
    drafter.save_pretrained(tmp_path / "drafter", training=RECORD, sampling=SAMPLING)
    return tmp_path


def test_round_trips_are_exact(tmp_path) -> None:
    for first, second, dtype in (
        ("free", "original", torch.float32),
        ("original", "diffusers", torch.float32),
        ("diffusers", "free", torch.float16),
        ("free", "diffusers", torch.bfloat16),
        ("diffusers", "original", torch.bfloat16),
        ("original", "free", torch.float16),
    ):
        network = DiT.from_pretrained(save_original(tmp_path), heads=4, dtype=dtype)
        one, two = (tmp_path / f"{first} {second}" / place for place in ("one", "two"))
        network.save_pretrained(one, first)
        there = DiT.from_pretrained(one, heads=4, dtype=dtype)
        there.save_pretrained(two, second)
        back = DiT.from_pretrained(two, heads=4, dtype=dtype)
        assert same_weights(network, back)
        assert back.config == network.config


def test_precision_on_disk(tmp_path: Path) -> None:
    """A table that is rounded there is computed anew, so that all formats give the same network."""
    network = DiT.from_pretrained(save_original(tmp_path), heads=4)
    tables = []
    for form in FORMATS:
        network.save_pretrained(tmp_path / form, form, dtype=torch.float16)
        assert inspect(tmp_path / form, heads=4).dtypes == (torch.float16,)
        loaded = DiT.from_pretrained(tmp_path / form, heads=4)
        weight = loaded.blocks[0].mlp.fc1.weight
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, network.blocks[0].mlp.fc1.weight, rtol=1e-3, atol=1e-4)
        tables.append(loaded.pos_embed)
    assert network.pos_embed.dtype == torch.float32
    for table in tables:
        torch.testing.assert_close(table, network.pos_embed, rtol=0, atol=1e-7)
        assert torch.equal(table, tables[2])
    network.half().float().save_pretrained(tmp_path / "rounded", "diffusers")


def test_bundle(bundle: Path) -> None:
    teacher, drafter = load_pretrained(bundle)
    assert teacher.config == CONFIG
    assert same_weights(teacher, randomized(DiT(CONFIG)))
    assert same_weights(drafter.network, randomized(DrafterNet(CONFIG), seed=1))
    torch.testing.assert_close(drafter.network.pos_embed, teacher.pos_embed)
    assert drafter.sampling == SAMPLING
    assert not any(weight.requires_grad for weight in drafter.network.parameters())
    assert not drafter.network.training
    for part in ("teacher", "drafter"):
        assert inspect(bundle / part).training == RECORD
    assert inspect(bundle, kind="drafter").sampling == SAMPLING
    # The parts by themselves.
    assert same_weights(DiT.from_pretrained(bundle), teacher)
    assert same_weights(DiT.from_pretrained(bundle / "teacher" / "model.safetensors"), teacher)
    for source in (bundle, bundle / "drafter"):
        assert same_weights(DrafterNet.from_pretrained(source), drafter.network)
        assert FeatureDrafter.from_pretrained(source, teacher).sampling == SAMPLING


def test_names_of_wrappers_in_a_folder(bundle: Path) -> None:
    """As other codes save compiled and parallel networks; the configuration beside them is used."""
    expected = load_pretrained(bundle)
    for part, prefix in (("teacher", "_orig_mod."), ("drafter", "module.net.")):
        path = bundle / part / "model.safetensors"
        save_file({prefix + name: value for name, value in load_file(path).items()}, path)
    teacher, drafter = load_pretrained(bundle)
    assert same_weights(teacher, expected[0])
    assert same_weights(drafter.network, expected[1].network)


def test_the_depth_and_the_gate_of_a_drafter(bundle: Path) -> None:
    network = randomized(DrafterNet(CONFIG, 2, gate=True), seed=1)
    network.save_pretrained(bundle / "drafter")
    loaded = DrafterNet.from_pretrained(bundle)
    assert same_weights(loaded, network)
    summary = inspect(bundle / "drafter")
    assert loaded.options == summary.options == {"depth": 2, "gate": True}
    assert summary.parameters == sum(w.numel() for w in network.parameters())
    assert "| blocks | 2 |" in (bundle / "drafter" / "README.md").read_text()


def test_a_drafter_of_before_there_was_a_depth(bundle: Path) -> None:
    path = bundle / "drafter" / "model.safetensors"
    state = load_file(path)
    state = {name.replace("blocks.0.", "block."): value for name, value in state.items()}
    save_file(state, path)
    change(bundle / "drafter" / "config.json", depth=None, gate=None)
    assert same_weights(load_pretrained(bundle)[1].network, randomized(DrafterNet(CONFIG), seed=1))
    del state["block.mlp.fc1.bias"]
    save_file(state, path)
    with pytest.raises(ValueError, match="missing block.mlp.fc1.bias"):
        load_pretrained(bundle)


def test_which_drafter(bundle: Path, tmp_path: Path) -> None:
    assert isinstance(load_pretrained(bundle)[1], FeatureDrafter)
    for model, drafter in ((bundle, "frozen"), (bundle / "teacher", None)):
        frozen = load_pretrained(model, drafter)[1]
        assert isinstance(frozen, FrozenDrafter)
        assert frozen.sampling == {"window": 16, "sweeps": 0, "recycle": "response"}
    DiT.from_pretrained(bundle).save_pretrained(tmp_path / "diffusers", "diffusers")
    teacher, drafter = load_pretrained(
        tmp_path / "diffusers", bundle / "drafter", dtype=torch.float16, constants="diffusers"
    )
    assert teacher.config.timestep_divisor == 127
    # A drafter keeps the constants it was trained with.
    assert drafter.network.config.timestep_divisor == 128
    for network in (teacher, drafter.network):
        assert {value.dtype for value in network.state_dict().values()} == {torch.float16}
        assert network.pos_embed.dtype == torch.float16
    (bundle / "drafter" / "model.safetensors").rename(bundle / "alone.safetensors")
    for source, message in (
        ("no", "drafter must be a checkpoint's file or folder, .* 'no'"),
        (bundle / "teacher", "must be a drafter, got .* with a teacher"),
        ("mnist", "for the teacher's config, got image_size 28, not 8, pat"),
        (bundle / "alone.safetensors", "a drafter's folder, got .* without the config"),
    ):
        with pytest.raises(ValueError, match=message):
            load_pretrained(bundle, source)
    with pytest.raises(ValueError, match="must be a teacher, got .* with a drafter"):
        load_pretrained(locate("mnist") / "drafter")


def test_constants_are_kept(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, timestep_divisor=127, norm_eps=1e-5)
    for cls in (DiT, DrafterNet):
        cls(config).save_pretrained(tmp_path)
        assert cls.from_pretrained(tmp_path).config == config
    # A configuration of before there were any.
    architecture = dataclasses.asdict(CONFIG)
    del architecture["timestep_divisor"], architecture["norm_eps"]
    DiT(CONFIG).save_pretrained(tmp_path)
    change(tmp_path / "config.json", architecture=architecture)
    assert DiT.from_pretrained(tmp_path).config == CONFIG


def test_damaged_weights(bundle: Path) -> None:
    path = bundle / "teacher" / "model.safetensors"
    state = load_file(path)
    del state["pos_embed"]  # our own format always has it
    save_file({**state, "extra": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="missing pos_embed; unexpected extra"):
        load_pretrained(bundle)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ValueError, match="must be whole, got .*model.safetensors, truncated"):
        load_pretrained(bundle)
    path.unlink()
    with pytest.raises(ValueError, match="have weights, got .*teacher without model.safetensors"):
        load_pretrained(bundle)


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("teacher", "", "config.json is missing or malformed"),
        ("teacher", "[]", "config.json is missing or malformed: got list"),
        ("teacher", "[" * 10000, "config.json is missing .*it must be nested at most 64 deep"),
        ("teacher", "{}", "config.json is missing or malformed: KeyError"),
        ("teacher", {"architecture": {"wings": 2}}, "json is missing or malformed: TypeError"),
        ("drafter", {"depth": 0}, r"malformed: .*depth must be an integer in 1\.\.3"),
        ("drafter", {"depth": "2"}, r"malformed: .*depth must be an integer in 1\.\.3"),
        ("drafter", {"depth": 2}, "do not fit the architecture: 1 blocks, expected 2"),
        ("drafter", {"gate": 1}, "malformed: .*gate must be true or false, got 1"),
        ("drafter", {"sampling": {"speed": 9}}, r"in .* must have keys \['acceptance', "),
    ],
)
def test_malformed_configurations(bundle, part, content, message) -> None:
    path = bundle / part / "config.json"
    change(path, **content) if isinstance(content, dict) else path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_pretrained(bundle)


NASTY = (None, True, -1, 10**6, 2**63, 10**400, 0.5, math.inf, math.nan, "4", "x" * 400, [4], {})


@pytest.mark.parametrize(
    ("part", "form"), [("teacher", "free"), ("drafter", "free"), ("d", "diff")]
)
def test_no_value_of_a_configuration_does_worse_than_an_error(bundle, part, form) -> None:
    """In a line, and before anything of that size is built."""
    load = DrafterNet.from_pretrained if part == "drafter" else DiT.from_pretrained
    if form == "diff":
        randomized(DiT(dataclasses.replace(CONFIG, channels=4))).save_pretrained(
            bundle / part, "diffusers"
        )
    path = bundle / part / "config.json"
    record = json.loads(path.read_text())
    sizes, refused = record.get("architecture", record), 0
    for name, value in itertools.product(list(sizes), NASTY):
        before = sizes[name]
        sizes[name] = value
        path.write_text(json.dumps(record))
        sizes[name] = before
        try:
            load(bundle / part)
        except ValueError as error:
            refused += 1
            assert len(str(error)) < 700  # noqa: PT017
    assert refused > 100


def test_the_card_says_what_it_is(bundle: Path) -> None:
    for part, call in (("teacher", "DiT.from_pretrained"), ("drafter", "FeatureDrafter.from_pre")):
        card = (bundle / part / "README.md").read_text()
        assert card.startswith("---\nlibrary_name: free-dit\n")
        assert call in card
        assert '"steps": 7' in card
        assert "| width | 32 |" in card
    network, path = randomized(DiT(CONFIG)), bundle / "teacher" / "README.md"
    network.save_pretrained(bundle / "teacher", training={"steps": 8})
    assert '"steps": 8' in path.read_text()
    network.save_pretrained(bundle / "for diffusers", "diffusers")
    assert "diffusers itself computes" in (bundle / "for diffusers" / "README.md").read_text()
    path.write_text("# Mine\n")
    network.save_pretrained(bundle / "teacher")
    assert path.read_text() == "# Mine\n"


def test_what_cannot_be_written(tmp_path: Path) -> None:
    for name, options, message in (
        ("x", {"format": "onnx"}, "format must be one of free, original, diffusers, got 'onnx'"),
        ("x", {"dtype": torch.int8}, "dtype must be a floating-point torch.dtype or None, got"),
        ("x.pt", {"format": "free"}, "folder must be one for format 'free', got the file"),
        ("x.pt", {"format": "diffusers"}, "folder must be one for format 'diffusers', got"),
    ):
        with pytest.raises(ValueError, match=message):
            DiT(CONFIG).save_pretrained(tmp_path / name, **options)
        assert not list(tmp_path.iterdir())
    DiT(CONFIG).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="folder must have no config.json for format 'original'"):
        DiT(CONFIG).save_pretrained(tmp_path, "original")
