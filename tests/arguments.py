"""Records of the arguments of an op."""

import inspect
from collections import namedtuple
from typing import Any

from free import reference


def arguments(op: str, *without: str, **defaults: Any) -> Any:
    """A named tuple with a field for each parameter, in their order and with their defaults."""
    parameters = inspect.signature(getattr(reference, op)).parameters.values()
    kept = [p for p in parameters if p.name not in without]
    known = {p.name: p.default for p in kept if p.default is not p.empty} | defaults
    fields = [p.name for p in kept]
    return namedtuple(op, fields, defaults=[known[name] for name in fields if name in known])
