"""Enabling, disabling, and what a pipeline is meanwhile and afterwards."""

import copy
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers

import free
from free.pipeline.tiny import TINY
from tests.pipeline.enable.pipelines import (
    DDPM,
    DIT,
    SD,
    SD3,
    denoiser,
    enabled,
    law_for,
    seeded,
    tiny,
)


@pytest.mark.parametrize("name", [SD3, SD, DDPM])
def test_disabling_leaves_the_pipeline_as_it_was(name: str) -> None:
    pipe, arguments = tiny(name)

    def draw() -> Tensor:
        return torch.as_tensor(pipe(**arguments, generator=seeded(3))[0])

    plain = draw()
    before, config, scheduler = dict(vars(pipe)), dict(pipe.config), copy.deepcopy(pipe.scheduler)
    network = dict(vars(denoiser(pipe)))
    free.enable(pipe, 4, law=law_for(pipe))
    assert dict(pipe.config) == config
    drawn = draw()
    free.disable(pipe)
    free.disable(pipe)  # what is not enabled stays as it is

    assert _equal(vars(pipe.scheduler), vars(scheduler))  # although it had been asked for steps
    assert torch.equal(draw(), plain)
    assert not torch.equal(drawn, plain)
    assert list(vars(pipe)) == list(before)
    assert _equal(vars(pipe), before)
    assert dict(pipe.config) == config
    assert vars(denoiser(pipe)) == network


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return list(one) == list(other) and _equal(list(one.values()), list(other.values()))
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one is other or bool(np.all(np.asarray(one == other)))


def test_a_context_ends_where_it_began() -> None:
    pipe, arguments = tiny()
    real = pipe.scheduler
    with free.enabled(pipe, 4, law="renoise") as same:
        assert same is pipe
        assert pipe.scheduler is not real
    assert pipe.scheduler is real
    with pytest.raises(KeyError), free.enabled(pipe, 4, law="renoise"):
        raise KeyError
    assert pipe.scheduler is real
    free.enable(pipe, 6, law="renoise")
    outer = pipe.scheduler
    with free.enabled(pipe, 2, law="renoise"):
        pipe(**arguments)
        assert free.summary(pipe).report.proposed <= 12 * 2
    assert pipe.scheduler is outer
    pipe(**arguments)


def test_enabling_again_takes_the_new_settings() -> None:
    pipe, arguments = enabled(window=4)
    pipe(**arguments, generator=seeded(0))
    free.enable(pipe, 1, law="renoise")
    pipe(**arguments, generator=seeded(0))
    assert free.summary(pipe).rounds == 12
    with pytest.raises(ValueError, match="window must be"):
        free.enable(pipe, 0, law="renoise")
    pipe(**arguments)  # still as before
    free.disable(pipe)
    assert type(pipe.scheduler) is diffusers.FlowMatchEulerDiscreteScheduler


def test_the_scheduler_is_seen_as_it_is() -> None:
    pipe, arguments = enabled(SD)
    pipe.scheduler.set_timesteps(7)
    kind = type(TINY[SD](1).pipe.scheduler)
    assert isinstance(pipe.scheduler, kind)
    assert type(pipe.scheduler).__name__ == kind.__name__
    assert len(pipe.scheduler.timesteps) == 7
    assert type(pipe.scheduler.timesteps + 1) is torch.Tensor
    pipe(**arguments)


def test_what_is_saved_is_the_pipeline(tmp_path: Path) -> None:
    pipe, arguments = tiny(DDPM)
    pipe.save_pretrained(tmp_path / "plain")
    free.enable(pipe, 4, law="ddpm")
    pipe.save_pretrained(tmp_path / "enabled")
    for path in (tmp_path / "plain").rglob("*"):
        if path.is_file():
            other = tmp_path / "enabled" / path.relative_to(tmp_path / "plain")
            assert path.read_bytes() == other.read_bytes(), path.name
    loaded = diffusers.DDPMPipeline.from_pretrained(tmp_path / "enabled")
    loaded.set_progress_bar_config(disable=True)
    free.enable(loaded, 4, law="ddpm")
    one, other = (p(**arguments, generator=seeded(1))[0] for p in (pipe, loaded))
    assert torch.allclose(torch.as_tensor(one), torch.as_tensor(other), atol=1e-5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda part: _saved(part)])
def test_a_network_that_is_saved_or_copied_is_a_plain_one(copied: Any) -> None:
    pipe, arguments = enabled(DDPM)
    other = copied(denoiser(pipe))
    given = torch.randn(2, 3, 8, 8), torch.tensor([1, 5])
    with torch.no_grad():
        expected = denoiser(pipe)(*given).sample
        assert torch.equal(other(*given).sample, expected)
    pipe(**arguments)


