"""Pipelines with their own deterministic schedulers, and a noise that nobody sees."""

from typing import Any

import pytest
import torch

import free
from tests.pipeline.enable.pipelines import SD, SD3, rows_asked, seeded, tiny

diffusers = pytest.importorskip("diffusers")

SDXL, FLUX = "StableDiffusionXLPipeline", "FluxPipeline"
#: Pipelines, and schedulers that theirs are replaced with.
CASES: list[tuple[str, str | None]] = [
    (SD3, None),
    (FLUX, None),
    (SDXL, "DPMSolverMultistepScheduler"),
    # These are slow tests.
    (SDXL, None),
    (SD, "DDIMScheduler"),
]
STEPS = 16


def _tiny(name: str, scheduler: str | None) -> tuple[Any, dict[str, Any]]:
    pipe, arguments = tiny(name, 1, STEPS)
    if scheduler is not None:
        kind = getattr(diffusers, scheduler)
        extra = {"clip_sample": False} if scheduler == "DDIMScheduler" else {}
        pipe.scheduler = kind.from_config(pipe.scheduler.config, **extra)
    return pipe, arguments


def _draw(pipe: Any, arguments: dict[str, Any]) -> torch.Tensor:
    return pipe(**arguments | {"output_type": "latent"}, generator=seeded(1))[0]


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        pytest.param(*case, marks=pytest.mark.slow if place > 2 else ())
        for place, case in enumerate(CASES)
    ],
)
def test_images_are_nearly_those_of_the_pipelines_own_loop(
    name: str, scheduler: str | None
) -> None:
    pipe, arguments = _tiny(name, scheduler)
    own = _draw(pipe, arguments)
    calls = rows_asked(pipe)
    found = {}
    for amount in (1e-2, 1e-3):
        calls.clear()
        free.enable(pipe, 8, stochasticity=amount)
        latents = _draw(pipe, arguments)
        summary = free.summary(pipe, reference=own)
        assert len(calls) == summary.network_calls  # two of them are checks
        assert summary.rounds < 0.7 * STEPS
        assert summary.law == f"{type(pipe.scheduler).__name__}, stochasticity {amount}"
        assert summary.deviation is not None
        assert summary.deviation.largest == pytest.approx(float((latents - own).abs().max()))
        found[amount] = summary.deviation.psnr
    # A tenth of the noise is 20 dB, or less where the last steps renew all that there is.
    assert 35 < found[1e-2] < 65
    assert 14 < found[1e-3] - found[1e-2] < 22


def test_without_noise_it_is_the_pipelines_own_loop() -> None:
    """Step by step: there is nothing that couples drafts."""
    pipe, arguments = _tiny(SDXL, "DPMSolverMultistepScheduler")
    own = _draw(pipe, arguments)
    free.enable(pipe, 1, stochasticity=0.0)
    assert torch.allclose(_draw(pipe, arguments), own, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "scheduler"), [CASES[0], CASES[2]])
def test_within_a_tolerance_it_is_nearly_the_pipelines_own_loop(
    name: str, scheduler: str | None
) -> None:
    pipe, arguments = _tiny(name, scheduler)
    own = _draw(pipe, arguments)
    calls = rows_asked(pipe)
    free.enable(pipe, 8, verifier="tolerance", tolerance=0.01)
    _draw(pipe, arguments)
    summary = free.summary(pipe, reference=own)
    assert len(calls) == summary.network_calls
    assert summary.rounds < 0.7 * STEPS
    assert summary.deviation is not None
    assert summary.deviation.psnr > 40
    assert 0 < summary.report.deviation < 0.05
    assert "not exact" in str(summary)
    free.enable(pipe, 8, verifier="tolerance", tolerance=0.0)
    assert torch.allclose(_draw(pipe, arguments), own, rtol=1e-4, atol=1e-4)


def test_no_noise_at_all_is_refused_beforehand() -> None:
    pipe, _ = _tiny(SD, "DDIMScheduler")
    with pytest.raises(
        ValueError, match=r"stochasticity must be above 0 .* got 0: verifier='toler"
    ):
        free.enable(pipe, 8, stochasticity=0.0)


def test_a_tolerance_needs_a_law_without_noise() -> None:
    pipe, arguments = _tiny(SD, None)
    pipe.scheduler = diffusers.DDPMScheduler(clip_sample=False)
    with pytest.raises(ValueError, match="verifier 'tolerance' needs a law without noise"):
        free.enable(pipe, 8, verifier="tolerance", tolerance=0.01)
    free.enable(pipe, 8, free.Schedule.ddpm, verifier="tolerance", tolerance=0.01)
    with pytest.raises(ValueError, match="schedule must have sigma = 0 .* 'tolerance'"):
        _draw(pipe, arguments)
    free.enable(pipe, 8, "ddim", verifier="tolerance", tolerance=0.01)


@pytest.mark.parametrize(("name", "scheduler"), [CASES[0], CASES[3]])
def test_what_to_type_is_said(name: str, scheduler: str | None) -> None:
    pipe, _ = _tiny(name, scheduler)
    with pytest.raises(ValueError, match=r"free\.enable\(pipe, stochasticity=0\.01\)") as raised:
        free.enable(pipe, 8)
    assert "41 dB from its own (0.001: 55 dB)" in str(raised.value)
    pipe, arguments = _tiny(SD, "DDIMScheduler")  # a call may ask for its own noise
    free.enable(pipe, 8)
    with pytest.raises(ValueError, match=r"free\.enable\(pipe, stochasticity=0\.01\)"):
        pipe(**arguments)
    pipe, _ = tiny(SD)
    with pytest.raises(ValueError, match=r"enable\(pipe, law='ddim', stochasticity=0\.01\)"):
        free.enable(pipe, 8)  # PNDM


def test_a_reference_is_of_the_same_shape() -> None:
    pipe, arguments = _tiny(SD3, None)
    free.enable(pipe, 8, stochasticity=[0.01] * STEPS)
    latents = _draw(pipe, arguments)
    assert free.summary(pipe).deviation is None
    same = free.summary(pipe, reference=latents)
    assert same.to_dict()["deviation"] == {"psnr": None, "largest": 0.0}
    assert "inf dB, at most 0" in str(same)
    with pytest.raises(ValueError, match=r"reference must be of the samples' shape, \[1, .* \[2, "):
        free.summary(pipe, reference=latents.repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match="reference must be finite"):
        free.summary(pipe, reference=latents / 0)
    with pytest.raises(ValueError, match=r"one a transition \(12\), got shape \(16,\)"):
        pipe(**arguments | {"num_inference_steps": 12})
