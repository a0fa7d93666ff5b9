"""The law of enabled pipelines is that of their own loops.

Six pipelines draw 2,000 latents each by their own scheduler, which is stochastic, step by step,
and as many enabled: the tiny ones with smaller latents and stronger networks, so that prompts and
times matter more than chance. Two prompts alternate, and the samples of each are compared: a row
that is asked about with the other one's prompt is seen.

A dozen coordinates, a dozen random directions and the squared length are compared: laws by a
Kolmogorov-Smirnov test, second moments by Welch's. Power, measured with normal latents in 16
dimensions: a shift of one coordinate of one prompt by .25 / .3 / .35 standard deviations is found
in 35 / 73 / 96 % of the runs, 1.2 times its width in 88 %, 1.04 times that of all in 83 %. The
planted bugs move many at once. Verifiers have their own tests (:mod:`tests.law.test_runs`).
"""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from scipy import stats
from torch import Tensor

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers

import free
import free.rounds.round
from free.pipeline.enable.call import NetworkCall
from free.pipeline.enable.drawing import Drawing
from free.pipeline.enable.recognise import Recognised
from free.pipeline.tiny import TINY
from free.pipeline.tiny.record import TOKENS
from tests.law import planted
from tests.law.stats import ks_two_sample
from tests.pipeline.enable.pipelines import denoiser

#: Samples of each of the two prompts.
SAMPLES = 1000
STEPS, LOOKS = 6, 12
#: In all, with six pipelines, a false alarm in sixteen hundred suites.
LEVEL = 1e-4


class Case(NamedTuple):
    """A tiny pipeline, its scheduler, what else it is called with, and factors of all its matrices
    and of those of the time.
    """

    pipeline: str
    scheduler: Any
    arguments: dict[str, Any]
    gain: float = 1.5
    time_gain: float = 2.0


#: They leave some signal in the first state: else all is a multiple of noise.
_BETAS: dict[str, Any] = {"beta_schedule": "linear", "beta_end": 0.006, "steps_offset": 1}
_DDPM = diffusers.DDPMScheduler(**_BETAS, clip_sample=False)
_ANCESTRAL = diffusers.EulerAncestralDiscreteScheduler(**_BETAS)
_RENOISE = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
_SDE = diffusers.DPMSolverMultistepScheduler(
    algorithm_type="sde-dpmsolver++",
    prediction_type="flow_prediction",
    use_flow_sigmas=True,
    flow_shift=3.0,
)
_VIDEO = {"height": 32, "width": 32, "num_frames": 9}
CASES = {
    "DDPM, a U-Net": Case("DDPMPipeline", _DDPM, {}, 1.5, 4.0),
    "DiT": Case("DiTPipeline", _DDPM, {}, 1.2),
    # Fractional timesteps, and a network that is given scaled states.
    "SD 1.5": Case("StableDiffusionPipeline", _ANCESTRAL, {"height": 16, "width": 16}, 1.5, 4.0),
    "SD 3": Case("StableDiffusion3Pipeline", _RENOISE, {"height": 16, "width": 16}, 1.2, 1.0),
    # A step that depends on the image predicted before.
    "SANA": Case("SanaPipeline", _SDE, {"height": 64, "width": 64}, 1.2),
    "LTX, a video": Case("LTXPipeline", _RENOISE, _VIDEO),
}


def _pipeline(case: Case) -> tuple[Any, dict[str, Any]]:
    pipe, arguments, _ = TINY[case.pipeline](2)
    pipe.scheduler = type(case.scheduler).from_config(case.scheduler.config)
    network = denoiser(pipe)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            parameter.mul_(case.gain * (case.time_gain if "time" in name else 1.0))
    if case.pipeline in ("DiTPipeline", "DDPMPipeline"):  # which ask it for the size
        network.register_to_config(sample_size=2)
    if case.pipeline == "DiTPipeline":
        pipe.vae.decode = lambda latents: SimpleNamespace(sample=latents)
    arguments = {name: _often(value) for name, value in arguments.items()} | case.arguments
    if "batch_size" in arguments:
        arguments["batch_size"] = 2 * SAMPLES
    return pipe, arguments | {"num_inference_steps": STEPS}


