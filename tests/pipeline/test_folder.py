"""Pipelines from folders, from diffusers' own, and back to folders."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from free import (  # noqa: E402
    DiT,
    DiTConfig,
    DrafterNet,
    FeatureDrafter,
    FreePipeline,
    FrozenDrafter,
    Schedule,
    load_pretrained,
)
from free.images.autoencoder import load_autoencoder  # noqa: E402
from tests.models.checkpoints.files import fake_hub  # noqa: E402
from tests.networks import CallableDrafter, MixtureTeacher, randomized  # noqa: E402
from tests.pipelines import CONFIG, DDIM, tiny_dit, tiny_dit_pipeline, tiny_vae  # noqa: E402


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder as ``facebook/DiT-XL-2-256`` is one, but with a DDPM scheduler."""
    tiny_dit_pipeline(tmp_path / "parts").save_pretrained(tmp_path / "root")
    index = json.loads((tmp_path / "root" / "model_index.json").read_text())
    index["id2label"] = {"0": "tench, Tinca tinca", "1": "goldfish"}
    (tmp_path / "root" / "model_index.json").write_text(json.dumps(index))
    return tmp_path / "root"


@pytest.fixture
def ddim_root(root: Path) -> Path:
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps(DDIM))
    return root


def _images(pipe: FreePipeline, **options: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 4, "output_type": "pt", **options}
    return pipe([1, 7], generator=torch.Generator().manual_seed(5), **options).images


def _expected(**options: Any) -> torch.Tensor:
    return _images(FreePipeline(tiny_dit(), tiny_vae(), **options))


def _same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_diffusers_folder(root: Path) -> None:
    pipe = FreePipeline.from_pretrained(root)
    assert pipe.labels == {"Tinca tinca": 0, "goldfish": 1, "tench": 0}
    assert isinstance(pipe.drafter, FrozenDrafter)
    assert pipe.transformer.config == CONFIG
    _same(_images(pipe), _expected())


def test_constants_and_precision(root: Path) -> None:
    original = FreePipeline.from_pretrained(root, constants="original")
    assert original.transformer.config.timestep_divisor == 128
    assert (_images(original) - _expected()).abs().max() > 1e-3
    half = FreePipeline.from_pretrained(root, torch_dtype=torch.bfloat16)
    assert half.dtype is torch.bfloat16
    assert half.vae.dtype is torch.bfloat16


def test_the_scheduler_of_the_published_model_is_refused_with_the_way_out(ddim_root: Path) -> None:
    with pytest.raises(ValueError, match=r"got DDIMScheduler with eta=0: .* law='ddpm', .*NAME"):
        FreePipeline.from_pretrained(ddim_root)
    with pytest.raises(ValueError, match=r"law must be 'ddpm', .* got 'flow-sde'"):
        FreePipeline.from_pretrained(ddim_root, scheduler="flow-sde")
    _same(_images(FreePipeline.from_pretrained(ddim_root, scheduler="ddpm")), _expected())


def test_ddpm_keeps_the_betas_of_the_folder(ddim_root: Path) -> None:
    path = ddim_root / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**DDIM, "beta_end": 0.012}))
    pipe = FreePipeline.from_pretrained(ddim_root, scheduler="ddpm")
    assert pipe.scheduler.config.beta_end == 0.012
    assert pipe.scheduler.config.timestep_spacing == "linspace"
    expected = _expected(scheduler=lambda steps: Schedule.ddpm(steps, beta_end=0.012))
    _same(_images(pipe), expected)
    assert (expected - _expected()).abs().max() > 1e-3


