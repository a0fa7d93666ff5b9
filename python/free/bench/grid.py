"""Grids of settings on one model: what each costs, what its images are worth, how exact it is."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

from free.evaluation.bootstrap import QUANTILE
from free.evaluation.quality import Figure, Quality
from free.files import parse_json, read_json, shown, write_json
from free.generation.batches import draw_batches
from free.generation.run_manifest import differences
from free.images.autoencoder import LatentCoder, PixelCoder
from free.rounds.report import Report
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler

Sampler = SpeculativeSampler | SequentialSampler
Row = dict[str, Any]
#: What of a setting is its law.
LAW = ("steps", "variance", "stochasticity", "sde", "law", "scheduler")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One combination of a grid, in the words of the command line.

    Those of :data:`LAW` are the law. Window 1 is the sequential sampler.
    ``relax`` is "none", or ``RULE:STRENGTH[:BUDGET]``.
    """

    steps: int = 250
    variance: str = "posterior"
    stochasticity: float | None = 1.0
    sde: bool = False
    law: str | None = None
    scheduler: str | None = None
    window: int | str = 8
    sweeps: int | str | None = None
    recycle: bool | str = False
    verifier: str = "reflection"
    relax: str = "none"
    uncertainty: str = "discrepancy"

    def plain(self) -> Setting:
        """The sequential sampler of the same law."""
        return Setting(**{name: getattr(self, name) for name in LAW}, window=1)

    def exact(self) -> Setting:
        """Drop the relaxation."""
        return dataclasses.replace(self, relax="none", uncertainty="discrepancy")


def grid(
    *,
    steps: Sequence[int],
    variances: Sequence[str],
    stochasticities: Sequence[float | None],
    sde: bool,
    laws: Sequence[str | None] = (None,),
    scheduler: str | None = None,
    drafting: Sequence[Mapping[str, Any]],
    relaxations: Sequence[str],
    uncertainty: str = "discrepancy",
) -> list[Setting]:
    """All combinations, each once; of a law the sequential sampler first.

    ``drafting`` has ``window``, ``sweeps``, ``recycle``, ``verifier``; for window 1 there is
    nothing to draft and nothing to relax. All else are values of the :class:`Setting`'s.
    """
    drafting = sorted(drafting, key=lambda settings: settings["window"] != 1)
    combinations: dict[Setting, None] = {}
    for law in product(steps, variances, stochasticities, [sde], laws, [scheduler]):
        for settings, relax in product(drafting, relaxations):
            setting = Setting(*law, **settings, relax=relax, uncertainty=uncertainty)
            if setting.window == 1:
                setting = setting.plain()
            elif relax == "none":
                setting = setting.exact()
            combinations[setting] = None
    return list(combinations)


def sweep(
    samplers: Mapping[Setting, Sampler],
    labels: Sequence[int],
    coder: LatentCoder | PixelCoder,
    judge: Callable[[Tensor], Quality] | None = None,
    *,
    seed: int = 0,
    batch_size: int = 25,
    rows: Sequence[Row] = (),
    keep: Callable[[list[Row]], object] = lambda rows: None,
    progress: bool = False,
) -> list[Row]:
    """Draw the same labels with every sampler; image ``i`` has the seed ``seed + i`` in each.

    Parameters
    ----------
    coder : LatentCoder or PixelCoder
        Makes images of the samples.
    judge : callable, optional
        ``judge(images [n, C, H, W])`` is their quality.
    batch_size : int
        Images drawn together.
    rows : sequence of dict
        Of earlier runs; their settings are not drawn again.
    keep : callable
        Gets all rows after each new one.

    Returns
    -------
    list of dict
        One for each setting, :func:`row_of`, compared with each other, :func:`compared`.

    Raises
    ------
    ValueError
        If the request is malformed.
    FloatingPointError
        If a network returns NaN or inf.
    """
    rows = list(rows)
    present = {Setting(**row["setting"]) for row in rows}
    missing = [setting for setting in samplers if setting not in present]
    for number, setting in enumerate(missing, 1):
        title = f"{number} of {len(missing)}" if progress else None
        images, report = draw_batches(samplers[setting], coder, labels, seed, batch_size, title)
        rows = compared([*rows, row_of(setting, report, None if judge is None else judge(images))])
        keep(rows)
    return rows


