"""Folders of pipelines: diffusers' and our own.

Both have ``model_index.json``, ``vae/`` and ``scheduler/``; the network is in ``transformer/`` in
the one, in ``teacher/`` beside ``drafter/`` in the other, which is a bundle for all that load one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from free.drafters import FeatureDrafter, FrozenDrafter
from free.drafters.protocol import what_came
from free.files import parse_json, read_json, shown, write_json
from free.images.autoencoder import MODEL_INDEX, load_autoencoder, own_vae
from free.models.checkpoints import bundled_drafter, locate, open_source, teacher_file
from free.models.dit import DiT
from free.models.wrappers import unwrap
from free.pipeline.scheduler import as_scheduler
from free.pipeline.words import Words
from free.pretrained import load_pretrained

#: Entry of the index for what diffusers has no word for.
_OWN = "_free"

_SCHEDULER = Path("scheduler") / "scheduler_config.json"


def read(
    source: str | Path,
    words: Words,
    *,
    drafter: Any,
    vae: Any,
    scheduler: Any,
    constants: str | None,
) -> dict[str, Any]:
    """Load the parts of a pipeline; see :meth:`free.FreePipeline.from_pretrained`.

    Returns the constructor's arguments, and ``sampling``: the settings it was saved with.
    """
    path = locate(source, variant=words.variant, access=words.access_to_source)
    index = read_json(path / MODEL_INDEX, "pipeline") if (path / MODEL_INDEX).is_file() else {}
    own = _own(index, path / MODEL_INDEX)
    config = read_json(path / _SCHEDULER, "scheduler") if (path / _SCHEDULER).is_file() else None
    # Before the weights: nothing is loaded for a sampler that is refused.
    scheduler = as_scheduler(scheduler, config)

    if own.get("drafter") not in (None, "frozen"):
        raise ValueError(
            f"{path / MODEL_INDEX} must name no drafter but 'frozen' (others lie in the folder), "
            f"got {shown(own['drafter'])}"
        )
    ready = not (drafter is None or isinstance(drafter, (str, Path)))
    source_of_drafter = own.get("drafter") if drafter is None else drafter
    if source_of_drafter is None:
        source_of_drafter = bundled_drafter(path)
    elif not ready and source_of_drafter != "frozen":
        source_of_drafter = locate(source_of_drafter, "drafter", access=words.access)
    weights = path
    if words.variant is not None or words.use_safetensors:
        weights = teacher_file(path, words.variant)
    if words.use_safetensors and ".safetensors" not in weights.suffixes:
        raise ValueError(
            f"use_safetensors must be left out for {weights}, which has none: what is pickled is "
            "read, and nothing in it is run"
        )
    transformer, of_folder = load_pretrained(
        weights,
        "frozen" if ready or source_of_drafter is None else source_of_drafter,
        dtype=words.torch_dtype,
        constants=constants,
    )
    variant, access = None, words.access
    if vae is None and (vae := own_vae(source, path)) is not None:
        variant, access = words.variant, words.access_to_source
    if isinstance(vae, (str, Path)):
        vae = load_autoencoder(
            vae,
            dtype=words.torch_dtype,
            variant=variant,
            use_safetensors=words.use_safetensors,
            access=access,
        )
    return {
        "transformer": transformer,
        "vae": getattr(vae, "vae", vae),
        "scheduler": scheduler,
        "drafter": drafter if ready else of_folder,
        "id2label": index.get("id2label") or _named(weights),
        "cfg_channels": own.get("cfg_channels"),
        # The settings of one drafter would not serve another.
        "sampling": own.get("sampling", {}) if drafter is None else {},
    }


def _named(weights: Path) -> dict[int, str] | None:
    """Class names by id, where the folder that a teacher was trained on had them."""
    return dict(enumerate(open_source(weights, "teacher").class_names)) or None


def _own(index: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What an index says in this package's own words."""
    own = index.get(_OWN, {})
    if not isinstance(own, dict) or not isinstance(own.get("sampling", {}), dict):
        raise ValueError(f"{_OWN} in {path} must be an object with settings, got {shown(own)}")
    return own


def write(
    folder: str | Path,
    components: Mapping[str, Any],
    labels: Mapping[str, int],
    sampling: Mapping[str, Any],
    cfg_channels: int | None,
) -> None:
    """Save the parts of a pipeline; see :meth:`free.FreePipeline.save_pretrained`."""
    folder = Path(folder)
    drafter, transformer = components["drafter"], components["transformer"]
    if isinstance(transformer, nn.Module):
        transformer = unwrap(transformer)
    if not isinstance(transformer, DiT):
        raise ValueError(f"transformer must be a DiT to be saved, got {type(transformer).__name__}")
    frozen = isinstance(drafter, FrozenDrafter) and drafter.keep == "image"
    if not frozen and not isinstance(drafter, FeatureDrafter):
        raise ValueError(
            "drafter must be a FeatureDrafter or FrozenDrafter() to be saved, "
            f"got {what_came(drafter)}"
        )
    scheduler = components["scheduler"]
    if not hasattr(scheduler, "config"):
        raise ValueError(
            f"scheduler must be one of diffusers to be saved, got {type(scheduler).__name__}"
        )

    transformer.save_pretrained(folder / "teacher")
    if isinstance(drafter, FeatureDrafter):
        drafter.network.save_pretrained(folder / "drafter", sampling=drafter.sampling)
    if components["vae"] is not None:
        _write_vae(components["vae"], folder / "vae")
    write_json(folder / _SCHEDULER, parse_json(scheduler.to_json_string()))
    names: dict[int, list[str]] = {}
    for name, label in labels.items():
        names.setdefault(label, []).append(name)
    write_json(
        folder / MODEL_INDEX,
        {
            "_class_name": "FreePipeline",
            "vae": [None, None] if components["vae"] is None else ["diffusers", "AutoencoderKL"],
            "scheduler": ["diffusers", type(scheduler).__name__],
            "id2label": {str(label): ", ".join(names[label]) for label in sorted(names)},
            _OWN: {
                "drafter": "frozen" if frozen else None,
                "sampling": dict(sampling),
                "cfg_channels": cfg_channels,
            },
        },
    )


def _write_vae(vae: Any, folder: Path) -> None:
    """Write a VAE as diffusers does, but each file atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".vae-") as temporary:
        vae.save_pretrained(temporary)
        # The configuration last, as it is read first.
        for path in sorted(Path(temporary).iterdir(), key=lambda path: path.name == "config.json"):
            path.replace(folder / path.name)
