"""Calls of enabled pipelines: rounds and what they ask, callbacks, generators, what is refused."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

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
    rows_asked,
    seeded,
    tiny,
)

FLUX = "FluxPipeline, true guidance"


@pytest.mark.parametrize("name", [DIT, SD3, SD, DDPM, FLUX, "ZImagePipeline"])
def test_fifty_steps_take_few_calls(name: str) -> None:
    law = "ddpm" if name in (DIT, SD, DDPM) else "flow-sde"
    pipe, arguments = enabled(name, 1, 50, window=8, law=law)
    asked = rows_asked(pipe)
    sample = pipe(**arguments, generator=seeded(0))[0]
    assert torch.as_tensor(sample).isfinite().all()
    summary = free.summary(pipe)
    calls = 2 if name == FLUX else 1
    assert summary.network_calls == len(asked) == calls * (summary.rounds + 2)
    assert summary.rounds + 2 <= 20
    assert (summary.steps, summary.samples) == (50, 1)
    first = len(asked)
    pipe(**arguments, generator=seeded(1))  # what was checked once is not checked again
    assert len(asked) - first == calls * free.summary(pipe).rounds


def test_windows_of_one_row_ask_what_the_plain_loop_asks() -> None:
    pipe, arguments = enabled(window=1)
    asked = rows_asked(pipe)
    pipe(**arguments, generator=seeded(0))
    assert free.summary(pipe).rounds == 12
    assert set(asked) == {4}  # two samples, with the prompt and without


@pytest.mark.parametrize("name", [SD3, SD, FLUX, "ZImagePipeline"])
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    pipe, both = enabled(name)
    pair = pipe(**both, generator=seeded(1, 2))[0]
    one = TINY[name](2).arguments
    alone = {key: value[1:] if _per_prompt(value) else value for key, value in one.items()}
    single = pipe(**alone | {"num_inference_steps": 12}, generator=seeded(2))[0]
    assert torch.allclose(single[0], pair[1], atol=1e-3, rtol=1e-3)
    assert torch.equal(pair, pipe(**both, generator=seeded(1, 2))[0])


def _per_prompt(value: Any) -> bool:
    return isinstance(value, (Tensor, list)) and len(value) == 2


def test_generators_are_seeds() -> None:
    pipe, arguments = enabled()

    def draw(generator: Any) -> Tensor:
        latents: Tensor = pipe(**arguments, generator=generator)[0]
        return latents

    assert torch.equal(draw(seeded(5)), draw(seeded(5)))
    assert not torch.equal(draw(seeded(5)), draw(seeded(6)))
    latents = torch.randn(2, 4, 8, 8)
    arguments["latents"] = latents
    torch.manual_seed(1)
    first = draw(None)
    torch.manual_seed(1)
    assert torch.equal(draw(None), first)
    assert not torch.equal(draw(None), first)  # the same latents, other noise
    # Windows that learn take other seeds for samples whose generators are in one state.
    free.enable(pipe, "auto", law="renoise")
    draw(seeded(5, 5))
    seeds = free.summary(pipe).report.seeds
    assert len(set(seeds)) == 2


@pytest.mark.parametrize("name", [SD3, SD, FLUX])
def test_outputs_and_precision(name: str) -> None:
    pipe, arguments = enabled(name)
    record = pipe(**arguments, generator=seeded(0))
    drawn, *_ = pipe(**arguments, generator=seeded(0), return_dict=False)
    assert torch.equal(record.images, drawn)
    assert drawn.dtype == torch.float32
    denoiser(pipe).to(torch.bfloat16)
    half = {key: _half(value) for key, value in arguments.items()}
    drawn = pipe(**half, generator=seeded(0))[0]
    assert drawn.dtype == torch.bfloat16
    error = (drawn.float() - record.images).norm() / record.images.norm()
    assert error < 0.05  # the same noise
    assert free.summary(pipe).rounds < 12


def _half(value: Any) -> Any:
    return value.bfloat16() if isinstance(value, Tensor) and value.is_floating_point() else value


@pytest.mark.parametrize("name", [SD3, SD, FLUX])
def test_a_callback_comes_once_a_round_with_the_states(name: str) -> None:
    pipe, arguments = enabled(name)
    seen: list[tuple[int, float, Tensor]] = []

    def callback(pipe: Any, step: int, timestep: Tensor, given: dict[str, Tensor]) -> Any:
        seen.append((step, float(timestep), given["latents"].clone()))
        return given

    last = pipe(**arguments, generator=seeded(0), callback_on_step_end=callback)[0]
    steps = [step for step, _, _ in seen]  # those that the slowest sample has behind it
    assert len(steps) == free.summary(pipe).rounds
    assert steps[0] == 0
    assert steps == sorted(set(steps))
    assert steps[-1] < 12
    assert steps != list(range(len(steps)))
    times = [time for _, time, _ in seen]
    assert times == sorted(times, reverse=True)
    assert times[-1] == float(pipe.scheduler.timesteps[-1])  # the furthest row of the last round
    assert not torch.equal(seen[0][2], seen[1][2])
    assert torch.equal(seen[-1][2], last)


def test_an_interrupted_call_ends() -> None:
    pipe, arguments = enabled(steps=30)
    steps: list[int] = []

    def callback(pipe: Any, step: int, timestep: Tensor, given: dict[str, Tensor]) -> Any:
        steps.append(step)
        pipe._interrupt = len(steps) == 2
        return given

    latents = pipe(**arguments, callback_on_step_end=callback)[0]
    assert len(steps) == 2
    assert latents.isfinite().all()
    steps.clear()
    pipe(**arguments)  # goes on to its end
    assert free.summary(pipe).steps == 30


@pytest.mark.parametrize("name", [SD3, DIT])
def test_progress_bars_count_transitions(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pipe, arguments = enabled(name)
    pipe.set_progress_bar_config(disable=False)
    pipe(**arguments)
    assert "12/12" in capsys.readouterr().err
    assert free.summary(pipe).rounds < 12


def test_progress_bars_of_schedulers_of_several_calls_a_step_reach_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipe, arguments = tiny(SD, 1, 20)
    pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    free.enable(pipe, 4, law="ddpm")
    pipe.set_progress_bar_config(disable=False)
    for seed in range(4):
        pipe(**arguments, generator=seeded(seed))
        assert "20/20" in capsys.readouterr().err
    for _ in pipe.progress_bar(range(5)):  # a loop that draws nothing
        pass
    assert "5/5" in capsys.readouterr().err


class Sleeps(nn.Module):
    """Takes so many seconds a call, and a row."""

    def __init__(self, inner: nn.Module, call: float, row: float) -> None:
        super().__init__()
        self.inner, self.call, self.row = inner, call, row

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.call + self.row * len(x))
        return self.inner(x)


@pytest.mark.parametrize(("call", "row", "pays"), [(0.012, 0.0, True), (0.0, 0.006, False)])
def test_automatic_windows_go_by_what_calls_cost(
    call: float, row: float, pays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FREE_CACHE", str(tmp_path))
    pipe, arguments = enabled(prompts=1, steps=30, window="auto")
    pipe.transformer.proj_out = Sleeps(pipe.transformer.proj_out, call, row)
    pipe(**arguments, generator=seeded(0))
    assert list(tmp_path.rglob("*.json"))  # what was measured is kept
    pipe(**arguments, generator=seeded(1))
    summary = free.summary(pipe)
    assert summary.preparing < 0.1
    assert (summary.rounds < 15) == pays
    assert (summary.rows > 1.6 * 30) == pays  # windows of four: three rows a step
    assert (summary.speedup > 1.3) == pays


def test_the_summary_is_a_table_and_a_record() -> None:
    pipe, arguments = enabled(SD, window="auto")
    pipe(**arguments)
    summary = free.summary(pipe)
    record = json.loads(summary.to_json())
    assert record["steps"] == 12
    assert record["law"] == "ddpm"
    assert record["report"]["samples"] == record["samples"] == 2
    assert record["plain_seconds"] > 0
    assert record["speedup"] == pytest.approx(record["plain_seconds"] / record["seconds"])
    text = str(summary)
    assert text.startswith("StableDiffusionPipeline\n")
    for word in ("rounds", "network calls", "drafts", "seconds", "step by step", "speed-up"):
        assert word in text


def test_a_law_by_name_is_that_of_its_scheduler() -> None:
    """Whose states are of another scale, and whose network is given scaled ones."""
    pipe, arguments = enabled(SD, law="euler-ancestral")
    by_name = pipe(**arguments, generator=seeded(1))[0]
    other, _ = tiny(SD)
    kind, config = diffusers.EulerAncestralDiscreteScheduler, other.scheduler.config
    spacing = config.timestep_spacing  # which from_config drops where it is the default
    other.scheduler = kind.from_config(config, timestep_spacing=spacing)
    free.enable(other, 4)
    assert torch.allclose(other(**arguments, generator=seeded(1))[0], by_name, atol=1e-4)


def test_noise_that_a_call_asks_for() -> None:
    pipe, arguments = tiny(SD)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    free.enable(pipe, 4)
    with pytest.raises(ValueError, match="got DDIMScheduler with eta=0"):
        pipe(**arguments)
    few = pipe(**arguments, eta=0.1, generator=seeded(0))[0]
    many = pipe(**arguments, eta=1.0, generator=seeded(0))[0]
    assert not torch.equal(few, many)
    free.enable(pipe, 4, law="ddim", stochasticity=0.1)
    assert torch.equal(pipe(**arguments, generator=seeded(0))[0], few)
    with pytest.raises(ValueError, match="stochasticity must be left out with a Schedule, .* 0.1"):
        free.enable(pipe, 4, law=free.Schedule.ddpm(12), stochasticity=0.1)
    with pytest.raises(ValueError, match="stochasticity must be left out with a DDPMScheduler"):
        free.enable(pipe, 4, law="ddpm", stochasticity=0.1)


def test_limits_that_a_call_asks_for() -> None:
    unet, arguments = tiny(DDPM)
    scheduler = diffusers.DDIMScheduler.from_config(unet.scheduler.config, clip_sample=True)
    pipe = diffusers.DDIMPipeline(unet.unet, scheduler)
    pipe.set_progress_bar_config(disable=True)
    free.enable(pipe, 4)
    with pytest.raises(ValueError, match="use_clipped_model_output must be True"):
        pipe(**arguments, eta=1.0)
    pipe(**arguments, eta=1.0, use_clipped_model_output=True)
    assert free.summary(pipe).law == "DDIMScheduler"


def _compiled(pipe: Any) -> None:
    pipe.transformer = torch.compile(pipe.transformer, backend="eager", fullgraph=True)


def _compiled_in_place(pipe: Any) -> None:
    pipe.transformer.compile(backend="eager", fullgraph=True)


def _offloaded(pipe: Any) -> None:
    hooks = pytest.importorskip("accelerate.hooks")
    hooks.add_hook_to_module(pipe.transformer, hooks.AlignDevicesHook(execution_device="cpu"))


def _adapted(pipe: Any) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    pipe.transformer.add_adapter(config)


def _cast_by_layers(pipe: Any) -> None:
    pipe.transformer.enable_layerwise_casting(torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    "change", [_compiled, _compiled_in_place, _offloaded, _adapted, _cast_by_layers]
)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_what_else_is_done_to_a_network_goes_on_working(change: Any, first: bool) -> None:
    pipe, arguments = tiny(steps=6)
    replaces = change is _compiled
    if first:
        change(pipe)
    free.enable(pipe, 4, law="renoise")
    if not first and not replaces:  # else the network is another
        change(pipe)
    drawn = pipe(**arguments, generator=seeded(0))[0]
    assert free.summary(pipe).rounds < 6

    plain, _ = tiny(steps=6)
    if not replaces:
        change(plain)
    free.enable(plain, 4, law="renoise")
    assert torch.allclose(drawn, plain(**arguments, generator=seeded(0))[0], atol=1e-3)
    if replaces:
        assert denoiser(pipe) is not denoiser(plain)