def _saved(part: Any) -> Any:
    stream = io.BytesIO()
    torch.save(part, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


def test_parts_that_are_shared_are_those_of_one_pipeline() -> None:
    pipe, arguments = enabled(SD)
    other = diffusers.StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    assert other.config.scheduler == pipe.config.scheduler
    with pytest.raises(ValueError, match="scheduler belongs to an enabled StableDiffusionPipeline"):
        other(**arguments)
    with pytest.raises(ValueError, match="scheduler of its own .* got the PNDMScheduler"):
        free.enable(other, 4, law="ddpm")
    other.scheduler = type(other.scheduler).from_config(other.scheduler.config)  # as it says
    free.enable(other, 2, law="ddpm")
    other(**arguments)
    pipe(**arguments)
    assert free.summary(other).rounds > free.summary(pipe).rounds


def test_a_scheduler_that_is_built_like_that_of_an_enabled_pipeline_is_a_plain_one() -> None:
    pipe, arguments = enabled(SD)
    built = type(pipe.scheduler).from_config(pipe.scheduler.config, set_alpha_to_one=True)
    assert type(built) is diffusers.PNDMScheduler
    assert (built.config.set_alpha_to_one, len(built.alphas_cumprod)) == (True, 1000)
    pipe.scheduler = built
    pipe(**arguments)  # step by step


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pipe: _saved(pipe)])
def test_a_pipeline_that_is_copied_while_enabled_is_a_plain_one(copied: Any) -> None:
    pipe, arguments = enabled(steps=4)
    other = copied(pipe)
    assert type(other.scheduler) is diffusers.FlowMatchEulerDiscreteScheduler
    with pytest.raises(ValueError, match="pipe must be enabled"):
        free.summary(other)
    plain = tiny(steps=4)[0](**arguments, generator=seeded(0))[0]
    free.disable(other)
    assert torch.equal(other(**arguments, generator=seeded(0))[0], plain)
    free.enable(other, 2, law="renoise")
    free.enable(other, 4, law="renoise")
    assert torch.equal(
        other(**arguments, generator=seeded(0))[0], pipe(**arguments, generator=seeded(0))[0]
    )
    free.disable(other)
    assert torch.equal(other(**arguments, generator=seeded(0))[0], plain)


def test_threads_share_a_network() -> None:
    pipe, arguments = enabled(steps=4)
    drawn = pipe(**arguments, generator=seeded(0))[0]
    other = diffusers.StableDiffusion3Pipeline(
        **pipe.components | {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}
    )
    other.set_progress_bar_config(disable=True)
    plain = other(**arguments, generator=seeded(0))[0]
    found = []

    def meanwhile(pipe: Any, step: int, timestep: Tensor, given: dict[str, Tensor]) -> Any:
        with ThreadPoolExecutor(1) as thread:
            found.append(thread.submit(other, **arguments, generator=seeded(0)).result()[0])
        return given

    again = pipe(**arguments, generator=seeded(0), callback_on_step_end=meanwhile)[0]
    assert torch.equal(again, drawn)
    assert all(torch.equal(one, plain) for one in found)


def test_a_loop_by_hand_is_refused() -> None:
    pipe, arguments = enabled()
    pipe.scheduler.set_timesteps(4)
    x, timestep = torch.zeros(1, 4, 8, 8), next(rounds := iter(pipe.scheduler.timesteps))
    with pytest.raises(ValueError, match="got a step outside of its calls, by hand"):
        pipe.scheduler.step(x, timestep, x)
    rounds.close()
    pipe(**arguments)


def test_a_scheduler_that_is_set_meanwhile_stays() -> None:
    pipe, arguments = enabled()
    other = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0)
    pipe.scheduler = other
    pipe(**arguments)  # as it is
    with pytest.raises(
        ValueError, match=r"scheduler that it was enabled with.*enable\(pipe\) again"
    ):
        free.summary(pipe)
    free.disable(pipe)
    assert pipe.scheduler is other
    assert "progress_bar" not in vars(pipe)


@pytest.mark.parametrize("name", [DIT, SD3, SD])
def test_a_deterministic_law_is_refused_with_its_relatives(name: str) -> None:
    pipe, _ = tiny(name)
    kind = type(pipe.scheduler).__name__
    match = rf"must be a stochastic one.*got {kind}.*law='{law_for(pipe)}'"
    with pytest.raises(ValueError, match=match):
        free.enable(pipe)
    assert type(pipe.scheduler).__name__ == kind
    with pytest.raises(ValueError, match="law must be None or one of .* got 'ode'"):
        free.enable(pipe, law="ode")


def test_pipelines_that_cannot_be_speculated_are_refused_by_name() -> None:
    control = TINY["StableDiffusionControlNetPipeline"](1).pipe
    with pytest.raises(ValueError, match="without controlnet.*ControlNetPipeline: its residuals"):
        free.enable(control, law="ddpm")
    experts = TINY["WanPipeline, two experts"](1).pipe
    with pytest.raises(
        ValueError, match="without transformer_2.*WanPipeline: the pipeline changes"
    ):
        free.enable(experts, law="ddpm")
    pipe, _ = tiny()
    vars(pipe)["transformer"] = None
    with pytest.raises(ValueError, match="one network, transformer or unet, got .* with none"):
        free.enable(pipe, law="renoise")
    with pytest.raises(TypeError, match="pipe must be a pipeline of diffusers"):
        free.enable(denoiser(tiny()[0]))


def test_settings_are_checked_before_anything_is_changed() -> None:
    pipe, _ = tiny()
    real = pipe.scheduler
    for error, match, settings in (
        (TypeError, "takes the settings verifier, .* got graph", {"graph": True}),
        (ValueError, "recycle must be", {"recycle": "all"}),
        (ValueError, "verifier: expected", {"verifier": "none"}),
        (TypeError, "drafter must have", {"drafter": None}),
    ):
        with pytest.raises(error, match=match):
            free.enable(pipe, law="renoise", **settings)
    assert pipe.scheduler is real
    assert "progress_bar" not in vars(pipe)


def test_a_function_that_makes_no_schedule_is_refused_as_a_law() -> None:
    pipe, arguments = tiny()
    free.enable(pipe, 4, law=lambda steps: steps)
    with pytest.raises(TypeError, match="law must return a Schedule, got int"):
        pipe(**arguments)


def test_a_summary_needs_a_call() -> None:
    pipe, _ = tiny()
    with pytest.raises(ValueError, match=r"pipe must be enabled.*free.enable\(pipe\)"):
        free.summary(pipe)
    free.enable(pipe, law="renoise")
    with pytest.raises(ValueError, match="must have finished its last call since"):
        free.summary(pipe)
