"""The model card: ``README.md`` of a saved network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from free.files import write_atomic
from free.models.checkpoints.configs import Description, described_prediction, published_name

_MARK = "<!-- Written by free-dit at every save. Remove this line to keep your own text. -->"

_WHAT = {
    "teacher": "A class-conditional Diffusion Transformer.",
    "drafter": "A drafter for speculative sampling from a Diffusion Transformer of this shape: it "
    "makes sampling faster and does not change the law of the images.",
}
_LOAD = {
    "teacher": 'teacher = free.DiT.from_pretrained("path/of/this/folder")',
    "drafter": 'drafter = free.FeatureDrafter.from_pretrained("path/of/this/folder", teacher)',
}
#: What a reader of diffusers' format could not know.
_CAUTION = (
    "diffusers itself computes with a timestep divisor of 127, whatever this table says; its "
    "output differs by some per cent.",
    "",
)


def write_card(folder: Path, about: Description) -> None:
    """Write ``folder/README.md``, unless it is there and somebody's own."""
    path = folder / "README.md"
    foreign = path.exists() and not path.is_file()  # to read a pipe would wait for its writer
    if foreign or (path.exists() and _MARK not in path.read_text("utf-8", errors="replace")):
        return
    config, kind, training = about.config, about.kind, about.training
    name = published_name(config) or config.acronym
    own: dict[str, Any] = {"blocks": config.depth}
    if kind == "drafter":
        gate = "yes" if about.options["gate"] else "no"
        depth = about.options["depth"]
        own = {"blocks": depth, "gate": gate, "blocks of its teacher": config.depth}
    shape = {
        "input": f"{config.channels} x {config.image_size} x {config.image_size}",
        "patch": config.patch_size,
        "width": config.hidden_size,
        **own,
        "attention heads": f"{config.heads}{', queries and keys normed' if config.qk_norm else ''}",
        "embedders": "one in each block" if config.block_embedders else "one for all blocks",
        "classes": f"{config.num_classes}{'' if config.null_class else ', no null class'}",
        "predicts" if kind == "teacher" else "its teacher predicts": described_prediction(config),
        "timestep divisor": config.timestep_divisor,
        "norm epsilon before MLPs": f"{config.norm_eps:g}",
    }
    lines = [
        "---",
        f"library_name: {'diffusers' if about.format == 'diffusers' else 'free-dit'}",
        "tags:",
        "- dit",
        "- class-conditional",
        *(["- speculative-sampling"] if kind == "drafter" else []),
        "---",
        _MARK,
        "",
        f"# {'Drafter for ' if kind == 'drafter' else ''}{name}",
        "",
        _WHAT[kind],
        "",
        "```python",
        "import free",
        "",
        _LOAD[kind],
        "```",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in shape.items()),
        "",
        *(_CAUTION if about.format == "diffusers" and config.timestep_divisor != 127 else []),
        "## Training",
        "",
        *(
            ["```json", json.dumps(training, indent=2, allow_nan=False), "```"]
            if training
            else ["No record."]
        ),
    ]
    write_atomic(path, lambda file: file.write_text("\n".join(lines) + "\n", encoding="utf-8"))
