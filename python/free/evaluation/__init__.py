"""Large sets of images, and figures such as FID of them."""

from free.evaluation.generate import Generated, generate
from free.evaluation.measured import Measured, measure
from free.evaluation.networks import load_network
from free.evaluation.processes import Processes
from free.evaluation.quality import Figure, Quality, named_as_asked, quality

__all__ = [
    "Figure",
    "Generated",
    "Measured",
    "Processes",
    "Quality",
    "generate",
    "load_network",
    "measure",
    "named_as_asked",
    "quality",
]