def row_of(setting: Setting, report: Report, quality: Quality | None) -> Row:
    """What a setting did, as JSON values.

    ``rounds`` (of an image), ``tv_bound`` and ``tv_estimate`` are means over the images with 95 %
    intervals; ``seconds`` are for an image; ``rejections`` too. ``acceptance`` is the share of all
    drafts that the teacher saw, ``examined_acceptance`` of those that were decided on; both are
    None where nothing was drafted. ``quality`` has the figures of :func:`free.evaluation.quality`.
    """
    examined, accepted = sum(report.examined_by_step), sum(report.accepted_by_step)
    return {
        "setting": dataclasses.asdict(setting),
        "images": report.samples,
        "rounds": _mean(report.rounds_by_sample),
        "steps_a_round": report.parallel_efficiency,
        "acceptance": report.acceptance if report.proposed else None,
        "examined_acceptance": accepted / examined if examined else None,
        "rejections": (examined - accepted) / report.samples,
        "teacher_rows": report.teacher_rows / report.samples,
        "seconds": report.seconds / report.samples,
        "tv_bound": _mean(report.tv_bound_by_sample),
        "tv_estimate": _mean(report.tv_estimate_by_sample),
        "quality": None
        if quality is None
        else {name: dataclasses.asdict(figure) for name, figure in quality.figures.items()},
    }


def compared(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with what it is beside others.

    ``against_plain``: differences of its quality to the sequential sampler's of the same law, with
    95 % intervals, or None if that was not drawn; ``fewer_rounds``: how many times fewer than
    without relaxation, or None.
    """
    by_setting = {Setting(**row["setting"]): row for row in rows}
    result = []
    for setting, row in by_setting.items():
        plain, exact = by_setting.get(setting.plain()), by_setting.get(setting.exact())
        against = None
        if plain is not None and plain is not row and row["quality"] and plain["quality"]:
            against = {
                name: dataclasses.asdict(
                    difference(Figure(**row["quality"][name]), Figure(**plain["quality"][name]))
                )
                for name in row["quality"].keys() & plain["quality"].keys()
            }
        fewer = None
        if exact is not None and exact is not row:
            fewer = exact["rounds"]["value"] / row["rounds"]["value"]
        result.append(row | {"against_plain": against, "fewer_rounds": fewer})
    return result


def difference(ours: Figure, theirs: Figure) -> Figure:
    """Ours less theirs, of independent figures.

    The interval adds the reaches of theirs by squares (Newcombe 1998, method 10).
    """
    value = ours.value - theirs.value
    if ours.low is None or ours.high is None or theirs.low is None or theirs.high is None:
        return Figure(value)
    below = math.hypot(ours.value - ours.low, theirs.high - theirs.value)
    above = math.hypot(ours.high - ours.value, theirs.value - theirs.low)
    return Figure(value, value - below, value + above)


def read_rows(path: Path, shared: Mapping[str, Any]) -> list[Row]:
    """The rows of an earlier run, as ``free sweep --json`` wrote them.

    A ValueError if it is something else, or was run with other shared settings (those that are not
    of the grid); says which.
    """
    try:
        record = read_json(path, "file")
        other = differences(record["shared"], parse_json(json.dumps(dict(shared))))
        rows: list[Row] = list(record["rows"])
        for row in rows:
            Setting(**row["setting"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"--json must be a file of free sweep to be continued, got {path}: {shown(error)}"
        ) from error
    if other:
        raise ValueError(
            f"--json must be of a run with the same settings to be continued, got {path} with "
            f"{other}"
        )
    return rows


def write_rows(path: Path, shared: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write what :func:`read_rows` reads."""
    write_json(path, {"shared": dict(shared), "rows": list(rows)})


def _mean(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and its 95 % interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return dataclasses.asdict(Figure(mean))
    reach = QUANTILE * statistics.stdev(values) / math.sqrt(len(values))
    return dataclasses.asdict(Figure(mean, mean - reach, mean + reach))
