"""Figures such as FID of large sets of images, with intervals."""

from free.evaluation.feature_networks import load_network
from free.evaluation.measured import Measured, measure
from free.evaluation.quality import Figure, Quality, named_as_asked, quality

__all__ = [
    "Figure",
    "Measured",
    "Quality",
    "load_network",
    "measure",
    "named_as_asked",
    "quality",
]
