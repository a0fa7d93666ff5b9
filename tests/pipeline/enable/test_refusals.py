"""What calls of enabled pipelines refuse: each is planted, or asked for, and must be found."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import free
import free.pipeline.enable.driver
from free.pipeline.tiny import TINY
from tests.pipeline.enable.pipelines import SD, enabled, tiny


class MixesRows(nn.Module):
    """Batch normalisation by the statistics of the rows that are asked about together."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        x = self.inner(*args, **kwargs)
        return x + 0.02 * x.mean(0, keepdim=True)


class Forgets(MixesRows):
    """Dropout that was left on."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return nn.functional.dropout(self.inner(*args, **kwargs), 0.01, training=True)


@pytest.mark.parametrize(
    ("planted", "match"),
    [
        (MixesRows, "SD3Transformer2DModel must say the same of a state alone .*free.disable"),
        (Forgets, "SD3Transformer2DModel must say the same when it is asked the same"),
    ],
)
def test_networks_that_are_no_function_of_a_row_are_refused(planted: Any, match: str) -> None:
    pipe, arguments = enabled()
    pipe.transformer.proj_out = planted(pipe.transformer.proj_out)
    with pytest.raises(ValueError, match=match):
        pipe(**arguments)


def test_a_network_in_training_is_looked_at_again() -> None:
    pipe, arguments = enabled()
    pipe.transformer.proj_out = nn.Sequential(pipe.transformer.proj_out, nn.Dropout(0.01)).eval()
    pipe(**arguments)
    pipe.transformer.proj_out.train()
    with pytest.raises(ValueError, match="must say the same when it is asked the same"):
        pipe(**arguments)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda embeds: embeds * 1.001, "encoder_hidden_states of .*DModel must not .*disable"),
        (
            lambda embeds: embeds.mul_(1.001),
            "SD3Transformer2DModel must not change .* written to.*disable",
        ),
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_conditioning_that_changes_is_refused_by_name(
    change: Any, match: str, inference: bool
) -> None:
    pipe, arguments = enabled()

    def callback(pipe: Any, step: int, timestep: Tensor, given: dict[str, Tensor]) -> Any:
        return given | {"prompt_embeds": change(given["prompt_embeds"])}

    names = ["latents", "prompt_embeds"]
    with pytest.raises(ValueError, match=match), torch.inference_mode(inference):
        pipe(
            **arguments,
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=names,
        )


@pytest.mark.parametrize(("start", "how"), [(0.3, "more"), (-0.1, "fewer"), (0.6, "more")])
def test_guidance_that_is_switched_on_or_off_is_refused(
    start: float, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the count of the steps, of which there are more than rounds; whatever it is called."""
    monkeypatch.setattr(free.pipeline.enable.driver, "refuse_scheduled", lambda *_: None)
    pipe, arguments = enabled(steps=30, window=8, law="flow-sde")
    interval = {"skip_layer_guidance_start": start, "skip_layer_guidance_stop": start + 0.2}
    with pytest.raises(ValueError, match=f"equally often .* got {how} calls.*free.disable"):
        pipe(**arguments, skip_guidance_layers=[0], **interval)


def _over_the_batch(cfg: Tensor, text: Tensor, guidance_rescale: float) -> Tensor:
    """Rescaled by a statistic of the whole batch, not of each row."""
    return cfg * text.std() / cfg.std()


def _by_the_call() -> Callable[..., Tensor]:
    """Another scale in every step, as a schedule of guidance has it."""
    calls = [0]

    def rescale(cfg: Tensor, text: Tensor, guidance_rescale: float) -> Tensor:
        calls[0] += 1
        return cfg * (1.0 + 0.01 * calls[0])

    return rescale


@pytest.mark.parametrize("planted", [_over_the_batch, _by_the_call()])
def test_guidance_that_is_not_row_by_row_is_refused(planted: Any, monkeypatch: Any) -> None:
    from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion as module

    pipe, arguments = enabled(SD)
    pipe(**arguments, guidance_rescale=0.7)  # diffusers' own is
    monkeypatch.setattr(module, "rescale_noise_cfg", planted)
    with pytest.raises(ValueError, match="StableDiffusionPipeline must make its prediction"):
        pipe(**arguments, guidance_rescale=0.7)


def test_steps_that_are_asked_for_more_are_refused() -> None:
    pipe, arguments = enabled()
    step = pipe.scheduler.step
    pipe.scheduler.step = lambda *given, **words: step(*given, **words, s_churn=0.5)
    with pytest.raises(ValueError, match="s_churn must be left out of the step .* got 0.5"):
        pipe(**arguments)


def test_inpainting_is_refused() -> None:
    pipe, arguments, _ = TINY["StableDiffusionInpaintPipeline"](1)
    free.enable(pipe, 4, law="ddpm")
    with pytest.raises(
        ValueError, match="must loop over scheduler.timesteps as they are.*free.disable"
    ):
        pipe(**arguments)


def test_a_network_that_caches_is_refused() -> None:
    from diffusers import FirstBlockCacheConfig

    pipe, arguments = enabled("FluxPipeline")
    pipe.transformer.enable_cache(FirstBlockCacheConfig())
    with pytest.raises(
        ValueError, match=r"FluxTransformer2DModel must not cache.*disable_cache\(\)"
    ):
        pipe(**arguments)


def test_another_network_must_be_enabled_again() -> None:
    pipe, arguments = enabled()
    pipe.transformer = tiny()[0].transformer
    with pytest.raises(ValueError, match="must have the network that it had when it was enabled"):
        pipe(**arguments)
    free.enable(pipe, 4, law="renoise")
    pipe(**arguments)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_callback_that_changes_latents_is_refused(in_place: bool) -> None:
    pipe, arguments = enabled()

    def callback(pipe: Any, step: int, timestep: Tensor, given: dict[str, Tensor]) -> Any:
        latents = given["latents"]
        given["latents"] = latents.mul_(1.01) if in_place else latents * 1.01
        return given

    with pytest.raises(
        ValueError,
        match="hidden_states of SD3Transformer2DModel must be the latents .*free.disable",
    ):
        pipe(**arguments, callback_on_step_end=callback)
    pipe(**arguments)  # the next call begins anew
