"""What decides every byte of a set of images, written down: two runs are one if these agree."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from free.files import cut, read_json, write_json
from free.generation.plan import Plan
from free.images.autoencoder import LatentCoder, PixelCoder
from free.models.guidance import Guidance
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler
from free.version import __version__

#: Name of the file that says whose a folder is.
MANIFEST = "manifest.json"
#: Characters of what two runs differ in.
_LONGEST = 500


def describe_run(
    sampler: SpeculativeSampler | SequentialSampler,
    coder: LatentCoder | PixelCoder,
    plan: Plan,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """The settings of a run, as JSON values; a ValueError if the VAE does not fit the teacher.

    Weights are described by their digests. Versions, kind of device and CPU threads are among the
    settings because results differ by rounding between them.
    """
    schedule = sampler.schedule
    teacher: Any = sampler.teacher
    guidance: Guidance | None = sampler.guidance
    drafting: dict[str, Any] = {}
    if isinstance(sampler, SpeculativeSampler):
        names = ("window", "sweeps", "recycle", "verifier")
        drafting = {name: getattr(sampler, name) for name in names}
        if sampler.tolerance is not None:
            drafting["tolerance"] = sampler.tolerance
        drafting["drafter"] = _describe_part(sampler.drafter)
    return {
        "num": len(plan.labels),
        "image_shape": list(coder.image_shape(teacher.sample_shape)),
        "labels": _digest(plan.labels),
        "seed": seed,
        "batch_size": plan.batch_size,
        "sampler": type(sampler).__name__,
        "steps": len(schedule),
        "schedule": hashlib.sha256(repr(schedule.key()).encode()).hexdigest(),
        "mixture": schedule.mixture and _describe_part(schedule.mixture),
        "cfg_scale": guidance.scale if guidance else 1.0,
        "cfg_channels": guidance.channels if guidance else None,
        **drafting,
        "teacher": _describe_part(teacher),
        "vae": None
        if isinstance(coder, PixelCoder)
        else {"scale": coder.scale, "shift": coder.shift, **_describe_part(coder.vae)},
        "device": device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "free": __version__,
        "torch": torch.__version__,
    }


def _describe_part(part: Any) -> dict[str, Any]:
    """A network by its weights; anything else by its name and plain attributes."""
    network = getattr(part, "network", part)
    config = getattr(network, "config", None)
    record: dict[str, Any] = {"type": type(part).__name__}
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        record["config"] = dataclasses.asdict(config)
    if isinstance(network, nn.Module):
        record["weights"] = _digest_network(network)
    elif hasattr(part, "keep"):
        record["keep"] = part.keep
    return record


def _digest_network(network: nn.Module) -> str:
    """SHA-256 of all weights with their names, precisions and shapes."""
    value = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        value.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().flatten().view(torch.uint8)
        value.update(flat.cpu().numpy().data)
    return value.hexdigest()


def _digest(*columns: np.ndarray[Any, Any]) -> str:
    value = hashlib.sha256()
    for column in columns:
        value.update(f"{column.dtype} {column.shape}".encode())
        value.update(np.ascontiguousarray(column).tobytes())
    return value.hexdigest()


def differences(there: dict[str, Any], here: dict[str, Any]) -> str:
    """How other settings differ from these, such as ``"steps 250, not 50"``; "" if they do not."""
    others, own = _flat(there), _flat(here)
    return cut(
        ", ".join(
            f"{name} {_short(others.get(name))}, not {_short(own.get(name))}"
            for name in dict.fromkeys([*own, *others])
            if others.get(name) != own.get(name)
        ),
        _LONGEST,
    )


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            entries.update(_flat(value, f"{prefix}{name}."))
        else:
            entries[prefix + name] = value
    return entries


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:12]}..."


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The settings of the run whose folder it is, or None if it does not say."""
    try:
        return read_json(folder / MANIFEST, "manifest")
    except ValueError:
        return None


def claim(folder: Path, settings: dict[str, Any], pattern: str, argument: str) -> None:
    """Make a folder this run's, created if it is missing, or find that it is.

    A folder that has files of the ``pattern`` that the run puts there, and does not say that they
    are this run's, is not taken. A ValueError says what differs from another run's settings;
    ``argument`` is what it says about whose folder it is.
    """
    path = folder / MANIFEST
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{argument} must be a folder, got the file {folder}")
    if (file := next(folder.glob(pattern), None)) is None:
        write_json(path, settings)
        return
    if not path.is_file():
        raise ValueError(
            f"{argument} must be new or without such files, got {folder} with {file.name}"
        )
    there = read_manifest(folder)
    other = "a damaged manifest" if there is None else differences(there, settings)
    if other:
        raise ValueError(
            f"{argument} must be of a run with the same settings, got {folder} with {other}; "
            "remove it, or choose another name"
        )