@pytest.mark.parametrize(
    "scheduler",
    [
        {"clip_sample": False, "timestep_spacing": "trailing"},
        diffusers.DDPMScheduler(clip_sample=False, timestep_spacing="trailing"),
        diffusers.DDPMScheduler(),
        {"_class_name": "LCMScheduler"},
        "sde-dpmsolver++",
        lambda steps: Schedule.ddpm(steps, variance="upper"),
        Schedule.ddpm(4, variance="upper"),
    ],
)
def test_schedulers_of_ones_own(ddim_root: Path, scheduler: Any) -> None:
    pipe = FreePipeline.from_pretrained(ddim_root, scheduler=scheduler)
    _same(_images(pipe), _expected(scheduler=scheduler))
    assert (_images(pipe) - _expected()).abs().max() > 1e-3


def test_a_bare_checkpoint_with_a_vae(tmp_path: Path) -> None:
    network = randomized(DiT(dataclasses.replace(CONFIG, hidden_size=384, depth=1, heads=6)))
    network.save_pretrained(tmp_path / "model.pt", "original")
    tiny_vae().save_pretrained(tmp_path / "vae")
    latent = FreePipeline.from_pretrained(tmp_path / "model.pt", constants="diffusers")
    with pytest.raises(ValueError, match="vae must be given for samples"):
        _images(latent)
    for vae in (tmp_path / "vae", str(tmp_path), tiny_vae()):
        pipe = FreePipeline.from_pretrained(tmp_path / "model.pt", vae=vae, constants="diffusers")
        assert pipe.labels["goldfish"] == 1
        _same(_images(pipe), _images(FreePipeline(network, tiny_vae())))


def test_a_hub_repository(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts are fetched as they are needed: of the repository's files, only those."""
    (root / "README.md").write_text("of no use")
    asked = fake_hub(monkeypatch, root)
    monkeypatch.chdir(tmp_path)
    pipe = FreePipeline.from_pretrained("someone/model")
    assert sorted(asked)[-2:] == ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]
    assert "README.md" not in asked
    assert pipe.labels["goldfish"] == 1
    _same(_images(pipe), _expected())
    _same(_images(FreePipeline.from_pretrained(tmp_path / "cache")), _expected())
    load_autoencoder("someone/model")


def test_from_pipe_shares_the_parts(tmp_path: Path) -> None:
    theirs = tiny_dit_pipeline(tmp_path)
    pipe = FreePipeline.from_pipe(theirs)
    assert pipe.vae is theirs.vae
    assert pipe.scheduler is theirs.scheduler
    assert pipe.labels == theirs.labels
    ours, weights = pipe.transformer.state_dict(), theirs.transformer.state_dict()
    shared = {value.data_ptr() for value in weights.values()}
    copied = sorted(name for name, value in ours.items() if value.data_ptr() not in shared)
    assert copied == [
        *(f"blocks.{i}.attn.qkv.{leaf}" for i in (0, 1) for leaf in ("bias", "weight")),
        "pos_embed",
    ]
    _same(_images(pipe), _expected())
    assert all(weight.requires_grad for weight in theirs.transformer.parameters())
    assert pipe.transformer.config == CONFIG
    original = FreePipeline.from_pipe(theirs, constants="original")
    assert original.transformer.config.timestep_divisor == 128
    theirs.transformer.to(torch.bfloat16)
    assert FreePipeline.from_pipe(theirs).dtype is torch.bfloat16


def test_from_pipe_refuses_what_from_pretrained_refuses(tmp_path: Path) -> None:
    theirs = tiny_dit_pipeline(tmp_path, diffusers.DDIMScheduler.from_config(DDIM))
    with pytest.raises(ValueError, match="got DDIMScheduler with eta=0: .* law='ddpm'"):
        FreePipeline.from_pipe(theirs)
    _same(_images(FreePipeline.from_pipe(theirs, scheduler="ddpm")), _expected())
    with pytest.raises(ValueError, match="pipeline must be a DiTPipeline, got int"):
        FreePipeline.from_pipe(5)
    theirs.transformer = tiny_vae()
    with pytest.raises(ValueError, match="must be a DiTTransformer2DModel, got AutoencoderKL"):
        FreePipeline.from_pipe(theirs, scheduler="ddpm")


