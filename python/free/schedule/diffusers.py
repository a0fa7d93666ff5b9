"""Schedulers of diffusers, as tables of the same law.

A scheduler is recognised by the name of its class and read by its configuration and by the grid
that its own ``set_timesteps`` makes; diffusers is imported only to make another of its schedulers.
Whatever is not one Gaussian a step, or not known to be, is refused, with what would be: a sampler
with another law is never used in silence.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from free.arguments import as_integer, shortened
from free.schedule import ancestral, ddpm, dpm, flow
from free.schedule.ddpm import DEFAULTS, LONGEST, complete_config
from free.schedule.renewal import Columns, vector
from free.schedule.stochasticity import EXPECTED

#: The law of each scheduler's ``step``: ``builder(grid, config, **options)``.
_LAWS: dict[str, Callable[..., Columns]] = {
    "DDPMScheduler": ddpm.ddpm,
    "DDIMScheduler": ancestral.ddim,
    "LCMScheduler": ancestral.lcm,
    "EulerAncestralDiscreteScheduler": ancestral.euler_ancestral,
    "DPMSolverMultistepScheduler": dpm.dpm_solver,
    "FlowMatchEulerDiscreteScheduler": flow.renoise,
    "FlowMatchLCMScheduler": flow.renoise,
    "LTXEulerAncestralRFScheduler": flow.ltx,
}
#: Arguments of ``step`` that belong to the law, with diffusers' defaults.
_OPTIONS: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {"eta": 0.0, "use_clipped_model_output": False}
}
#: Deterministic schedulers that are near a law of little noise:
#: ``builder(grid, config, stochasticity=..., **options)``. Of some the configuration says it.
_NEAR: dict[str, Callable[..., Columns]] = {
    "DDIMScheduler": ancestral.ddim,
    "EulerDiscreteScheduler": ancestral.euler,
    "DPMSolverMultistepScheduler": dpm.dpm_solver,
    "FlowMatchEulerDiscreteScheduler": flow.euler,
}
#: Schedulers that networks of betas can be sampled with, by the names of their laws.
_RELATIVES: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpm": ("DDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "sde-dpmsolver++": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
}
#: What can be asked for besides, whatever the scheduler is.
LAWS = (*_RELATIVES, *flow.KINDS)
#: Schedulers that call the network more than once a step.
_SEVERAL_CALLS = (
    "HeunDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
)
#: Schedulers whose steps are without noise.
_DETERMINISTIC = (
    "DDIMInverseScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "EulerDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
#: Parameters that belong to a network's training, whatever it is sampled with.
_TRAINING = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)
_FLOW_HINT = (
    "of a network that predicts flow matching's velocity, pass scheduler=lambda steps: "
    "free.Schedule.flow('flow-sde', steps)"
)


def columns_of(
    scheduler: Any, steps: int | None, law: str | None, stochasticity: Any, **arguments: Any
) -> Columns:
    """Fields of the schedule; see :meth:`free.Schedule.from_scheduler`."""
    if law is not None and law not in LAWS:
        raise ValueError(f"law must be None or one of {_listed(LAWS)}, got {law!r}")
    if law is not None and "eta" in arguments:
        got = f"law={law!r}, eta={arguments['eta']!r}"
        raise ValueError(f"eta must be called stochasticity with a law, got {got}")
    described = Described.of(scheduler)
    if law is not None and law not in described.laws:
        raise ValueError(
            f"law must be {_listed(described.laws) or 'None'} for the network of a "
            f"{described.name}, got {law!r}"
        )
    if law in flow.KINDS:
        grid, _ = _flow_grid(described, steps, arguments)
        levels = vector(grid.sigmas)
        return flow.flow(law, levels, stochasticity, vector(grid.timesteps)[: len(levels) - 1])
    if law is None:
        _require_parents_step(described)
    else:
        described = _relative(described, law)
    known = _OPTIONS.get(described.name, {})
    options = {key: arguments.pop(key, value) for key, value in known.items()}
    if law == "ddim":
        options["eta"] = 1.0 if stochasticity is None else stochasticity
    elif stochasticity is not None:
        _require_near(described, options, stochasticity)
        grid, config = _grid(described, steps, arguments)
        return _NEAR[described.name](grid, config, stochasticity=stochasticity, **options)
    else:
        _require_known(described, options)
    grid, config = _grid(described, steps, arguments)
    return _LAWS[described.name](grid, config, **options)


class Described(NamedTuple):
    """A scheduler, or the configuration of one, as ``given``; its class' name and configuration."""

    given: Any
    name: str
    config: dict[str, Any]

    @classmethod
    def of(cls, scheduler: Any) -> Described:
        """Read a scheduler, or a configuration, by default of a ``DDPMScheduler``.

        Raises TypeError if it is neither, ValueError if it is a scheduler's own record of its
        configuration, which does not say of which class.
        """
        if isinstance(scheduler, Mapping):
            if "_class_name" not in scheduler and "_use_default_values" in scheduler:
                raise ValueError(
                    "scheduler must be the scheduler itself, or a configuration with _class_name, "
                    "got its config, which has none"
                )
            name = str(scheduler.get("_class_name", "DDPMScheduler"))
            return cls(scheduler, name, dict(scheduler))
        config = getattr(scheduler, "config", None)
        if isinstance(scheduler, type) or not isinstance(config, Mapping):
            raise TypeError(
                "scheduler must be a scheduler of diffusers or the configuration of one, "
                f"got {scheduler!r}"
            )
        names = [kind.__name__ for kind in type(scheduler).__mro__]
        name = next((name for name in names if name in _NAMES), names[0])
        return cls(scheduler, name, dict(config))

    @property
    def laws(self) -> tuple[str, ...]:
        """Names of the laws that its network can be sampled by."""
        config = self.config
        if self.name in _OF_FLOW or _is_flow(config) or "shift" in config:
            return tuple(flow.KINDS)
        return tuple(_RELATIVES) if self.name in _NAMES or _has_betas(config) else ()

    def instance(self) -> Any:
        """A scheduler of diffusers, also of its configuration."""
        return _made(self.name, self.config) if isinstance(self.given, Mapping) else self.given


