"""Counter-based random rows; :mod:`free.rounds.noise` is the door to them."""

from __future__ import annotations

from free import reference
from free.ops.operator import operator

philox_normal = operator(reference.philox_normal)
philox_uniform = operator(reference.philox_uniform)