def _often(value: Any) -> Any:
    """Two prompts, in turn, of two tokens."""
    if isinstance(value, Tensor):
        value = value[:, :2] if value.shape[1] == TOKENS else value
        return value.repeat(SAMPLES, *[1] * (value.dim() - 1))
    return value * SAMPLES if isinstance(value, list) else value


def _draw(name: str, seed: int, window: int | None = None) -> Tensor:
    """Latents of each prompt, [2, SAMPLES, D], as the last ``step`` returned them: enabled, or step
    by step without a window.
    """
    pipe, arguments = _pipeline(CASES[name])
    if window is not None:
        free.enable(pipe, window)
    last: list[Tensor] = []
    step = pipe.scheduler.step

    @functools.wraps(step)  # pipelines look at its signature
    def recorded(*given: Any, **named: Any) -> Any:
        made = step(*given, **named)
        last[:] = [made[0]]
        return made

    pipe.scheduler.step = recorded
    torch.manual_seed(1000 + seed)  # else steps would draw what the latents were drawn from
    pipe(**arguments, generator=torch.Generator().manual_seed(seed))
    if window is not None:
        report = free.summary(pipe).report
        assert report.acceptance > 0.05, report.acceptance  # else nothing is tested
    latents = last[0][: 2 * SAMPLES].flatten(1).double()  # DiT carries each of them twice
    return latents.unflatten(0, (SAMPLES, 2)).transpose(0, 1)


@functools.cache
def _plain(name: str) -> Tensor:
    return _draw(name, 1)


def _p(drawn: Tensor, plain: Tensor) -> float:
    """The smallest p of all looks, times how many they are."""
    D = plain.shape[2]
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(D, LOOKS, generator=generator, dtype=torch.float64)
    along = torch.cat([torch.eye(D, dtype=torch.float64)[:, :LOOKS], directions / D**0.5], dim=1)
    p = []
    for one, other in zip(drawn, plain, strict=True):  # of each prompt
        middle = other.mean(0)
        pairs = zip((one @ along).T, (other @ along).T, strict=True)
        p += [ks_two_sample(x, y) for x, y in pairs]
        squares = [
            torch.cat([(x - middle).square() @ along.square(), _length(x - middle)], dim=1)
            for x in (one, other)
        ]
        p += stats.ttest_ind(*squares, equal_var=False).pvalue.tolist()
    return float(len(p) * min(p))


def _length(x: Tensor) -> Tensor:
    return x.square().sum(1, keepdim=True)


@pytest.mark.parametrize("name", CASES)
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


def _verifier(bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free.rounds.round, "verify_window", _flat(planted.planted(bug)))


def _other_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Recognised.split

    def wrong(self: Recognised, *given: Any) -> tuple[Tensor, Tensor]:
        rows, again = split(self, *given)
        return rows.roll(1, 0), again

    monkeypatch.setattr(Recognised, "split", wrong)


def _other_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are asked about with the next sample's conditioning: the checks do not see it."""
    expanded = NetworkCall._expanded

    def wrong(self: NetworkCall, states: Tensor, timesteps: Tensor, owner: Tensor) -> Any:
        return expanded(self, states, timesteps, (owner + 1) % self.samples)

    monkeypatch.setattr(NetworkCall, "_expanded", wrong)


def _other_timestep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are asked about at the next row's time."""
    timesteps = Drawing.timesteps
    monkeypatch.setattr(
        Drawing, "timesteps", lambda self, k: timesteps(self, (k + 1).clamp(max=STEPS - 1))
    )


@pytest.mark.parametrize(
    ("bug", "name"),
    [
        (functools.partial(_verifier, planted.always_accepts), "DiT"),
        (_other_prediction, "LTX, a video"),
        (_other_prompt, "DiT"),
        (_other_timestep, "DiT"),
        (_other_timestep, "LTX, a video"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_planted_bugs_are_found(bug: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch=monkeypatch)
    assert _p(_draw(name, 2, window=4), _plain(name)) < LEVEL