def test_euler_ancestral_draws_the_images_of_ddpm() -> None:
    """Its law is DDPM's, of states that are scaled otherwise."""
    for scheduler in (diffusers.EulerAncestralDiscreteScheduler(), "euler-ancestral"):
        _same(_images(FreePipeline(tiny_dit(), tiny_vae(), scheduler)), _expected())


@pytest.mark.parametrize("law", ["renoise", "flow-sde", "cps", "dance", Schedule.repa])
def test_a_network_of_velocities_by_the_name_of_a_law(law: Any) -> None:
    """It is told the time from 0 to 1."""
    config = DiTConfig(8, 4, 3, 16, 1, 2, num_classes=9, learn_sigma=False, prediction="velocity")
    made = law if callable(law) else lambda n: Schedule.flow(law, n, train_steps=1.0)
    transformer = randomized(DiT(config))
    named, given = (
        _images(FreePipeline(transformer, None, scheduler), num_inference_steps=6)
        for scheduler in (law, made)
    )
    assert torch.equal(named, given)
    assert named.isfinite().all()


def test_setting_the_scheduler(root: Path) -> None:
    pipe = FreePipeline.from_pretrained(root)
    pipe.scheduler = diffusers.DDPMScheduler.from_config(
        pipe.scheduler.config, timestep_spacing="trailing"
    )
    trailing = {"clip_sample": False, "timestep_spacing": "trailing"}
    _same(_images(pipe), _expected(scheduler=trailing))
    pipe.scheduler = "ddpm"
    _same(_images(pipe), _expected())
    for name in ("DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"):
        with pytest.raises(ValueError, match=f"got {name}.* for the same .* law='ddpm', .*NAME"):
            pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match="variance_type='learned', which cannot be speculated"):
        pipe.scheduler = diffusers.DDPMScheduler(variance_type="learned")
    _same(_images(pipe), _expected())  # what was refused has changed nothing
    # Words of other schedulers, which from_config keeps and DDPM does not read.
    ddim = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="linspace")
    pipe.scheduler = diffusers.DDPMScheduler.from_config(ddim.config)
    _same(_images(pipe), _expected())


