"""The pipeline: the sampler's draws, DiTPipeline's images and words, and refusals."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch

diffusers = pytest.importorskip("diffusers")

import free.rounds.round  # noqa: E402
from free import FreePipeline, Schedule, SpeculativeSampler  # noqa: E402
from free.images.autoencoder import LatentCoder  # noqa: E402
from free.models.sigma import SigmaNet  # noqa: E402
from free.rounds import noise as random  # noqa: E402
from free.rounds.noise import Purpose  # noqa: E402
from tests.pipelines import (  # noqa: E402
    LABELS,
    generator,
    latents,
    pipeline,
    tiny_dit_pipeline,
    tiny_vae,
)


@pytest.mark.parametrize("guidance_scale", [1.5, 1.0, 0.0])
def test_its_samples_are_the_samplers(guidance_scale: float) -> None:
    pipe = pipeline(cfg_channels=3)
    images, report = (out := latents(pipe, guidance_scale=guidance_scale)).images, out.report
    sampler = SpeculativeSampler(
        pipe.transformer,
        "frozen",
        Schedule.ddpm(6),
        cfg_scale=max(1.0, guidance_scale),
        cfg_channels=3,
        **pipe.sampling,
    )
    expected = sampler.sample(LABELS, report.seeds)
    assert torch.equal(images, expected.samples)
    assert report.rounds_by_sample == expected.report.rounds_by_sample
    assert report.samples == 2
    assert report.steps == 6


class _Noises:
    """In place of diffusers' noises, those of our sampler for the same seeds."""

    def __init__(self, seeds: list[int]) -> None:
        self.seeds, self.calls = torch.tensor(seeds), 0

    def __call__(self, shape: tuple[int, ...], **options: Any) -> torch.Tensor:
        purpose = Purpose.TRANSITION if self.calls else Purpose.INITIAL
        noise = random.normal(self.seeds, max(0, self.calls - 1), 0, purpose, shape[1:])
        self.calls += 1
        # Under guidance diffusers steps both halves of its batch, and keeps the first.
        return noise.repeat(shape[0] // len(noise), 1, 1, 1).to(options["dtype"])


@pytest.mark.parametrize(("guidance_scale", "output_type"), [(4.0, "np"), (1.0, "pil")])
def test_with_the_same_noises_dit_pipeline_draws_the_same_images(
    guidance_scale: float, output_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guidance, timesteps, means, variances, the VAE's scale and the pixels, all in one."""
    theirs = tiny_dit_pipeline(tmp_path)
    ours = FreePipeline.from_pipe(theirs)
    ours.set_progress_bar_config(disable=True)
    ours.sampling = {"window": 1}
    options = {"num_inference_steps": 5, "guidance_scale": guidance_scale}
    result = ours(LABELS, generator=generator(), output_type=output_type, **options)
    noises = _Noises(result.report.seeds)
    for module in ("pipelines.dit.pipeline_dit", "schedulers.scheduling_ddpm"):
        monkeypatch.setattr(f"diffusers.{module}.randn_tensor", noises)
    expected = theirs(LABELS, output_type=output_type, **options).images
    assert noises.calls == 5  # the first state and all transitions but the last
    assert len(expected) == len(result.images) == 2
    for image, other in zip(result.images, expected, strict=True):
        a, b = np.asarray(image, np.float64), np.asarray(other, np.float64)
        assert a.shape == b.shape == (64, 64, 3)
        assert a.std() > 0.01
        np.testing.assert_allclose(a, b, atol=1 if output_type == "pil" else 1e-4)


def _without_verifier(
    states: torch.Tensor,
    draft_means: torch.Tensor,
    target_means: torch.Tensor,
    *rest: Any,
    **named: Any,
) -> Any:
    """Judges the drafts by themselves: all are accepted."""
    own = torch.cat([draft_means, target_means[:, draft_means.shape[1] :]], 1)
    return free.ops.verify_window(states, draft_means, own, *rest, **named)


def test_its_images_are_the_plain_samplers_up_to_reflections(monkeypatch) -> None:
    """With recycling a transition has one noise, as in the plain sampler; a rejected draft becomes
    the target's sample for that noise or for its mirror image in one direction of 256. So both stay
    together as far as the verifier does its work; without it they part.
    """
    pipe = pipeline()
    assert pipe.sampling["recycle"] == "response"
    pipe.sampling["window"] = 4
    speculative = latents(pipe, num_inference_steps=60)
    assert 0 < speculative.report.accepted < speculative.report.proposed
    assert max(speculative.report.rounds_by_sample) < 60
    monkeypatch.setattr(free.rounds.round, "verify_window", _without_verifier)
    unverified = latents(pipe, num_inference_steps=60)
    pipe.sampling = {"window": 1}
    plain = latents(pipe, num_inference_steps=60)
    assert plain.report.rounds == 60
    size = plain.images.norm()
    assert (speculative.images - plain.images).norm() < 0.05 * size
    assert (unverified.images - plain.images).norm() > 0.2 * size


def test_output_types() -> None:
    pipe = pipeline()
    outputs = {
        kind: pipe(LABELS, generator=generator(), num_inference_steps=3, output_type=kind).images
        for kind in ("pil", "np", "pt", "latent")
    }
    assert outputs["latent"].shape == (2, 4, 8, 8)
    expected = (LatentCoder(tiny_vae()).decode(outputs["latent"]) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(outputs["pt"], expected, rtol=0, atol=0)
    assert outputs["pt"].shape == (2, 3, 64, 64)
    assert outputs["np"].dtype == np.float32
    np.testing.assert_array_equal(outputs["np"], expected.permute(0, 2, 3, 1).numpy())
    for image, array in zip(outputs["pil"], outputs["np"], strict=True):
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), (array * 255).round())
    (images,) = pipe(5, num_inference_steps=2, return_dict=False)  # the tuple of DiTPipeline
    assert images[0].size == (64, 64)


def test_the_model_of_pixels() -> None:
    pipe = FreePipeline.from_pretrained("mnist")
    pipe.set_progress_bar_config(disable=True)
    assert pipe.vae is None
    assert pipe.labels == {}
    assert pipe.sampling == {"window": 16, "sweeps": 1, "recycle": "response"}
    result = pipe(7, guidance_scale=1.5, num_inference_steps=50, generator=generator())
    assert result.images[0].size == (28, 28)
    assert result.images[0].mode == "L"
    assert result.report.parallel_efficiency > 3
    assert diffusers.ImagePipelineOutput in type(result).__mro__


def test_the_vae_can_be_changed() -> None:
    pipe = pipeline()
    before = pipe(0, num_inference_steps=2, generator=generator(), output_type="pt").images
    pipe.vae = tiny_vae(scaling_factor=0.5)
    after = pipe(0, num_inference_steps=2, generator=generator(), output_type="pt").images
    assert (before - after).abs().max() > 0.01
    with pytest.raises(ValueError, match="latent channels"):
        pipe.vae = tiny_vae(latent_channels=3)


@pytest.mark.parametrize("window", [1, 4])
def test_callbacks_follow_the_slowest_image(window: int) -> None:
    pipe = pipeline()
    pipe.sampling["window"] = window
    calls: list[tuple[int, int, torch.Tensor]] = []

    def callback(at: FreePipeline, step: int, timestep: int, given: Any) -> Any:
        assert at is pipe
        calls.append((step, timestep, given["latents"]))
        return given

    out = latents(pipe, num_inference_steps=20, callback_on_step_end=callback)
    steps = [step for step, _, _ in calls]
    assert len(calls) == out.report.rounds
    assert steps == sorted(set(steps))
    assert steps[-1] == 19
    if window == 1:
        assert steps == list(range(20))
    timesteps = Schedule.ddpm(20).timesteps
    assert [timestep for _, timestep, _ in calls] == [timesteps[step] for step in steps]
    assert torch.equal(calls[-1][2], out.images)
    assert torch.equal(latents(pipe, num_inference_steps=20).images, out.images)


@pytest.mark.parametrize(
    "change",
    [lambda given: {"latents": 1.01 * given["latents"]},
     lambda given: given["latents"].mul_(1.01)],
    ids=["others", "in place"],
)  # fmt: skip
def test_callbacks_cannot_change_the_law(change: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match="must leave the latents as they are .* at step 0"):
        latents(pipeline(), callback_on_step_end=lambda pipe, step, t, given: change(given))


def test_a_callback_may_interrupt() -> None:
    """The images are what there is then; the next run is not touched."""
    pipe = pipeline()
    pipe.sampling["window"] = 2
    seen: list[torch.Tensor] = []

    def interrupt(at: FreePipeline, step: int, timestep: int, given: Any) -> None:
        seen.append(given["latents"])
        at._interrupt = len(seen) == 3

    out = latents(pipe, num_inference_steps=20, callback_on_step_end=interrupt)
    assert len(seen) == 3
    assert torch.equal(out.images, seen[-1])
    assert out.report is None
    assert pipe.interrupt
    whole = latents(pipe, num_inference_steps=20)
    assert not pipe.interrupt
    fresh = pipeline()
    fresh.sampling["window"] = 2
    assert torch.equal(whole.images, latents(fresh, num_inference_steps=20).images)
    assert whole.report.steps == 20


def test_the_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    pipe = pipeline()
    latents(pipe)
    assert capsys.readouterr().err == ""
    pipe.set_progress_bar_config(desc="drawing", mininterval=0)
    latents(pipe)
    err = capsys.readouterr().err
    assert "drawing" in err
    assert "12/12" in err  # the transitions of both images


@pytest.mark.parametrize("arguments", [("cpu", torch.bfloat16), (torch.float16,)])
def test_networks_move_together_and_states_stay_float32(arguments: tuple[Any, ...]) -> None:
    pipe = FreePipeline.from_pretrained("mnist")
    pipe.set_progress_bar_config(disable=True)
    assert pipe.to(*arguments) is pipe
    assert pipe.dtype is next(pipe.drafter.network.parameters()).dtype is arguments[-1]
    assert pipe.device == torch.device("cpu")
    result = latents(pipe, [3], guidance_scale=1.5, num_inference_steps=12)
    assert result.images.dtype is torch.float32
    assert result.images.isfinite().all()
    assert result.report.accepted > 0


def test_a_variance_network_moves_too_but_stays_float32() -> None:
    variance = SigmaNet(4)
    pipe = pipeline(scheduler=Schedule.ddpm(6, variance=variance))
    pipe.to(torch.float16)
    assert variance.out.weight.dtype is torch.float32
    pipe.to("meta")
    assert variance.out.weight.is_meta


def test_a_fragile_vae_is_not_put_in_float16() -> None:
    pipe = pipeline().to(dtype=torch.float16)
    assert pipe.vae.dtype is torch.float32
    assert pipeline().to(torch.bfloat16).vae.dtype is torch.bfloat16
    with pytest.raises(ValueError, match="device must come before dtype"):
        pipe.to(torch.float16, torch.float16)


def test_a_drafter_by_its_name_or_of_ones_own() -> None:
    pipe = pipeline(drafter="frozen")
    assert pipe.sampling == {"window": 16, "sweeps": 0, "recycle": "response"}
    drafter = free.FrozenDrafter("eps")
    assert pipeline(drafter=drafter).drafter is drafter
    with pytest.raises(ValueError, match="network must be made for the teacher's config"):
        pipeline(drafter="mnist")  # of another shape


def test_a_sampler_is_kept_while_it_is_to_do_the_same() -> None:
    """It has captured graphs, and measured."""
    pipe = pipeline()

    def after(steps: int = 5, guidance_scale: float = 1.5) -> object:
        latents(pipe, num_inference_steps=steps, guidance_scale=guidance_scale)
        assert pipe._latest is not None
        return pipe._latest[1]

    first = after()
    assert after() is first
    assert after(steps=6) is not first
    assert after(guidance_scale=1.0) is not after()
    kept = after()
    pipe.sampling["window"] = 3
    assert after() is not kept
    kept = after()
    pipe.to("cpu")
    assert after() is not kept


def test_threads_with_settings_of_their_own() -> None:
    """A web server's: one pipeline, and each request its steps, its guidance and its generator."""
    pipe, asked = pipeline(), ((6, 1.5), (4, 1.0), (5, 4.0), (6, 1.0))
    together, interval = Barrier(len(asked)), sys.getswitchinterval()

    def draw(request: tuple[int, float], waits: bool = True) -> torch.Tensor:
        if waits:
            together.wait()
        steps, scale = request
        return latents(pipe, num_inference_steps=steps, guidance_scale=scale).images

    alone = [draw(request, waits=False) for request in asked]
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(asked)) as pool:
            for got, expected in zip(pool.map(draw, asked), alone, strict=True):
                assert torch.equal(got, expected)
    finally:
        sys.setswitchinterval(interval)
