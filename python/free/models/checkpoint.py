"""Our own format: a folder with ``config.json`` and ``model.safetensors``.

A *bundle* is a folder with one such folder for the teacher and one for its drafter.
Loading never executes anything from a file.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from free.files import write_atomic, write_json
from free.models.dit import DiT, DiTConfig
from free.models.drafter import DrafterNet

__all__ = ["EMBEDDED", "bundle_path", "load_network", "load_sampling", "load_state", "save_network"]

_ASSETS = Path(__file__).resolve().parent.parent / "assets"
#: Bundles that come with the package.
EMBEDDED = ("mnist",)

_KINDS: dict[str, type[DiT] | type[DrafterNet]] = {"dit": DiT, "drafter": DrafterNet}


def bundle_path(name: str | Path) -> Path:
    """Folder of a bundle: an embedded name, or a path.

    Raises
    ------
    ValueError
        If it is neither.
    """
    path = _ASSETS / str(name) if str(name) in EMBEDDED else Path(name)
    if not (path / "teacher" / "config.json").is_file():
        raise ValueError(
            f"model must be one of {', '.join(EMBEDDED)} or a folder with teacher/config.json, "
            f"got {str(name)!r}"
        )
    return path


def save_network(
    network: DiT | DrafterNet,
    folder: str | Path,
    training: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    sampling: dict[str, Any] | None = None,
) -> None:
    """Write a network to ``folder``, each file atomically.

    Parameters
    ----------
    network : DiT or DrafterNet
    folder : str or Path
    training : dict, optional
        How it was trained; kept in ``config.json``.
    dtype : torch.dtype, optional
        Precision to store floating-point values in; default as they are.
    sampling : dict, optional
        Of a drafter: the settings it serves best with; see :func:`load_sampling`.
    """
    folder = Path(folder)
    kind = next(key for key, cls in _KINDS.items() if type(network) is cls)
    state = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    if dtype is not None:
        state = {name: value.to(dtype) for name, value in state.items()}
    write_atomic(folder / "model.safetensors", lambda path: save_file(state, path))
    config = {"kind": kind, "architecture": dataclasses.asdict(network.config)}
    if training is not None:
        config["training"] = training
    if sampling is not None:
        config["sampling"] = sampling
    write_json(folder / "config.json", config)


def load_network(
    folder: str | Path, kind: str, device: torch.device | str = "cpu"
) -> DiT | DrafterNet:
    """Read a network back, in float32 and evaluation mode, without gradients.

    Parameters
    ----------
    folder : str or Path
        As written by :func:`save_network`.
    kind : {"dit", "drafter"}
        What it must be.
    device : torch.device or str

    Raises
    ------
    ValueError
        If a file is missing, truncated or of another kind, or a weight is missing,
        unexpected or of another shape.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        architecture = DiTConfig(**config["architecture"])
        found = config["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'} is missing or malformed: {error!r}") from error
    if found != kind:
        raise ValueError(f"{folder} must hold a {kind!r} network, got {found!r}")
    network = _KINDS[kind](architecture)
    load_state(network, folder / "model.safetensors")
    return network.to(device).eval().requires_grad_(False)


def load_sampling(folder: str | Path) -> dict[str, Any]:
    """The sampler's settings that a drafter's ``config.json`` recommends.

    Returns
    -------
    dict
        Some of ``window``, ``sweeps`` and ``recycle`` of :class:`free.SpeculativeSampler`, which
        checks their values; empty if nothing is recommended.

    Raises
    ------
    ValueError
        If there are other keys.
    """
    path = Path(folder) / "config.json"
    sampling = json.loads(path.read_text(encoding="utf-8")).get("sampling", {})
    known = {"window", "sweeps", "recycle"}
    if not isinstance(sampling, dict) or not sampling.keys() <= known:
        raise ValueError(f"sampling in {path} must have keys {sorted(known)}, got {sampling!r}")
    return sampling


def load_state(network: nn.Module, path: Path) -> None:
    """Load a safetensors file into ``network``, every key checked.

    Raises
    ------
    ValueError
        If the file is missing or truncated, or keys or shapes differ; lists them.
    """
    try:
        state: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"weights {path} are missing or truncated: {error}") from error
    own = network.state_dict()
    problems = [f"missing {name}" for name in sorted(own.keys() - state.keys())]
    problems += [f"unexpected {name}" for name in sorted(state.keys() - own.keys())]
    problems += [
        f"{name} has shape {list(state[name].shape)}, expected {list(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if state[name].shape != own[name].shape
    ]
    if problems:
        raise ValueError(f"weights {path} do not fit the architecture: " + "; ".join(problems))
    network.load_state_dict(state)
