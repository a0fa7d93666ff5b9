"""Large sets of images, for figures such as FID."""

from free.evaluation.generate import Generated, generate
from free.evaluation.processes import Processes

__all__ = ["Generated", "Processes", "generate"]
