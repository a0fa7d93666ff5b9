"""Checkpoints: reading, writing and describing them, in three formats.

``tensors`` opens files, ``source`` finds out what they are, ``layout`` and ``configs`` know the
formats, ``reading`` and ``writing`` go from a checkpoint to a network and back, ``memory``
from a network of diffusers. Nothing in a file
is executed.
"""

from free.models.checkpoints.memory import adopt_transformer
from free.models.checkpoints.reading import read_drafter, read_teacher
from free.models.checkpoints.source import EMBEDDED, bundled_drafter, locate
from free.models.checkpoints.summary import Summary, drafters_beside, inspect
from free.models.checkpoints.writing import FORMATS, is_original_file, write_network

__all__ = [
    "EMBEDDED",
    "FORMATS",
    "Summary",
    "adopt_transformer",
    "bundled_drafter",
    "drafters_beside",
    "inspect",
    "is_original_file",
    "locate",
    "read_drafter",
    "read_teacher",
    "write_network",
]
