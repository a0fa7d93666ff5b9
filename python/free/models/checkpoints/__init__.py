"""Checkpoints: files of weights in three formats, and networks made of them.

``tensors`` opens files, ``source`` finds out what they are, ``layout`` and ``configs`` know the
formats, ``reading`` and ``writing`` go from a checkpoint to a network and back. No network's class
is known here: it is handed in. Nothing in a file is executed.
"""

from free.models.checkpoints.configs import Description
from free.models.checkpoints.reading import read_drafter, read_teacher
from free.models.checkpoints.source import (
    EMBEDDED,
    bundled_drafter,
    locate,
    only_variant,
    open_source,
    teacher_file,
)
from free.models.checkpoints.writing import FORMATS, is_original_file, write_network

__all__ = [
    "EMBEDDED",
    "FORMATS",
    "Description",
    "bundled_drafter",
    "is_original_file",
    "locate",
    "only_variant",
    "open_source",
    "read_drafter",
    "read_teacher",
    "teacher_file",
    "write_network",
]
