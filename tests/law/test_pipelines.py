"""The law of enabled pipelines is that of their own loops.

Four pipelines draw 2,000 latents each by their own scheduler, which is stochastic, step by step,
and as many enabled, all with one prompt: tiny networks that say something else at every state and
time, guided. A dozen coordinates, and a dozen random directions, are compared by a
Kolmogorov-Smirnov test. Measured: a shift of one of them by .15 / .2 / .25 standard deviations is
found in 46 / 92 / 99 % of the runs, 1.3 times its width in 73 %. The planted bugs move many.
"""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers

import free
import free.rounds.round
from free.pipeline.enable.recognise import Recognised
from free.pipeline.tiny import TINY
from free.pipeline.tiny.record import network
from tests.law import planted
from tests.law.stats import ks_two_sample

SAMPLES, STEPS, LOOKS = 2000, 8, 12
#: In all, with four pipelines, some false alarms in a thousand suites.
LEVEL = 1e-3


def _many(name: str, scheduler: dict[str, Any], side: int) -> tuple[Any, dict[str, Any]]:
    """One prompt, many latents of 4 x 2 x 2, all from the same noise: steps make the difference.

    ``scheduler`` is the class's name and what is changed in the pipeline's configuration.
    """
    pipe, arguments, _ = TINY[name](1)
    kind = getattr(diffusers, scheduler.pop("kind"))
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **scheduler)
    latents = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    many = {"latents": latents, **arguments}
    for key, value in many.items():
        if isinstance(value, Tensor):
            many[key] = value.expand(SAMPLES, *value.shape[1:]).clone()
    return pipe, many | {"height": side, "width": side}


def _stable_diffusion_3() -> tuple[Any, dict[str, Any]]:
    flow = {"kind": "FlowMatchEulerDiscreteScheduler", "stochastic_sampling": True}
    return _many("StableDiffusion3Pipeline", flow, 16)


def _stable_diffusion() -> tuple[Any, dict[str, Any]]:
    """Fractional timesteps, and a network that is given scaled states."""
    return _many("StableDiffusionPipeline", {"kind": "EulerAncestralDiscreteScheduler"}, 16)


def _sana() -> tuple[Any, dict[str, Any]]:
    """A step that depends on the image predicted before."""
    sde = {"kind": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}
    return _many("SanaPipeline", sde, 64)


def _dit() -> tuple[Any, dict[str, Any]]:
    pipe, arguments, _ = TINY["DiTPipeline"](1)
    pipe.scheduler = diffusers.DDPMScheduler(clip_sample=False)
    pipe.transformer = network(
        "DiTTransformer2DModel",
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        sample_size=4,
        in_channels=1,
        out_channels=2,
    )
    pipe.vae = Latents()
    return pipe, arguments | {"class_labels": [3] * SAMPLES, "guidance_scale": 2.0}


class Latents:
    """A VAE whose pictures are the latents."""

    config = type("Config", (), {"scaling_factor": 1.0})

    def decode(self, latents: Tensor) -> Any:
        return type("Output", (), {"sample": latents / 8})


PIPELINES = {
    "StableDiffusion3Pipeline": _stable_diffusion_3,
    "DiTPipeline": _dit,
    "StableDiffusionPipeline": _stable_diffusion,
    "SanaPipeline": _sana,
}


def _draw(name: str, seed: int, **settings: Any) -> Tensor:
    """Latents [SAMPLES, D], step by step or enabled with these settings."""
    pipe, arguments = PIPELINES[name]()
    if settings:
        free.enable(pipe, **settings)
    torch.manual_seed(1000 + seed)  # else steps would draw what the latents were drawn from
    generator = torch.Generator().manual_seed(seed)
    drawn = pipe(**arguments | {"num_inference_steps": STEPS}, generator=generator)[0]
    if settings:
        report = free.summary(pipe).report
        assert report.accepted > 0.1 * report.proposed  # else nothing is tested
    return torch.as_tensor(drawn).flatten(1).double()


@functools.cache
def _plain(name: str) -> Tensor:
    return _draw(name, 1)


def _p(drawn: Tensor, plain: Tensor) -> float:
    """The smallest p of all looks, times how many they are."""
    D = plain.shape[1]
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(D, LOOKS, generator=generator, dtype=torch.float64) / D**0.5
    coordinates = torch.randperm(D, generator=generator)[:LOOKS]
    p = [
        ks_two_sample(one, other)
        for columns in (lambda x: x[:, coordinates], lambda x: x @ directions)
        for one, other in zip(columns(drawn).T, columns(plain).T, strict=True)
    ]
    return 2 * LOOKS * min(p)


@pytest.mark.parametrize("name", PIPELINES)
def test_the_law_is_that_of_the_pipeline(name: str) -> None:
    p = _p(_draw(name, 2, window=4), _plain(name))
    assert p > LEVEL, p


def _flat(verify: Callable[..., Any]) -> Callable[..., Any]:
    """A planted verifier, which knows vectors only, of latents."""

    def verified(*given: Tensor, **verifier: Any) -> Any:
        states, drafts, means, sigma, length, uniforms, noise = given
        flat = (part.flatten(2) for part in (states, drafts, means))
        found = verify(*flat, sigma, length, uniforms, noise.flatten(1), **verifier)
        return (found[0].view_as(states[:, 0]), *found[1:])

    return verified


@pytest.mark.parametrize(
    "bug", [planted.always_accepts, planted.does_not_reflect, planted.wrong_sign]
)
def test_planted_bugs_of_the_verifier_are_found(bug: Any, monkeypatch: Any) -> None:
    name = "StableDiffusion3Pipeline"
    monkeypatch.setattr(free.rounds.round, "verify_window", _flat(planted.planted(bug)))
    assert _p(_draw(name, 2, window=4), _plain(name)) < LEVEL


def test_predictions_of_other_rows_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Recognised.split

    def wrong(self: Recognised, *given: Any) -> tuple[Tensor, Tensor]:
        rows, again = split(self, *given)
        return rows.roll(1, 0), again

    name = "StableDiffusion3Pipeline"
    monkeypatch.setattr(Recognised, "split", wrong)
    assert _p(_draw(name, 2, window=4), _plain(name)) < LEVEL