def _require_parents_step(described: Described) -> None:
    """Refuse a class of one's own whose law may be its own, too."""
    given, name, _ = described
    for kind in () if isinstance(given, Mapping) else type(given).__mro__:
        if kind.__name__ == name:
            return
        if "step" in vars(kind):
            raise ValueError(
                f"scheduler must step as {name} does, got {kind.__name__}, which has a step of its "
                "own: its law is not known here"
            )


_NAMES = {*_LAWS, *_SEVERAL_CALLS, *_DETERMINISTIC}
#: Those whose timesteps are between those of a training.
_OF_FLOW = {name for name in _NAMES if name.startswith(("FlowMatch", "LTX"))}


def ddpm_config(config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A configuration of diffusers' ``DDPMScheduler``, as DiT samples.

    Linspace spacing, the posterior's variance, no clipping. ``config`` is any diffusers
    scheduler's, whose betas and ``prediction_type`` are kept; None for the betas of DiT, linear
    from 1e-4 to 0.02 over 1000 steps. Raises ValueError if it has no betas (a flow-matching
    scheduler's).
    """
    if config is not None and not _has_betas(config):
        raise ValueError(
            "scheduler='ddpm' needs a config with betas (beta_schedule or trained_betas), "
            f"got {config.get('_class_name', 'one')} with {sorted(config)}: {_FLOW_HINT}"
        )
    config = {"beta_schedule": "linear"} if config is None else config
    training = {key: config[key] for key in _TRAINING if key in config}
    sampling = {
        "variance_type": "fixed_small",
        "clip_sample": False,
        "thresholding": False,
        "timestep_spacing": "linspace",
        "steps_offset": 0,
    }
    return {"_class_name": "DDPMScheduler", **training, **sampling}


def _relative(described: Described, law: str) -> Described:
    """The scheduler of a law for the same network."""
    given, name, config = described
    if isinstance(given, Mapping) and not _has_betas(config):
        # Its defaults are not those of the other.
        own = name == "DDPMScheduler"
        config = complete_config(config) if own else dict(described.instance().config)
    made, changes = _RELATIVES[law]
    # What other samplers do not say is off: a network of latents must not be clipped unasked.
    same = {"clip_sample": False, **config, **changes}
    if law == "sde-dpmsolver++":
        same["solver_order"] = min(config.get("solver_order", 2), 2)
    if law == "ddpm":
        same = {key: value for key, value in same.items() if key in DEFAULTS}
        if same.get("variance_type") not in ddpm.VARIANCES:
            same["variance_type"] = "fixed_small"
        return Described.of(same)
    return Described.of(_made(made, same))


def _made(name: str, config: Mapping[str, Any]) -> Any:
    """A scheduler of diffusers, by its name, of what it knows of a configuration."""
    try:
        import diffusers
    except ImportError as error:
        raise ValueError(
            f"scheduler needs diffusers to be a {name}: pip install 'free-dit[diffusers]'"
        ) from error
    kind: Any = getattr(diffusers, name, None)
    if not hasattr(kind, "set_timesteps"):
        raise ValueError(f"scheduler config must name a scheduler of diffusers, got {name!r}")
    read = inspect.signature(kind).parameters
    with torch.device("cpu"):  # whatever the default is
        return kind(**{key: value for key, value in config.items() if key in read})


def _how_deterministic(described: Described, options: Mapping[str, Any]) -> str | None:
    """What makes the steps of a scheduler deterministic, in words; None if nothing does."""
    _, name, config = described
    if name in _DETERMINISTIC:
        return ""
    kind = config.get("algorithm_type", "dpmsolver++")
    if name == "DPMSolverMultistepScheduler" and not str(kind).startswith("sde-"):
        return f" with algorithm_type={kind!r}"
    if name == "FlowMatchEulerDiscreteScheduler" and not config.get("stochastic_sampling", False):
        return " with stochastic_sampling=False"
    if name == "DDIMScheduler" and np.all(np.asarray(options["eta"]) == 0):
        return " with eta=0"
    return None


def _is_near(described: Described) -> bool:
    """Whether a deterministic scheduler is near a law of little noise that is known here."""
    kind = described.config.get("algorithm_type", "dpmsolver++")
    return described.name in _NEAR and kind == "dpmsolver++"


def _require_near(described: Described, options: Mapping[str, Any], stochasticity: Any) -> None:
    """Refuse a stochasticity that the scheduler's law leaves no place for."""
    how = _how_deterministic(described, options)
    if how is None:
        raise ValueError(
            f"stochasticity must be left out with a {described.name} whose noise is its own, "
            f"got {shortened(stochasticity)}"
        )
    if not _is_near(described):
        raise ValueError(
            f"stochasticity must be left out with {described.name}{how}, near which no law is "
            f"known here, got {shortened(stochasticity)}: {_way_out(described)}"
        )


def _require_known(described: Described, options: Mapping[str, Any]) -> None:
    """Refuse what is no law of one Gaussian a call of the network."""
    name = described.name
    if name in _SEVERAL_CALLS:
        raise ValueError(
            f"scheduler must call the network once a step, got {name}, which calls it twice: "
            f"{_way_out(described)}"
        )
    how = _how_deterministic(described, options)
    if how is not None:
        raise ValueError(
            "scheduler must be a stochastic one to be speculated (without noise nothing couples "
            f"draft and target), got {name}{how}: {_near_by(described)}{_way_out(described)}"
        )
    if name not in _LAWS:
        raise ValueError(
            f"scheduler must be one of {', '.join(_LAWS)}, whose laws are known, got {name}: "
            f"{_way_out(described)}"
        )


def _near_by(described: Described) -> str:
    """What draws the images of a deterministic scheduler, nearly."""
    if _is_near(described):
        (amount, decibels), *more = EXPECTED.items()
        others = ", ".join(f"{other:g}: {far} dB" for other, far in more)
        return (
            f"pass stochasticity={amount:g} for images some {decibels} dB from its own ({others}), "
            "or stochasticity=0 with verifier='tolerance' for its own within a tolerance; "
        )
    if "ddim" in described.laws:
        return "pass law='ddim', stochasticity=0.01 for images near those of DDIM; "
    return ""


def _way_out(described: Described) -> str:
    """What samples the same network."""
    names = [f"law={law!r}" for law in described.laws]
    if not names:
        return "no other law of its network is known here either"
    return f"for the same network pass {', '.join(names[:-1])} or {names[-1]}"


def _listed(laws: tuple[str, ...]) -> str:
    return ", ".join(map(repr, laws))


def _has_betas(config: Mapping[str, Any]) -> bool:
    return "beta_schedule" in config or config.get("trained_betas") is not None


def _is_flow(config: Mapping[str, Any]) -> bool:
    return bool(config.get("use_flow_sigmas")) or config.get("prediction_type") == "flow_prediction"


def _flow_grid(
    described: Described, steps: int | None, arguments: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """What :func:`_grid` returns, for a law of :data:`free.schedule.flow.KINDS`."""
    _, name, config = described
    if name in _SEVERAL_CALLS:  # whose grids have each level twice
        described = Described.of({**config, "_class_name": "FlowMatchEulerDiscreteScheduler"})
    return _grid(described, steps, arguments)


def _grid(
    described: Described, steps: int | None, arguments: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """What has the timesteps and levels of so many steps, and the complete configuration."""
    given, name, config = described
    last = config.get("num_train_timesteps", 1000)
    if steps is not None:
        most = min(last, LONGEST) if name not in _OF_FLOW else LONGEST
        expected = f"steps (num_inference_steps) must be an integer in 1..{most}"
        steps = as_integer(steps, expected, 1, most)
    elif not arguments.keys() & {"timesteps", "sigmas"}:
        raise ValueError("steps must be given, or timesteps or sigmas, got none of them")
    own = isinstance(given, Mapping) and name == "DDPMScheduler"
    if own:
        described = described._replace(config=complete_config(config))
    if own and steps is not None and not arguments:
        config = described.config
        grid = ddpm.own_grid(config, steps)
    else:
        grid = copy.deepcopy(described.instance())
        config = dict(grid.config)
        with torch.device("cpu"):  # whatever the default is
            grid.set_timesteps(None if "timesteps" in arguments else steps, **arguments)
    times = vector(grid.timesteps)
    made = min(len(times), len(grid.sigmas) - 1) if hasattr(grid, "sigmas") else len(times)
    if steps is not None and made != steps and arguments.keys() & {"timesteps", "sigmas"}:
        raise ValueError(f"steps must be the {made} of the timesteps or sigmas, got {steps}")
    if (steps is not None and made != steps) or times[-1] < 0:
        spacing = config.get("timestep_spacing")
        raise ValueError(
            "steps (num_inference_steps) must be another number with "
            f"timestep_spacing={spacing!r}, which makes {made} of {steps}, the last at "
            f"{times[-1]:g}"
        )
    if not all(map(math.isfinite, times)):
        raise ValueError(
            f"timesteps of a {name} must be finite, got nan with {steps} steps: take more than one "
            "with shift_terminal, and finite sigmas"
        )
    if _has_betas(config) and times[0] >= last:
        raise ValueError(
            f"steps_offset must leave the timesteps below num_train_timesteps ({last}), "
            f"got {config.get('steps_offset')} with {steps} steps"
        )
    return grid, config
