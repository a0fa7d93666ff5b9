"""Drafters: cheap guesses of the teacher's eps."""

from free.drafters.feature import FeatureDrafter
from free.drafters.frozen import FrozenDrafter
from free.drafters.protocol import Drafter, DraftingBatch

__all__ = ["Drafter", "DraftingBatch", "FeatureDrafter", "FrozenDrafter"]
