"""Configurations: ``config.json`` of our own folders and of diffusers', to and from DiTConfig."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from free.files import read_json, shown
from free.models.config import DIT_SIZES, DiTConfig, check_flag, check_size

#: The second is what DiTs were saved as before diffusers gave them a class of their own.
DIFFUSERS_CLASSES = ("DiTTransformer2DModel", "Transformer2DModel")
_KINDS = {"dit": "teacher", "drafter": "drafter"}
_SAMPLING = {"window", "sweeps", "recycle", "acceptance"}
#: Private keys are the ones that diffusers passes over without a word.
_EXTRAS = "_free"
#: What DiT is in diffusers' terms; a file that says otherwise is another model.
_FIXED = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": False,
    "norm_type": "ada_norm_zero",
}
_DIFFUSERS_NORM_EPS = 1e-5
_DIFFUSERS_SIZES = {"num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4}


def with_constants(config: DiTConfig, constants: str | None, form: str) -> DiTConfig:
    """Put the constants asked for into the configuration of a checkpoint in format ``form``.

    ``"original"`` and ``"diffusers"`` are what either would compute with; diffusers takes the
    epsilon of a configuration in its own format, else its default. None changes nothing.

    Raises ValueError if ``constants`` is none of these.
    """
    if constants is None:
        return config
    if constants not in ("original", "diffusers"):
        raise ValueError(f"constants must be 'original', 'diffusers' or None, got {constants!r}")
    if constants == "original":
        return dataclasses.replace(config, timestep_divisor=128, norm_eps=1e-6)
    norm_eps = config.norm_eps if form == "diffusers" else _DIFFUSERS_NORM_EPS
    return dataclasses.replace(config, timestep_divisor=127, norm_eps=norm_eps)


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a checkpoint is, as its configuration or its tensors tell.

    Attributes
    ----------
    format : {"original", "training", "diffusers", "free"}
        ``"training"`` is the original's training checkpoint, of which the averaged weights count.
    kind : {"teacher", "drafter"}
    config : DiTConfig
        With the format's constants; of a drafter, its teacher's shape.
    training : dict or None
        How it was trained, where the format has a place for that.
    sampling : dict
        Settings that a drafter recommends.
    options : dict
        ``depth`` and ``gate`` of :class:`free.DrafterNet`; empty for a teacher. Files older than
        the two mean 1 and False.
    """

    format: str
    kind: str
    config: DiTConfig
    training: dict[str, Any] | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of classes 0, 1, ..., where the folder it was trained on has them; else none."""
        data = (self.training or {}).get("data")
        names = data.get("classes") if isinstance(data, dict) else None
        if not isinstance(names, list) or len(names) != self.config.num_classes:
            return ()
        # A number is the id of a class, whatever a folder of this name was.
        known = all(isinstance(name, str) and not name.isdigit() for name in names)
        return tuple(names) if known else ()


def read_config(path: Path) -> Description:
    """Read a ``config.json``, ours or that of diffusers.

    Raises ValueError if it is missing, malformed, or of another model.
    """
    record = read_json(path, "configuration")
    if "_class_name" in record:
        return _from_diffusers(record, path)
    try:
        kind = _KINDS[record["kind"]]
        config = DiTConfig(**record["architecture"])
        options = {} if kind == "teacher" else _drafter_options(record, config)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is missing or malformed: {shown(error)}") from error
    sampling = record.get("sampling", {})
    if not isinstance(sampling, dict) or not sampling.keys() <= _SAMPLING:
        raise ValueError(
            f"sampling in {path} must have keys {sorted(_SAMPLING)}, got {shown(sampling)}"
        )
    return Description(
        format="free",
        kind=kind,
        config=config,
        training=record.get("training"),
        sampling=sampling,
        options=options,
    )


def _drafter_options(record: dict[str, Any], config: DiTConfig) -> dict[str, Any]:
    return {
        "depth": check_size("depth", record.get("depth", 1), config.depth),
        "gate": check_flag("gate", record.get("gate", False)),
    }


def config_to_own(about: Description) -> dict[str, Any]:
    """Our own ``config.json``."""
    names = {kind: name for name, kind in _KINDS.items()}
    record = {
        "kind": names[about.kind],
        "architecture": dataclasses.asdict(about.config),
        **about.options,
    }
    if about.training is not None:
        record["training"] = about.training
    if about.sampling:
        record["sampling"] = about.sampling
    return record


def _from_diffusers(record: dict[str, Any], path: Path) -> Description:
    if record["_class_name"] not in DIFFUSERS_CLASSES:
        raise ValueError(f"{path} must describe a DiT, got {shown(record['_class_name'])}")
    extras = record.get(_EXTRAS)
    extras = extras if isinstance(extras, dict) else {}
    config = config_from_diffusers(record, path, extras.get("timestep_divisor", 127))
    training = extras.get("training")
    return Description(format="diffusers", kind="teacher", config=config, training=training)


def config_from_diffusers(
    record: Mapping[str, Any], path: Path, timestep_divisor: int = 127
) -> DiTConfig:
    """The architecture in a configuration of diffusers.

    Raises ValueError if it is of another model, or malformed.
    """
    if record["_class_name"] == "Transformer2DModel":
        record = {"norm_type": None, **record}  # the class had several
    others = [
        f"{name} {shown(record[name])}"
        for name, value in _FIXED.items()
        if record.get(name, value) != value
    ]
    if others:
        raise ValueError(f"{path} must describe a DiT, got {', '.join(others)}")
    try:
        heads, width, channels = (
            check_size(name, record.get(name, default), 2**16)  # before they are multiplied
            for name, default in _DIFFUSERS_SIZES.items()
        )
        outputs = record.get("out_channels") or channels
        if outputs not in (channels, 2 * channels):
            raise ValueError(f"out_channels must be {channels} or {2 * channels}, got {outputs}")
        return DiTConfig(
            record.get("sample_size", 32),
            record.get("patch_size", 2),
            channels,
            heads * width,
            record.get("num_layers", 28),
            heads,
            num_classes=record.get("num_embeds_ada_norm", 1000),
            learn_sigma=outputs == 2 * channels,
            timestep_divisor=timestep_divisor,
            norm_eps=record.get("norm_eps", _DIFFUSERS_NORM_EPS),
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is missing or malformed: {shown(error)}") from error


def config_to_diffusers(about: Description) -> dict[str, Any]:
    """The ``config.json`` of diffusers, with what it has no word for in a private key.

    Raises ValueError if diffusers has no such DiT.
    """
    config = about.config
    if not config.null_class:
        raise ValueError("format 'diffusers' must have a null class, got a network without one")
    if config.prediction != "epsilon":
        raise ValueError(
            f"format 'diffusers' must predict epsilon, got a network that predicts a "
            f"{config.prediction}: diffusers' pipeline of DiT would sample something else"
        )
    if config.qk_norm:
        raise ValueError("format 'diffusers' must have no qk_norm, got a network with it")
    if config.mlp_ratio != 4:
        raise ValueError(
            f"format 'diffusers' must have an mlp_ratio of 4, got one of {config.mlp_ratio:g}"
        )
    extras: dict[str, Any] = {"timestep_divisor": config.timestep_divisor}
    if about.training is not None:
        extras["training"] = about.training
    return {
        "_class_name": DIFFUSERS_CLASSES[0],
        _EXTRAS: extras,
        **_FIXED,
        "attention_head_dim": config.hidden_size // config.heads,
        "dropout": 0.0,
        "in_channels": config.channels,
        "norm_eps": config.norm_eps,
        "norm_num_groups": 32,
        "num_attention_heads": config.heads,
        "num_embeds_ada_norm": config.num_classes,
        "num_layers": config.depth,
        "out_channels": config.channels * (2 if config.learn_sigma else 1),
        "patch_size": config.patch_size,
        "sample_size": config.image_size,
        "upcast_attention": False,
    }


def published_name(config: DiTConfig) -> str | None:
    """``"DiT-XL/2 at 256"`` and the like, or None if it is not a published size."""
    shape = (config.hidden_size, config.depth, config.heads)
    sizes = {dims: name for name, dims in DIT_SIZES.items()}
    if shape not in sizes or config.patch_size not in (2, 4, 8) or config.mlp_ratio != 4:
        return None
    name = f"{config.acronym}-{sizes[shape]}/{config.patch_size}"
    return f"{name} at {8 * config.image_size}" if config.channels == 4 else name


def described_prediction(config: DiTConfig) -> str:
    """What a network predicts, in words."""
    if config.prediction == "epsilon":
        return "eps and variance" if config.learn_sigma else "eps"
    own = ", from weights of SiT's time, which runs the other way" if config.reversed_time else ""
    return f"the velocity n - x0 at times from 0 (image x0) to 1 (noise n){own}"
