"""Parts of a pipeline: what is taken, what is adopted, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from free import DrafterNet, FreePipeline, FrozenDrafter  # noqa: E402
from tests.pipelines import (  # noqa: E402
    CONFIG,
    generator,
    latents,
    pipeline,
    tiny_dit,
    tiny_dit_pipeline,
    tiny_vae,
)


def test_the_components_of_a_dit_pipeline(tmp_path: Path) -> None:
    theirs = tiny_dit_pipeline(tmp_path)
    pipe = FreePipeline(**theirs.components)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.transformer.config == CONFIG
    assert pipe.vae is theirs.vae
    expected = FreePipeline.from_pipe(theirs)
    expected.set_progress_bar_config(disable=True)
    assert torch.equal(latents(pipe).images, latents(expected).images)
    pipe.transformer = torch.compile(theirs.transformer, backend="eager")  # adopted as well
    assert torch.equal(latents(pipe).images, latents(expected).images)


def test_a_compiled_transformer_is_saved(tmp_path: Path) -> None:
    pipe, expected = pipeline(), latents(pipeline()).images
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    pipe.save_pretrained(tmp_path)
    again = FreePipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert torch.equal(latents(again).images, expected)


@pytest.mark.parametrize(
    ("part", "value", "error", "message"),
    [
        ("transformer", 5, TypeError, "transformer must be a DiT, a DiTTransformer2DM.* got int"),
        ("transformer", torch.nn.Linear(2, 2), TypeError, "with sample_shape, got Linear"),
        ("drafter", 5, TypeError, "drafter must be 'frozen', where one is saved, .* got 5"),
        ("drafter", DrafterNet(CONFIG), TypeError, "got DrafterNet, a network: .*FeatureDrafter"),
        ("drafter", FrozenDrafter, TypeError, "drafter must be 'frozen', where one is saved"),
        ("vae", tiny_vae(latent_channels=3), ValueError, "vae must have the latent channels"),
        ("vae", 5, TypeError, "vae must be an AutoencoderKL, got int"),
    ],
)
def test_what_is_no_part(part: str, value: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        FreePipeline(**{"transformer": tiny_dit(), part: value})
    pipe = pipeline()
    before = pipe.components
    assert list(before) == ["transformer", "vae", "scheduler", "drafter"]
    with pytest.raises(error, match=message):
        setattr(pipe, part, value)
    assert pipe.components == before  # what was refused has changed nothing


def test_torch_dtype_is_dtype() -> None:
    assert pipeline().to("cpu", torch_dtype=torch.bfloat16).dtype is torch.bfloat16
    with pytest.raises(ValueError, match="dtype must be given once, got torch.float16 and torch"):
        pipeline().to(dtype=torch.float16, torch_dtype=torch.float16)
    assert pipeline().to(torch.float16, silence_dtype_warnings=True).dtype is torch.float16
    with pytest.raises(TypeError, match=r"^FreePipeline.to got unexpected arguments foo$"):
        pipeline().to(foo=1)


def test_vae_slicing_is_what_it_does() -> None:
    pipe = pipeline()
    pipe.coder.slice_size = 2
    pipe.enable_vae_slicing()
    assert pipe.coder.slice_size == 1
    assert pipe(0, num_inference_steps=1, generator=generator()).images


def test_levels_that_were_set_by_hand_are_followed() -> None:
    """They are not in the configuration, but in what the scheduler steps by."""
    scheduler = diffusers.DDPMScheduler(clip_sample=False, timestep_spacing="linspace")
    pipe = pipeline(scheduler=scheduler)
    scheduler.set_timesteps(5)  # as DiTPipeline does
    before = latents(pipe).images
    trained = diffusers.DDPMScheduler.from_config(
        scheduler.config, trained_betas=(0.9 * scheduler.betas).tolist()
    )
    other = latents(pipeline(scheduler=trained)).images
    assert (other - before).abs().max() > 1e-3
    scheduler.alphas_cumprod = trained.alphas_cumprod
    torch.testing.assert_close(latents(pipe).images, other, rtol=1e-3, atol=1e-3)
