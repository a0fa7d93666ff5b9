"""``free tune``: what rounds cost on this machine, what windows promise, and whether they pay."""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from free.cli import options
from free.cli.models import Models, load_models, put_on_engine
from free.cli.records import DraftingOptions, EngineOptions, with_records
from free.files import check_writable, read_json, write_json
from free.models.checkpoints import bundled_drafter, locate
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler
from free.schedule.schedule import Schedule
from free.window import AutoWindow
from free.window.acceptance import AcceptanceRecord, write_records
from free.window.auto import AutoWindows, Basis
from free.window.predict import Predicted, predict
from free.window.recording import RecordingWindow
from free.window.rule import FixedWindows

#: Rows of the windows that a record is made from.
_RECORDED = 32
#: Images that it is made from.
_IMAGES = 50
_WIDTHS = (1, 2, 4, 8, 16, 32)


@with_records
def tune(
    *,
    model: EngineOptions,
    steps: options.Steps = 250,
    batch_size: Annotated[int, typer.Option(min=1, help="Images drawn together.")] = 1,
    images: Annotated[
        int, typer.Option(min=1, help="Batches to draw with each sampler, to compare them.")
    ] = 5,
    save: Annotated[
        bool,
        typer.Option(
            "--save",
            help="Record what deltas the drafter has, and keep that with it: in the config.json "
            "of its folder.",
        ),
    ] = False,
    json_path: options.Figures = None,
) -> None:
    """Measure what rounds cost here, and say whether speculation pays.

    Prints the cost of teacher rows, what windows of each width promise, and what the automatic
    window does against the plain sampler. The costs are kept for ``--window auto``.

    Examples
    --------
    `free tune`

    `free tune --batch-size 16 --engine torch`

    `free tune --model my-dit --drafter my-dit/drafter --save`
    """
    options.check_outputs(json=json_path)
    models = load_models(model)
    folder = _own_folder(model) if save else None
    schedule = Schedule.ddpm(steps)
    settings = DraftingOptions(window="auto").settings(models.drafter.sampling)
    placed = put_on_engine(models, model, settings, batch_size)
    teacher, drafter = placed.teacher, placed.drafter
    if folder is not None:
        table = _record(models, schedule, {**model.guidance, "recycle": settings["recycle"]})
        models.drafter.acceptance = drafter.acceptance = table  # type: ignore[union-attr]
        _keep(folder, table)
        typer.echo(f"recorded in {folder / 'config.json'}")
    rule = AutoWindow(fresh=True)
    settings["window"] = rule
    auto = SpeculativeSampler(teacher, drafter, schedule, **model.guidance, **settings)
    plain = SequentialSampler(teacher, schedule, **model.guidance)
    labels = [i % models.teacher.num_classes for i in range(batch_size)]
    typer.echo("measuring what rounds cost ...", err=True)
    auto.sample(labels, seed=0)
    assert rule.basis is not None
    promises = _promises(rule.basis, steps, batch_size, settings["recycle"] is not False)
    times = _compare(auto, plain, labels, images)

    typer.echo(f"{placed.engine}, batches of {batch_size}, {steps} steps, guidance {model.cfg:g}\n")
    for line in _describe(rule.basis, batch_size, promises):
        typer.echo("  " + line)
    speedup = times["plain"] / times["auto"]
    typer.echo(
        f"\n  measured: plain sampler {times['plain']:.3f} s, --window auto "
        f"{times['auto']:.3f} s ({times['rounds']:.1f} rounds): {speedup:.2f} times as fast"
    )
    typer.echo(_verdict(speedup, promises, batch_size))
    if json_path is not None:
        record = {
            "engine": placed.engine,
            "batch_size": batch_size,
            "steps": steps,
            "cfg": model.cfg,
            "costs": rule.basis.costs.to_dict(),
            "predicted": {name: promise._asdict() for name, promise in promises.items()},
            "measured": {**times, "speedup": speedup},
        }
        write_json(json_path, record)


def _own_folder(model: EngineOptions) -> Path:
    """The folder of the drafter that is to keep its record."""
    source: Any = model.drafter
    if source == "trained":
        source = bundled_drafter(locate(model.model, "model"))
    if source is None or not (Path(source) / "config.json").is_file():
        raise ValueError(f"--save needs a trained drafter in a folder, got {model.drafter!r}")
    check_writable(Path(source) / "config.json", "--save")
    return Path(source)


