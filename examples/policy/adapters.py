"""Other people's diffusion policies: their denoiser, their sampler.

Only what they are called with is known here; neither package is imported.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

import free
from examples.policy.act import ConditionedTeacher


class Adapted(NamedTuple):
    """What the samplers of the package take.

    ``teacher.condition(...)`` sets those of a run: one for each request, whose number is its label.
    """

    teacher: ConditionedTeacher
    schedule: free.Schedule


def of_lerobot(model: Any) -> Adapted:
    """LeRobot's ``DiffusionModel``, which is ``DiffusionPolicy.diffusion``.

    Its conditions are ``model._prepare_global_conditioning(batch)``, [requests, numbers]: images
    are encoded once a request, not once a row.
    """
    config = model.config

    def denoise(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return model.unet(x, t, global_cond=condition)

    teacher = ConditionedTeacher(denoise, (config.horizon, config.action_feature.shape[0]))
    schedule = free.Schedule.from_scheduler(model.noise_scheduler, model.num_inference_steps)
    return Adapted(teacher, schedule)


def of_diffusion_policy(policy: Any) -> Adapted:
    """A low-dimensional policy of Diffusion Policy: with its U-Net, or with its transformer.

    Conditions are normalised observations of ``n_obs_steps``: [requests, steps * numbers] for the
    U-Net (``obs_as_global_cond``), [requests, steps, numbers] for the transformer
    (``obs_as_cond``).

    Raises
    ------
    ValueError
        If observations are inpainted or a local condition: the sampler would have to write to
        states between steps.
    """
    if getattr(policy, "obs_as_global_cond", False):

        def denoise(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            return policy.model(x, t, local_cond=None, global_cond=condition)

    elif getattr(policy, "obs_as_cond", False):

        def denoise(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            return policy.model(x, t, condition)

    else:
        raise ValueError(
            "policy must have obs_as_global_cond (U-Net) or obs_as_cond (transformer), got one "
            "whose observations are inpainted or local conditions"
        )
    steps = policy.n_action_steps if policy.pred_action_steps_only else policy.horizon
    schedule = free.Schedule.from_scheduler(
        policy.noise_scheduler, policy.num_inference_steps, **policy.kwargs
    )
    return Adapted(ConditionedTeacher(denoise, (steps, policy.action_dim)), schedule)
