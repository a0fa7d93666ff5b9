"""The contracts of a model's graphs: names, types, and the ranges their axes must cover."""

from __future__ import annotations

from free.engines.interface import Contract, Profile, TensorSpec
from free.models.config import DiTConfig

__all__ = ["draft_contract", "step_contract", "teacher_contract"]


def teacher_contract(config: DiTConfig, guided: bool, rows: Profile) -> Contract:
    """Of :class:`export.graphs.Teacher`.

    Parameters
    ----------
    config : DiTConfig
    guided : bool
    rows : Profile
        States of a call; under guidance the network runs at twice as many.
    """
    state = _state(config)
    outputs = [
        TensorSpec("eps", "float32", ("rows", *state)),
        TensorSpec("feature", "float32", ("rows", *_feature(config, guided))),
    ]
    if config.learn_sigma:
        outputs.append(TensorSpec("variance", "float32", ("rows", *state)))
    return Contract(
        _name("teacher", guided),
        (
            TensorSpec("x", "float32", ("rows", *state)),
            TensorSpec("t", "int64", ("rows",), 0, 1000),
            TensorSpec("y", "int64", ("rows",), 0, config.num_classes + 1),
            *_scale(config, guided),
        ),
        tuple(outputs),
        {"rows": rows},
    )


def step_contract(config: DiTConfig, guided: bool, rows: Profile) -> Contract:
    """Of :class:`export.graphs.DrafterStep`; the parameters are :func:`teacher_contract`'s."""
    state, feature = _state(config), _feature(config, guided)
    return Contract(
        _name("drafter", guided),
        (
            TensorSpec("x", "float32", ("rows", *state)),
            TensorSpec("innovation", "float32", ("rows", *state)),
            TensorSpec("t", "int64", ("rows",), 0, 1000),
            TensorSpec("y", "int64", ("rows",), 0, config.num_classes + 1),
            TensorSpec("feature", "float32", ("rows", *feature)),
            *_scale(config, guided),
        ),
        (
            TensorSpec("change", "float32", ("rows", *state)),
            TensorSpec("feature_after", "float32", ("rows", *feature)),
        ),
        {"rows": rows},
    )


def draft_contract(
    config: DiTConfig, guided: bool, window: int, sweeps: int | None, max_batch: int
) -> Contract:
    """Of :class:`export.graphs.DraftSweeps`, or without sweeps of ``DraftSteps``.

    Parameters
    ----------
    config : DiTConfig
    guided : bool
    window : int
        Teacher rows of a round, ``W``, at least 2; ``P = W - 1`` transitions are drafted.
    sweeps : int or None
    max_batch : int
        Samples drawn together.
    """
    P, state = window - 1, _state(config)
    axes = {
        "batch": Profile(1, 1, max_batch),
        "rows": Profile(1, window, max_batch * window),
    }

    def positive(name: str) -> TensorSpec:
        return TensorSpec(name, "float32", ("batch", P), 0.1, 1.0)

    inputs = [
        TensorSpec("x", "float32", ("batch", *state)),
        TensorSpec("noise", "float32", ("batch", P, *state)),
        *(positive(name) for name in ("a", "b", "sigma", "sigma_before")),
        TensorSpec("t", "int64", ("batch", P), 0, 1000),
        TensorSpec("y", "int64", ("batch",), 0, config.num_classes + 1),
        positive("slope"),
        TensorSpec("intercept", "float32", ("batch", P, *state)),
        TensorSpec("settled", "bool", ("batch", P)),
        TensorSpec("guess_before", "float32", ("batch", *state)),
        TensorSpec("mean_before", "float32", ("batch", *state)),
        TensorSpec("feature", "float32", ("rows", *_feature(config, guided))),
    ]
    if sweeps is None:
        inputs += [
            TensorSpec("carry", "int64", ("batch", P), 0, below=("rows",)),
            TensorSpec("own", "bool", ("batch", P)),
        ]
    else:
        axes["asked"] = Profile(1, P, max_batch * P)
        inputs += [
            TensorSpec("asked", "int64", ("asked",), 0, P),
            TensorSpec("slot", "int64", ("batch", P), 0, below=("asked",)),
            TensorSpec("carry", "int64", ("asked",), 0, below=("rows",)),
        ]
        if sweeps > 1:
            after = ("rows", "asked")
            inputs.append(TensorSpec("carry_next", "int64", ("asked",), 0, below=after))
    return Contract(
        _name("draft", guided),
        (*inputs, *_scale(config, guided)),
        (
            TensorSpec("states", "float32", ("batch", window, *state)),
            TensorSpec("means", "float32", ("batch", P, *state)),
        ),
        axes,
    )


def _name(graph: str, guided: bool) -> str:
    return f"{graph}_guided" if guided else graph


def _state(config: DiTConfig) -> tuple[int, int, int]:
    return (config.channels, config.image_size, config.image_size)


def _feature(config: DiTConfig, guided: bool) -> tuple[int, ...]:
    tokens = (config.image_size // config.patch_size) ** 2
    return (*((2,) if guided else ()), tokens, config.hidden_size)


def _scale(config: DiTConfig, guided: bool) -> tuple[TensorSpec, ...]:
    """Guidance scale of each channel."""
    return (TensorSpec("cfg_scale", "float32", (config.channels,), 1.0, 4.0),) if guided else ()
