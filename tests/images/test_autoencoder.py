"""Latents: scale, slices, precision, and VAEs that are not what they should be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from free.images.autoencoder import LatentCoder, PixelCoder, load_autoencoder
from tests.pipelines import tiny_vae

IMAGES = torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
WEIGHTS = "diffusion_pytorch_model.safetensors"


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


@pytest.mark.parametrize(("scale", "shift"), [(0.18215, None), (0.5, 0.25)])
def test_scale_and_shift_are_those_of_the_config(scale: float, shift: float | None) -> None:
    vae = tiny_vae(scaling_factor=scale, shift_factor=shift)
    coder = LatentCoder(vae)
    posterior = vae.encode(IMAGES).latent_dist
    latents = coder.encode(IMAGES)
    assert latents.shape == (3, 4, 2, 3)
    torch.testing.assert_close(latents, (posterior.mean - (shift or 0)) * scale)
    expected = vae.decode(posterior.mean).sample
    torch.testing.assert_close(coder.decode(latents), expected, rtol=1e-4, atol=1e-4)


def test_the_default_scale() -> None:
    assert LatentCoder(tiny_vae()).scale == 0.18215


def test_a_generator_draws_from_the_posterior() -> None:
    vae = tiny_vae()
    posterior = vae.encode(IMAGES).latent_dist
    drawn = [
        LatentCoder(vae, slice_size).encode(IMAGES, torch.Generator().manual_seed(5))
        for slice_size in (1, 2, 3)
    ]
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(5))
    expected = 0.18215 * (posterior.mean + posterior.std * noise)
    for latents in drawn:
        torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)
    assert (expected - LatentCoder(vae).encode(IMAGES)).abs().max() > 0.01


def test_slices_bound_the_batch_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = tiny_vae()
    latents = torch.randn(5, 4, 2, 2)
    whole = LatentCoder(vae, 5).decode(latents)
    sizes = []
    decode = vae.decode

    def watched(z: torch.Tensor) -> object:
        sizes.append(len(z))
        return decode(z)

    monkeypatch.setattr(vae, "decode", watched)
    for slice_size, expected in ((1, [1] * 5), (2, [2, 2, 1]), (7, [5])):
        sizes.clear()
        images = LatentCoder(vae, slice_size).decode(latents)
        assert sizes == expected
        torch.testing.assert_close(images, whole, rtol=1e-4, atol=1e-5)


def test_float16_is_decoded_in_float32_where_the_config_asks_for_it() -> None:
    latents = torch.randn(1, 4, 2, 2)
    halved = tiny_vae(force_upcast=True).half()
    expected = LatentCoder(tiny_vae().half().float()).decode(latents)
    torch.testing.assert_close(LatentCoder(halved).decode(latents), expected, rtol=0, atol=0)
    assert halved.dtype is torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_precisions_are_kept(dtype: torch.dtype) -> None:
    vae = tiny_vae(force_upcast=False).to(dtype)
    images = LatentCoder(vae).decode(torch.randn(1, 4, 2, 2))
    assert vae.dtype is dtype
    assert images.dtype is torch.float32


@pytest.mark.parametrize("source", ["", "vae"])
def test_it_is_loaded_from_its_folder_or_the_one_above(saved: Path, source: str) -> None:
    latents = torch.randn(2, 4, 2, 2)
    coder = load_autoencoder(saved / source)
    torch.testing.assert_close(
        coder.decode(latents), LatentCoder(tiny_vae()).decode(latents), rtol=0, atol=0
    )


def test_dtype_at_load_gives_way_to_the_config(saved: Path) -> None:
    assert load_autoencoder(saved, dtype=torch.float16).vae.dtype is torch.float32
    assert load_autoencoder(saved, dtype=torch.bfloat16).vae.dtype is torch.bfloat16
    tiny_vae(force_upcast=False).save_pretrained(saved / "other")
    assert load_autoencoder(saved / "other", dtype=torch.float16).vae.dtype is torch.float16


def test_non_finite_images_are_named() -> None:
    latents = torch.randn(3, 4, 2, 2)
    latents[1] = torch.nan
    with pytest.raises(FloatingPointError, match=r"vae returned non-finite .* samples \[1\]"):
        LatentCoder(tiny_vae()).decode(latents)


@pytest.mark.parametrize("shape", [(3, 3, 16, 20), (3, 1, 16, 16), (3, 16, 16)])
def test_images_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images must be \[R, 3, H, W\] with H and W multiples"):
        LatentCoder(tiny_vae()).encode(torch.zeros(shape))


def test_latents_of_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latent channels of the samples, \[3, 2, 2\], got 4"):
        LatentCoder(tiny_vae()).decode(torch.zeros(1, 3, 2, 2))


def test_what_is_no_vae_is_refused() -> None:
    with pytest.raises(TypeError, match="vae must be an AutoencoderKL, got Linear"):
        LatentCoder(torch.nn.Linear(2, 2))
    for wrong in (0, 1.0, True):
        with pytest.raises(ValueError, match="slice_size must be an integer >= 1, got"):
            LatentCoder(tiny_vae(), wrong)
    with pytest.raises(ValueError, match="got one with latents_mean"):
        LatentCoder(tiny_vae(latents_mean=[0.0] * 4, latents_std=[1.0] * 4))


def _truncated(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def _html(folder: Path) -> None:
    (folder / WEIGHTS).write_text("<!doctype html><title>404</title>")


def _without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def _without_a_key(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    del state["decoder.conv_in.weight"]
    save_file(state, folder / WEIGHTS)


def _with_a_key(folder: Path) -> None:
    save_file({**load_file(folder / WEIGHTS), "extra": torch.zeros(1)}, folder / WEIGHTS)


def _of_another_shape(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    save_file({**state, "decoder.conv_in.weight": torch.zeros(2, 2)}, folder / WEIGHTS)


def _of_another_class(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_class_name": "AutoencoderTiny"}))


def _without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _planted(folder: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (folder / "executed",))

    (folder / WEIGHTS).unlink()
    torch.save({"conv": Planted()}, folder / "diffusion_pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncated, "is missing, truncated or damaged"),
        (_html, "is missing, truncated or damaged"),
        (_without_weights, "is missing, truncated or damaged"),
        (_planted, "is missing, truncated or damaged"),
        (_of_another_shape, "is missing, truncated or damaged: .*"),
        (_without_a_key, "does not fit its config.json: missing decoder.conv_in.weight"),
        (_with_a_key, "does not fit its config.json: unexpected extra"),
        (_of_another_class, "vae must be an AutoencoderKL, got AutoencoderTiny in"),
        (
            _without_config,
            "vae must be a diffusers folder with the config.json of an AutoencoderKL",
        ),
    ],
)
def test_damaged_folders_are_refused(saved: Path, damage: object, message: str) -> None:
    damage(saved / "vae")
    with pytest.raises(ValueError, match=message):
        load_autoencoder(saved)
    assert not (saved / "vae" / "executed").exists()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vae must be a diffusers folder .* got '.*absent'"):
        load_autoencoder(tmp_path / "absent")


def test_without_diffusers_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["diffusers"] = None
from free.images.autoencoder import load_autoencoder
load_autoencoder(None)
try:
    load_autoencoder("somewhere")
except ImportError as error:
    assert "pip install 'free-dit[diffusers]'" in str(error), error
else:
    raise AssertionError("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
