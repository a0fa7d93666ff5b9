"""Drafters: cheap guesses of the teacher's eps."""

from free.drafters.feature import FeatureDrafter
from free.drafters.frozen import FrozenDrafter
from free.drafters.protocol import Anchored, Drafter, DraftingBatch

__all__ = ["Anchored", "Drafter", "DraftingBatch", "FeatureDrafter", "FrozenDrafter"]
