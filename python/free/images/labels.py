"""Class names, and the ids they stand for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from free.files import read_json, shown

_IMAGENET = Path(__file__).resolve().parents[1] / "assets" / "imagenet_labels.json"


def imagenet_names() -> dict[int, str]:
    """Names of ImageNet's 1000 classes: id to names, comma-separated, the usual one first.

    They are the lemmas of the classes' synsets in WordNet 3.0 (Princeton University), in the order
    of the ILSVRC 2012 challenge.
    """
    return dict(enumerate(read_json(_IMAGENET, "class names", list)))


def label_table(names: Mapping[int, str] | Mapping[str, str]) -> dict[str, int]:
    """Name to id, sorted by name; every name of a class leads to it.

    ``names`` are diffusers' ``id2label``: id (or its decimal digits, as JSON has it) to
    comma-separated names. A name of several classes leads to the last of them, as in diffusers. A
    ValueError if an id is no integer or a name no string.
    """
    if not isinstance(names, Mapping):
        raise ValueError(f"id2label must map class ids to names, got {shown(names)}")
    table = {}
    for key, value in names.items():
        try:
            table.update({name.strip(): int(key) for name in value.split(",")})
        except (AttributeError, ValueError) as error:
            raise ValueError(
                f"id2label must map class ids to names, got {shown(key)}: {shown(value)}"
            ) from error
    return dict(sorted(table.items()))


def class_ids(
    labels: Sequence[int | str], table: Mapping[str, int], argument: str = "class_labels"
) -> list[int]:
    """Ids of classes given by id, or by name in a :func:`label_table`.

    A ValueError if a name is not in the table; it suggests the nearest, and calls the labels as
    ``argument`` does.
    """
    unknown = next((name for name in labels if isinstance(name, str) and name not in table), None)
    if unknown is None:
        return [table[label] if isinstance(label, str) else label for label in labels]
    if not table:
        raise ValueError(
            f"{argument} must be ids, this model's classes have no names, got {unknown!r}"
        )
    by_folded_name = {name.casefold(): name for name in table}
    nearest = difflib.get_close_matches(unknown.casefold(), by_folded_name, n=1, cutoff=0.0)
    raise ValueError(
        f"{argument} must be ids or names of the model's classes, got {unknown!r}: "
        f"did you mean {by_folded_name[nearest[0]]!r}?"
    )
