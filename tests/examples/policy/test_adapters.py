"""Other people's policies: LeRobot's own class; Diffusion Policy, of which no package is to be had,
by a class that is called as its networks are.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import free
from examples.policy.adapters import Adapted, of_diffusion_policy, of_lerobot
from examples.policy.law import p_of
from tests.examples.policy.lerobot import diffusion_model


def drawn(adapted: Adapted, conditions: Tensor, count: int, window: int = 4) -> Tensor:
    """Speculated chunks under each of two conditions, [2, count, numbers]."""
    adapted.teacher.condition(conditions)
    sampler = free.SpeculativeSampler(
        adapted.teacher, "frozen", adapted.schedule, window, sweeps=1, recycle="response"
    )
    result = sampler.sample(torch.arange(2).repeat_interleave(count))
    assert result.report.parallel_efficiency > 1.2
    return result.samples.flatten(1).unflatten(0, (2, count))


@pytest.mark.parametrize(("prediction", "count"), [("epsilon", 1000), ("sample", 250)])
def test_lerobots_own_loop_has_the_law(prediction: str, count: int) -> None:
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusion_model(prediction_type=prediction, num_inference_steps=8)
    for weight in model.unet.parameters():  # so that the prediction follows its inputs
        weight.data *= 1.5
    batch = {
        "observation.state": torch.randn(2, 2, 3),
        "observation.environment_state": torch.randn(2, 2, 2),
    }
    with torch.no_grad():
        conditions = model._prepare_global_conditioning(batch)
        theirs = model.conditional_sample(
            2 * count, conditions.repeat_interleave(count, 0), torch.Generator().manual_seed(1)
        )
    mine = drawn(of_lerobot(model), conditions, count)
    theirs = theirs.flatten(1).unflatten(0, (2, count))
    for one, other in zip(mine, theirs, strict=True):
        assert p_of(one, other) > 1e-4
    assert p_of(mine[0], theirs[1]) < 1e-6  # conditions matter


class Network(nn.Module):
    """Called as ``ConditionalUnet1D`` or, ``flat`` False, ``TransformerForDiffusion``."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        self.flat = flat
        self.layer = nn.Linear(2 + 6, 2)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        cond: Tensor | None = None,
        local_cond: Tensor | None = None,
        global_cond: Tensor | None = None,
    ) -> Tensor:
        seen = global_cond if self.flat else cond
        assert seen is not None
        assert local_cond is None
        assert seen.dim() == (2 if self.flat else 3)
        seen = seen.flatten(1)[:, None].expand(-1, sample.shape[1], -1)
        time = timestep.view(-1, 1, 1) / 100
        return time * sample + 0.3 * torch.tanh(self.layer(torch.cat([sample, seen], 2)))


def policy(flat: bool, **settings: Any) -> SimpleNamespace:
    """What both policies of that package have; the scheduler as their configurations make it."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=100,
        beta_start=0.0001,
        beta_end=0.02,
        beta_schedule="squaredcos_cap_v2",
        variance_type="fixed_small",
        clip_sample=True,
        prediction_type="epsilon",
    )
    common = {
        "model": Network(flat).eval().requires_grad_(False),
        "noise_scheduler": scheduler,
        "num_inference_steps": 8,
        "horizon": 4,
        "n_action_steps": 3,
        "action_dim": 2,
        "pred_action_steps_only": False,
        "kwargs": {},
        "obs_as_global_cond" if flat else "obs_as_cond": True,
    }
    return SimpleNamespace(**common | settings)


@pytest.mark.parametrize("flat", [True, False], ids=["U-Net", "transformer"])
def test_networks_called_as_those_of_diffusion_policy(flat: bool) -> None:
    torch.manual_seed(0)
    count, theirs, conditions = 2500, policy(flat), torch.randn(2, 2, 3)
    conditions = conditions.flatten(1) if flat else conditions
    x = torch.randn(2 * count, 4, 2)
    seen = conditions.repeat_interleave(count, 0)
    theirs.noise_scheduler.set_timesteps(8)
    for t in theirs.noise_scheduler.timesteps:  # the package's loop
        told = {"global_cond": seen} if flat else {"cond": seen}
        x = theirs.noise_scheduler.step(theirs.model(x, t, **told), t, x).prev_sample
    expected = x.flatten(1).unflatten(0, (2, count))
    mine = drawn(of_diffusion_policy(theirs), conditions, count)
    for one, other in zip(mine, expected, strict=True):
        assert p_of(one, other) > 1e-4


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="obs_as_global_cond .* got one whose observations are"):
        of_diffusion_policy(policy(True, obs_as_global_cond=False))
    short = of_diffusion_policy(policy(False, pred_action_steps_only=True))
    assert short.teacher.sample_shape == (3, 2)
    diffusers = pytest.importorskip("diffusers")
    ddim = policy(True, noise_scheduler=diffusers.DDIMScheduler(num_train_timesteps=100))
    with pytest.raises(ValueError, match="eta"):
        of_diffusion_policy(ddim)
