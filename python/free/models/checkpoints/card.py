"""The model card: ``README.md`` of a saved network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from free.files import write_atomic
from free.models.checkpoints.configs import published_name
from free.models.config import DiTConfig

__all__ = ["write_card"]

_MARK = "<!-- Written by free-dit at every save. Remove this line to keep your own text. -->"

_LOAD = {
    ("teacher", "free"): 'teacher = free.DiT.from_pretrained("path/of/this/folder")',
    ("teacher", "diffusers"): 'teacher = free.DiT.from_pretrained("path/of/this/folder")',
    ("drafter", "free"): (
        'drafter = free.FeatureDrafter.from_pretrained("path/of/this/folder", teacher)'
    ),
}


def write_card(
    folder: Path,
    kind: str,
    form: str,
    config: DiTConfig,
    options: dict[str, Any],
    training: dict[str, Any] | None,
) -> None:
    """Write ``folder/README.md``, unless it is there and somebody's own.

    Parameters
    ----------
    folder : Path
    kind : {"teacher", "drafter"}
    form : {"free", "diffusers"}
    config : DiTConfig
    options : dict
        What else a drafter is made with.
    training : dict or None
        The training record.
    """
    path = folder / "README.md"
    if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return
    name = published_name(config) or "DiT"
    title = name if kind == "teacher" else f"Drafter for {name}"
    what = (
        "A class-conditional Diffusion Transformer."
        if kind == "teacher"
        else "A drafter for speculative sampling from a Diffusion Transformer of this shape: it "
        "makes sampling faster and does not change the law of the images."
    )
    shape = {
        "input": f"{config.channels} x {config.image_size} x {config.image_size}",
        "patch": config.patch_size,
        "width": config.hidden_size,
        "blocks": options.get("depth", config.depth),
        **(
            {"gate": "yes" if options["gate"] else "no", "blocks of its teacher": config.depth}
            if kind == "drafter"
            else {}
        ),
        "attention heads": config.heads,
        "classes": config.num_classes,
        "learned variance": "yes" if config.learn_sigma else "no",
        "timestep divisor": config.timestep_divisor,
        "norm epsilon before MLPs": f"{config.norm_eps:g}",
    }
    tags = ["dit", "class-conditional", *(["speculative-sampling"] if kind == "drafter" else [])]
    lines = [
        "---",
        f"library_name: {'diffusers' if form == 'diffusers' else 'free-dit'}",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
        _MARK,
        "",
        f"# {title}",
        "",
        what,
        "",
        "```python",
        "import free",
        "",
        _LOAD[kind, form],
        "```",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in shape.items()),
        "",
        *_caution(form, config),
        "## Training",
        "",
        *(
            ["```json", json.dumps(training, indent=2, allow_nan=False), "```"]
            if training
            else ["No record."]
        ),
    ]
    write_atomic(path, lambda file: file.write_text("\n".join(lines) + "\n", encoding="utf-8"))


def _caution(form: str, config: DiTConfig) -> list[str]:
    """What a reader of diffusers' format could not know."""
    if form != "diffusers" or config.timestep_divisor == 127:
        return []
    return [
        "diffusers itself computes with a timestep divisor of 127, whatever this table says; its "
        "output differs by some per cent.",
        "",
    ]
