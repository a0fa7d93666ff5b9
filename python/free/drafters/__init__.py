"""Drafters: cheap guesses of the teacher's eps."""

from free.drafters.feature import Anchored, FeatureDrafter
from free.drafters.frozen import FrozenDrafter
from free.drafters.protocol import ChangeDrafter, Drafter, DraftingBatch

__all__ = [
    "Anchored",
    "ChangeDrafter",
    "Drafter",
    "DraftingBatch",
    "FeatureDrafter",
    "FrozenDrafter",
]
