"""The contracts of a model's graphs: names, types, and the ranges their axes must cover."""

from __future__ import annotations

from free.engines.interface import Contract, Profile, TensorSpec
from free.models.config import DiTConfig


def teacher_contract(config: DiTConfig, guided: bool, rows: Profile) -> Contract:
    """Contract of :class:`export.graphs.Teacher`.

    Parameters
    ----------
    config : DiTConfig
    guided : bool
    rows : Profile
        States of a call; under guidance the network runs at twice as many.
    """
    outputs = [_state("eps", config, "rows"), _feature("feature", config, guided)]
    if config.learned_variance:
        outputs.append(_state("variance", config, "rows"))
    return Contract(
        _name("teacher", guided),
        (
            _state("x", config, "rows"),
            _times(config, "rows"),
            _labels(config, "rows"),
            *_scale(config, guided),
        ),
        tuple(outputs),
        {"rows": rows},
    )


def step_contract(config: DiTConfig, guided: bool, rows: Profile) -> Contract:
    """Contract of :class:`export.graphs.DrafterStep`; see :func:`teacher_contract`."""
    return Contract(
        _name("drafter", guided),
        (
            _state("x", config, "rows"),
            _state("innovation", config, "rows"),
            _times(config, "rows"),
            _labels(config, "rows"),
            _feature("feature", config, guided),
            *_scale(config, guided),
        ),
        (_state("change", config, "rows"), _feature("feature_after", config, guided)),
        {"rows": rows},
    )


def draft_contract(
    config: DiTConfig, guided: bool, window: int, sweeps: int | None, max_batch: int
) -> Contract:
    """Contract of :class:`export.graphs.DraftWindow`.

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
    P = window - 1
    axes = {"batch": Profile(1, 1, max_batch), "rows": Profile(1, window, max_batch * window)}

    def coefficient(name: str) -> TensorSpec:
        return TensorSpec(name, "float32", ("batch", P), 0.1, 1.0)

    inputs = [
        _state("x", config, "batch"),
        _state("noise", config, "batch", P),
        *(coefficient(name) for name in ("a", "b", "sigma", "sigma_before")),
        _times(config, "batch", P),
        _labels(config, "batch"),
        coefficient("slope"),
        _state("intercept", config, "batch", P),
        TensorSpec("settled", "bool", ("batch", P)),
        _state("guess_before", config, "batch"),
        _state("mean_before", config, "batch"),
        _feature("feature", config, guided),
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
        (_state("states", config, "batch", window), _state("means", config, "batch", P)),
        axes,
    )


def _name(graph: str, guided: bool) -> str:
    return f"{graph}_guided" if guided else graph


def _state(name: str, config: DiTConfig, *axes: int | str) -> TensorSpec:
    size = config.image_size
    return TensorSpec(name, "float32", (*axes, config.channels, size, size))


def _times(config: DiTConfig, *axes: int | str) -> TensorSpec:
    if config.prediction == "velocity":
        return TensorSpec("t", "float32", axes, 0.0, 1.0)
    return TensorSpec("t", "int64", axes, 0, 1000)


def _labels(config: DiTConfig, axis: str) -> TensorSpec:
    return TensorSpec("y", "int64", (axis,), 0, config.labels)


def _feature(name: str, config: DiTConfig, guided: bool) -> TensorSpec:
    tokens = (config.image_size // config.patch_size) ** 2
    pair = (2,) if guided else ()
    return TensorSpec(name, "float32", ("rows", *pair, tokens, config.hidden_size))


def _scale(config: DiTConfig, guided: bool) -> tuple[TensorSpec, ...]:
    """Guidance scale of each channel."""
    return (TensorSpec("cfg_scale", "float32", (config.channels,), 1.0, 4.0),) if guided else ()
