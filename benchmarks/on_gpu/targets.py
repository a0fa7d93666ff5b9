"""What was aimed for, and whether it was reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from on_gpu.kernels import ALIKE

Record = dict[str, dict[str, Any]]


class Target(NamedTuple):
    """A figure that the design is made for.

    Attributes
    ----------
    name : str
    section : str
    find : callable
        The figure, from the section's record; raises LookupError, TypeError or ValueError where it
        was not measured.
    limit : float
    at_least : bool
        Or at most.
    """

    name: str
    section: str
    find: Callable[[dict[str, Any]], Any]
    limit: float
    at_least: bool


def _kernel(section: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    """Rows of verify_window; fast and wrong is no result."""
    rows = [
        row
        for row in section["rows"]
        if row["op"] == "verify_window" and all(row[name] == v for name, v in wanted.items())
    ]
    for row in rows:
        if not row["difference"] < ALIKE:
            raise ValueError(f"the op differs from its twin by {row['difference']:g}")
    return rows


def _embedded(section: dict[str, Any]) -> float:
    plain = next(
        row
        for row in section["rows"]
        if row["window"] == 1 and row["batch"] == 1 and row["graph"] is None
    )
    if plain["execution"] != "graph":
        raise ValueError(f"the plain sampler ran {plain['execution']}")
    return float(section["best"]["1"]["speedup"])


def _not_networks(section: dict[str, Any]) -> float:
    for row in section["rows"]:
        if row["execution"] != "graph":
            raise ValueError(f"the round ran {row['execution']}")
    return max(float(row["not_networks"]) for row in section["rows"])


def _waits(found: dict[str, Any]) -> float:
    if found["execution"] != "graph":
        raise ValueError(f"the rounds ran {found['execution']}")
    if not any("GraphLaunch" in call for call in found["calls_a_round"]):
        raise ValueError("the profiler saw no graph being launched")
    return float(found["waits_a_round"])


def _policies(section: dict[str, Any]) -> float:
    """The best of the policy that gains least."""
    rows = section["rows"]
    for row in rows:
        if not row["trained"]:
            raise ValueError("the policies are not trained")
        if row["execution"] != "graph":
            raise ValueError(f"chunks ran {row['execution']}")
    names = {row["policy"] for row in rows}
    return min(max(row["speedup"] for row in rows if row["policy"] == name) for name in names)


TARGETS = (
    Target(
        "verify_window, B=256 W=8 D=16384: share of the copy's bandwidth",
        "kernels",
        lambda found: _kernel(found, B=256, W=8, D=16_384)[0]["of_copy"],
        0.8,
        True,
    ),
    Target(
        "verify_window, B=1 D=4096: us a launch, in a graph",
        "kernels",
        lambda found: 1e6 * _kernel(found, B=1, D=4096)[0]["times"]["graph"]["median"],
        10.0,
        False,
    ),
    Target(
        "verify_window, B=1: times faster than the eager twin, both called from the host",
        "kernels",
        lambda found: min(row["speedup"]["called"] for row in _kernel(found, B=1)),
        10.0,
        True,
    ),
    Target(
        "verify_window, B=1: times faster than the twin, both in a graph",
        "kernels",
        lambda found: min(row["speedup"]["graph"] for row in _kernel(found, B=1)),
        10.0,
        True,
    ),
    Target("embedded model, batch 1: speed-up", "embedded", _embedded, 2.5, True),
    Target("embedded model, batch 1: speed-up aimed for", "embedded", _embedded, 4.0, True),
    Target("policies, one chunk: speed-up", "policies", _policies, 4.0, True),
    Target(
        "DiT-XL/2, a graphed round: share that is no network call",
        "largest",
        _not_networks,
        0.03,
        False,
    ),
    Target(
        "plain sampler: waits for the device, a round",
        "steady",
        lambda found: _waits(found["plain"]),
        0.0,
        False,
    ),
    Target(
        # The host must learn when a sample is done; every few rounds, not in each.
        "speculative sampler: waits for the device, a round",
        "steady",
        lambda found: _waits(found["speculative"]),
        0.25,
        False,
    ),
    Target(
        "10,000 rounds: memory stays flat",
        "steady",
        lambda found: float(found["memory"]["flat"]),
        1.0,
        True,
    ),
)


def judge(record: Record, measured_on_gpu: bool) -> list[dict[str, Any]]:
    """Each target of a section that was run: the figure, and whether it is reached.

    ``met`` is None, and ``why`` says why, where the figure was not measured, or is not a GPU's.
    """
    return [
        _judged(target, record, measured_on_gpu) for target in TARGETS if target.section in record
    ]


def _judged(target: Target, record: Record, measured_on_gpu: bool) -> dict[str, Any]:
    sign = ">=" if target.at_least else "<="
    verdict = {"target": target.name, "wanted": f"{sign} {target.limit:g}"}
    if not measured_on_gpu:
        return verdict | {"measured": None, "met": None, "why": "not a full run on a GPU"}
    try:
        found = target.find(record[target.section])
        value = float(found)
    except (LookupError, StopIteration, TypeError, ValueError) as error:
        why = str(error) if isinstance(error, ValueError) and str(error) else ""
        return verdict | {"measured": None, "met": None, "why": why or "not measured"}
    met = value >= target.limit if target.at_least else value <= target.limit
    return verdict | {"measured": value, "met": met, "why": None}


def line(verdict: dict[str, Any]) -> str:
    """Of the table."""
    word = {True: "yes", False: "NO", None: f"unknown: {verdict['why']}"}[verdict["met"]]
    value = "-" if verdict["measured"] is None else f"{verdict['measured']:.4g}"
    return f"{verdict['target']:<82}{verdict['wanted']:>8}{value:>10}  {word}"
