"""Which rows of a teacher call the next window recycles, and what they tell."""

from __future__ import annotations

from free import reference
from free.ops.operator import operator
from free.reference.recycle import RecycledRows, ResponseSums

__all__ = ["RecycledRows", "ResponseSums", "recycled_rows", "response_sums"]

recycled_rows = operator(reference.recycled_rows, RecycledRows)
response_sums = operator(reference.response_sums, ResponseSums)
