"""Latents: scale, slices, precision, and VAEs that are not what they should be."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from free.images.autoencoder import LatentCoder, PixelCoder, load_autoencoder
from tests.models.checkpoints.files import Planted
from tests.pipelines import tiny_vae

IMAGES = torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
LATENTS = torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(2))
WEIGHTS, KEY = "diffusion_pytorch_model.safetensors", "decoder.conv_in.weight"
DAMAGED = "is missing, truncated or damaged"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tiny_vae().save_pretrained(tmp_path / "vae")
    return tmp_path


def test_pixels_are_their_own_latents() -> None:
    coder = load_autoencoder(None)
    assert isinstance(coder, PixelCoder)
    assert coder.to("cpu") is coder
    torch.testing.assert_close(coder.decode(coder.encode(IMAGES)), IMAGES, rtol=0, atol=0)
    coder.require_fit((3, 8, 8))
    with pytest.raises(ValueError, match=r"vae must be given for samples of shape \[4, 8, 8\]"):
        coder.require_fit((4, 8, 8))


@pytest.mark.parametrize(("scale", "shift"), [(None, None), (0.5, 0.25)])
def test_scale_and_shift_are_those_of_the_config(scale: float | None, shift: float | None) -> None:
    vae = tiny_vae(**{} if scale is None else {"scaling_factor": scale, "shift_factor": shift})
    coder = LatentCoder(vae)
    posterior = vae.encode(IMAGES).latent_dist
    latents = coder.encode(IMAGES)
    assert latents.shape == (3, 4, 2, 3)
    torch.testing.assert_close(latents, (posterior.mean - (shift or 0)) * (scale or 0.18215))
    expected = vae.decode(posterior.mean).sample
    torch.testing.assert_close(coder.decode(latents), expected, rtol=1e-4, atol=1e-4)


def test_a_generator_draws_from_the_posterior() -> None:
    vae = tiny_vae()
    posterior = vae.encode(IMAGES).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(5))
    expected = 0.18215 * (posterior.mean + posterior.std * noise)
    for slice_size in (1, 2, 3):
        latents = LatentCoder(vae, slice_size).encode(IMAGES, torch.Generator().manual_seed(5))
        torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)
    assert (expected - LatentCoder(vae).encode(IMAGES)).abs().max() > 0.01


def test_slices_bound_the_batch_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vae, latents, sizes = tiny_vae(), torch.randn(5, 4, 2, 2), []
    whole, decode = LatentCoder(vae, 5).decode(latents), vae.decode
    monkeypatch.setattr(vae, "decode", lambda z: sizes.append(len(z)) or decode(z))
    for slice_size, expected in ((1, [1] * 5), (2, [2, 2, 1]), (7, [5])):
        sizes.clear()
        images = LatentCoder(vae, slice_size).decode(latents)
        assert sizes == expected
        torch.testing.assert_close(images, whole, rtol=1e-4, atol=1e-5)


def test_precision() -> None:
    """It is kept, but that float16 is decoded in float32 where the configuration asks for it."""
    halved = tiny_vae(force_upcast=True).half()
    expected = LatentCoder(tiny_vae().half().float()).decode(LATENTS)
    torch.testing.assert_close(LatentCoder(halved).decode(LATENTS), expected, rtol=0, atol=0)
    assert halved.dtype is torch.float32
    for dtype in (torch.float16, torch.bfloat16):
        vae = tiny_vae(force_upcast=False).to(dtype)
        assert LatentCoder(vae).decode(LATENTS).dtype is torch.float32
        assert vae.dtype is dtype


def test_it_is_loaded_from_its_folder_or_the_one_above(saved: Path) -> None:
    expected = LatentCoder(tiny_vae()).decode(LATENTS)
    for source in (saved, saved / "vae"):
        images = load_autoencoder(source).decode(LATENTS)
        torch.testing.assert_close(images, expected, rtol=0, atol=0)
    assert load_autoencoder(saved, dtype=torch.float16).vae.dtype is torch.float32
    assert load_autoencoder(saved, dtype=torch.bfloat16).vae.dtype is torch.bfloat16
    tiny_vae(force_upcast=False).save_pretrained(saved / "other")
    assert load_autoencoder(saved / "other", dtype=torch.float16).vae.dtype is torch.float16


def test_what_does_not_fit_is_refused() -> None:
    coder = LatentCoder(tiny_vae())
    for shape in ((3, 3, 16, 20), (3, 1, 16, 16), (3, 16, 16)):
        with pytest.raises(ValueError, match=r"images must be \[R, 3, H, W\] with H and W multi"):
            coder.encode(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"noise must have the latents' shape .* got \[4, 2, 3\]"):
        coder.encode(IMAGES, noise=torch.zeros(4, 2, 3))
    with pytest.raises(ValueError, match=r"latent channels of the samples, \[3, 2, 2\], got 4"):
        coder.decode(torch.zeros(1, 3, 2, 2))
    latents = torch.stack([LATENTS[0], torch.full_like(LATENTS[0], torch.nan), LATENTS[1]])
    with pytest.raises(FloatingPointError, match=r"vae returned non-finite .* samples \[1\]"):
        coder.decode(latents)


def test_what_is_no_vae_is_refused() -> None:
    with pytest.raises(TypeError, match="vae must be an AutoencoderKL, got Linear"):
        LatentCoder(torch.nn.Linear(2, 2))
    for wrong in (0, 1.0, True):
        with pytest.raises(ValueError, match="slice_size must be an integer >= 1, got"):
            LatentCoder(tiny_vae(), wrong)
    with pytest.raises(ValueError, match="got one with latents_mean"):
        LatentCoder(tiny_vae(latents_mean=[0.0] * 4, latents_std=[1.0] * 4))


def _state(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Other tensors in the weights' file."""

    def damage(folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        change(state)
        save_file(state, folder / WEIGHTS)

    return damage


def _of_another_class(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_class_name": "AutoencoderTiny"}))


def _planted(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"conv": Planted(folder / "executed")}, folder / "diffusion_pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: os.truncate(folder / WEIGHTS, 9000), DAMAGED),
        (lambda folder: (folder / WEIGHTS).unlink(), DAMAGED),
        (_planted, DAMAGED),
        (_state(lambda state: state.update({KEY: torch.zeros(2, 2)})), f"{DAMAGED}: .*"),
        (_state(lambda state: state.pop(KEY)), f"does not fit its config.json: missing {KEY}"),
        (_state(lambda state: state.update(extra=torch.zeros(1))), "config.json: unexpected extra"),
        (_of_another_class, "vae must be an AutoencoderKL, got AutoencoderTiny in"),
        (
            lambda folder: (folder / "config.json").unlink(),
            "vae must be a diffusers folder with the config.json of an .* got '.*test_damaged",
        ),
    ],
)
def test_damaged_folders_are_refused(saved, damage, message) -> None:
    damage(saved / "vae")
    with pytest.raises(ValueError, match=message):
        load_autoencoder(saved)
    assert not (saved / "vae" / "executed").exists()


def test_without_diffusers_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    load_autoencoder(None)
    with pytest.raises(ImportError, match=r"pip install 'free-dit\[diffusers\]'"):
        load_autoencoder("somewhere")