def _record(models: Models, schedule: Schedule, settings: dict[str, Any]) -> dict[str, Any]:
    """The drafter's record, by number of sweeps."""
    teacher, drafter = models.teacher, models.drafter
    records: dict[int | None, AcceptanceRecord] = {}
    own = drafter.sampling.get("sweeps")
    for sweeps in dict.fromkeys([own, 1, 2, 0] if own is not None else [None, 1, 0]):
        rule = RecordingWindow(_RECORDED)
        sampler = SpeculativeSampler(
            teacher, drafter, schedule, window=rule, sweeps=sweeps, **settings
        )
        with tqdm(total=_IMAGES * len(schedule), desc=f"record, {_in_words(sweeps)}") as bar:
            sampler.sample([i % teacher.num_classes for i in range(_IMAGES)], progress=bar.update)
        records[sweeps] = rule.record()
    return write_records(records)


def _in_words(sweeps: int | None) -> str:
    """How a window is drafted."""
    return "autoregression" if sweeps is None else f"{sweeps} sweep{'s' * (sweeps != 1)}"


def _keep(folder: Path, table: dict[str, Any]) -> None:
    """Write the record into ``config.json``."""
    path = folder / "config.json"
    config = read_json(path, "configuration")
    config["sampling"] = {**config.get("sampling", {}), "acceptance": table}
    write_json(path, config)


def _promises(basis: Basis, steps: int, samples: int, recycles: bool) -> dict[str, Predicted]:
    """What each width promises with the best number of sweeps, and what the automatic window."""
    play = partial(
        predict,
        records=basis.records,
        costs=basis.costs,
        steps=steps,
        samples=samples,
        recycles=recycles,
    )
    promises = {}
    for rows in (rows for rows in _WIDTHS if rows <= basis.largest):
        each = [play(partial(FixedWindows, rows, steps, sweeps)) for sweeps in basis.records]
        promises[str(rows)] = min(each, key=lambda run: run.seconds)
    promises["auto"] = play(lambda: AutoWindows(steps, samples, basis))
    return promises


def _compare(
    auto: SpeculativeSampler, plain: SequentialSampler, labels: list[int], batches: int
) -> dict[str, float]:
    """Median seconds of a batch, drawn in turn, and mean rounds of the automatic window."""
    seconds: dict[str, list[float]] = {"auto": [], "plain": []}
    rounds = []
    for batch in tqdm(range(batches), desc="comparing"):
        seed = 1 + batch * len(labels)
        report = auto.sample(labels, seed).report
        seconds["auto"].append(report.seconds)
        rounds.append(statistics.mean(report.rounds_by_sample))
        seconds["plain"].append(plain.sample(labels, seed).report.seconds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {**medians, "rounds": statistics.mean(rounds)}


def _describe(basis: Basis, samples: int, promises: dict[str, Predicted]) -> list[str]:
    """Costs and promises, line by line."""
    widths = [rows for rows in _WIDTHS if rows <= basis.largest]
    times = [float(basis.costs.teacher(samples * rows)) for rows in widths]
    plain, auto = promises["1"].seconds, promises["auto"]

    def line(title: str, cells: list[str]) -> str:
        return f"{title:29s}" + "".join(f"{cell:>8s}" for cell in cells)

    return [
        line("teacher rows of each image", [str(rows) for rows in widths]),
        line("milliseconds of a call", [f"{1e3 * seconds:.1f}" for seconds in times]),
        line("in calls of one row", [f"{seconds / times[0]:.2f}" for seconds in times]),
        line(
            "speed-up to be expected",
            [f"{plain / promises[str(rows)].seconds:.2f}" for rows in widths],
        ),
        f"--window auto promises {plain / auto.seconds:.2f}, in {auto.rounds:.1f} rounds",
    ]


def _verdict(speedup: float, promises: dict[str, Predicted], samples: int) -> str:
    """Whether it pays, in one sentence."""
    widths = {name: run.seconds for name, run in promises.items() if name != "auto"}
    best = min(widths, key=lambda name: widths[name])
    batch = "one image at a time" if samples == 1 else f"batches of {samples}"
    if speedup > 1.03:
        return (
            f"FREE pays here for {batch}: take --window auto; of fixed widths {best} promises most."
        )
    return (
        f"FREE does not pay here for {batch}: the calls that drafts save take no longer than "
        "drafting and the further rows of the others. --window auto keeps near the plain sampler."
    )
