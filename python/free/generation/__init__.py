"""Images by the thousand: planned, drawn in chunks, over any number of processes."""

from free.generation.generate import Generated, generate
from free.generation.processes import Processes

__all__ = ["Generated", "Processes", "generate"]