@pytest.mark.parametrize(
    ("scheduler", "error", "message"),
    [
        ("pndm", ValueError, "scheduler must be one of 'ddpm', 'ddim', .* got 'pndm'"),
        (5, TypeError, "scheduler must be one of 'ddpm', .* a scheduler of diffusers .* got 5"),
        (Schedule, TypeError, "scheduler must be one of 'ddpm', 'ddim', "),
        (Schedule.ddpm(9), ValueError, "num_inference_steps must be the 9 steps .* got 4"),
        (lambda steps: steps, TypeError, "scheduler must return a Schedule, got int"),
    ],
)
def test_what_is_no_scheduler(scheduler: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        _expected(scheduler=scheduler)


def _assert_round_trip(pipe: FreePipeline, folder: Path) -> FreePipeline:
    pipe.save_pretrained(folder)
    again = FreePipeline.from_pretrained(folder)
    assert again.sampling == pipe.sampling
    assert again.labels == pipe.labels
    assert again.cfg_channels == pipe.cfg_channels
    assert type(again.drafter) is type(pipe.drafter)
    assert again.scheduler.to_json_string() == pipe.scheduler.to_json_string()
    assert torch.equal(_images(again), _images(pipe))
    return again


def test_save_and_load(tmp_path: Path) -> None:
    pipe = FreePipeline(
        tiny_dit(), tiny_vae(scaling_factor=0.3), id2label={0: "a, b", 5: "c"}, cfg_channels=3
    )
    pipe.scheduler = {"clip_sample": False, "timestep_spacing": "trailing"}
    pipe.sampling["window"] = 3
    again = _assert_round_trip(pipe, tmp_path / "saved")
    assert again.labels == {"a": 0, "b": 0, "c": 5}
    assert FreePipeline.from_pretrained(tmp_path / "saved", cfg_channels=2).cfg_channels == 2
    teacher, drafter = load_pretrained(tmp_path / "saved")  # a bundle
    assert teacher.config == CONFIG
    assert isinstance(drafter, FrozenDrafter)
    # Nothing of what was there before comes back.
    trained = FeatureDrafter(
        randomized(DrafterNet(CONFIG)), pipe.transformer, {"window": 4, "sweeps": 1}
    )
    other = FreePipeline(pipe.transformer, tiny_vae(), drafter=trained)
    again = _assert_round_trip(other, tmp_path / "saved")
    assert again.sampling == {"window": 4, "sweeps": 1}
    assert len(again.labels) > 1000
    third = _assert_round_trip(FreePipeline(tiny_dit(), tiny_vae()), tmp_path / "saved")
    assert third.sampling == FrozenDrafter().sampling
    pixels = FreePipeline.from_pretrained("mnist")
    pixels.save_pretrained(tmp_path / "saved")
    again = FreePipeline.from_pretrained(tmp_path / "saved")
    assert again.vae is None
    assert torch.equal(_images(again), _images(pixels))


def test_another_drafter_brings_its_own_settings(tmp_path: Path) -> None:
    pipe = FreePipeline(tiny_dit(), tiny_vae())
    pipe.sampling["window"] = 3
    pipe.save_pretrained(tmp_path / "saved")
    network = randomized(DrafterNet(CONFIG))
    network.save_pretrained(tmp_path / "drafter", sampling={"window": 5})
    again = FreePipeline.from_pretrained(tmp_path / "saved", drafter=tmp_path / "drafter")
    assert isinstance(again.drafter, FeatureDrafter)
    assert again.sampling == {"window": 5}
    given = FreePipeline.from_pretrained(tmp_path / "saved", drafter=again.drafter)
    assert given.drafter is again.drafter
    assert isinstance(
        FreePipeline.from_pretrained(tmp_path / "saved", drafter="frozen").drafter, FrozenDrafter
    )


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("transformer", MixtureTeacher(4), "transformer must be a DiT to be saved, got Mixture"),
        ("drafter", CallableDrafter(None), "drafter must be a FeatureDrafter or FrozenDrafter"),
        ("drafter", FrozenDrafter("eps"), "drafter must be a FeatureDrafter or FrozenDrafter"),
        ("scheduler", Schedule.ddpm(4), "scheduler must be one of diffusers to be saved, got Sch"),
    ],
)
def test_what_cannot_be_saved(part: str, value: Any, message: str, tmp_path: Path) -> None:
    pipe = FreePipeline(tiny_dit(), tiny_vae())
    setattr(pipe, part, value)
    with pytest.raises(ValueError, match=message):
        pipe.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("model_index.json", "{", "model_index.json is missing or malformed"),
        ("model_index.json", "[1]", "model_index.json is missing or malformed: got list"),
        ("model_index.json", '{"_free": 5}', "_free in .*model_index.json must be an object .* 5"),
        ("model_index.json", '{"_free": {"sampling": 5}}', "must be an object with settings, got"),
        ("scheduler/scheduler_config.json", "[" * 100_000, "scheduler_config.json is .*64 deep"),
        ("scheduler/scheduler_config.json", "<html>", "scheduler_config.json is missing or malf"),
        ("vae/config.json", "{}", "vae must be a diffusers folder with the config.json"),
    ],
)
def test_damaged_folders_are_refused(root: Path, path: str, content: str, message: str) -> None:
    (root / path).write_text(content)
    with pytest.raises(ValueError, match=message):
        FreePipeline.from_pretrained(root)


def test_missing_folders_are_refused(root: Path) -> None:
    shutil.rmtree(root / "vae")
    with pytest.raises(ValueError, match="vae must be a diffusers folder .* got '.*root'"):
        FreePipeline.from_pretrained(root)  # whose index promises one
    with pytest.raises(ValueError, match="source must be a checkpoint's file or folder"):
        FreePipeline.from_pretrained(root / "absent")
