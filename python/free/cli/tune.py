"""``free tune``: whether speculation pays on this machine, and how wide its windows should be."""

from __future__ import annotations

import json
import statistics
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from free.cli import options
from free.cli.engine import choose_engine, put_on_engine
from free.cli.models import load_models
from free.cli.options import bad_input_to_usage_error, drafting_settings, parse_device, parse_dtype
from free.files import check_writable, write_json
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

__all__ = ["tune"]

#: Rows of the windows that a record is made from.
_RECORDED = 32
#: Images that it is made from.
_IMAGES = 50
_WIDTHS = (1, 2, 4, 8, 16, 32)


def tune(
    model: options.Model = "mnist",
    drafter: options.DrafterSource = "trained",
    steps: options.Steps = 250,
    cfg: options.Cfg = 1.5,
    cfg_channels: options.CfgChannels = None,
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
    json_path: Annotated[
        Path | None, typer.Option("--json", help="File for all figures, for programs.")
    ] = None,
    constants: options.Constants = None,
    vae: options.Vae = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    engine: options.Engine = "auto",
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
    with bad_input_to_usage_error():
        if json_path is not None:
            check_writable(json_path, "--json")
        used = choose_engine(engine, model, device, dtype)
        loaded_as = parse_dtype(dtype if used == "torch" else "float32")
        loaded, drafts, _ = load_models(
            model, drafter, vae, constants, loaded_as, parse_device(device)
        )
        folder = _own_folder(model, drafter) if save else None
        schedule = Schedule.ddpm(steps)
        settings = drafting_settings(drafts.sampling, False, "auto", None, None, "reflection")
        teacher, drafting = put_on_engine(
            used, loaded, drafts, settings, cfg != 1.0, batch_size, device, dtype
        )
        if folder is not None:
            table = _recorded(loaded, drafts, schedule, cfg, cfg_channels, settings)
            drafts.acceptance = drafting.acceptance = table  # type: ignore[union-attr]
            _keep(folder, table)
            typer.echo(f"recorded in {folder / 'config.json'}")
        rule = AutoWindow(fresh=True)
        auto = SpeculativeSampler(
            teacher,
            drafting,
            schedule,
            cfg_scale=cfg,
            cfg_channels=cfg_channels,
            **{**settings, "window": rule},
        )
        plain = SequentialSampler(teacher, schedule, cfg, cfg_channels)
        labels = [i % loaded.num_classes for i in range(batch_size)]
        typer.echo("measuring what rounds cost ...", err=True)
        auto.sample(labels, seed=0)
        assert rule.basis is not None
        promised = _promises(rule.basis, steps, batch_size, settings["recycle"] is not False)
        measured = _compare(auto, plain, labels, images)

    typer.echo(f"{used}, batches of {batch_size}, {steps} steps, guidance {cfg:g}\n")
    for line in _describe(rule.basis, batch_size, promised):
        typer.echo("  " + line)
    speedup = measured["plain"] / measured["auto"]
    typer.echo(
        f"\n  measured: plain sampler {measured['plain']:.3f} s, --window auto "
        f"{measured['auto']:.3f} s ({measured['rounds']:.1f} rounds): {speedup:.2f} times as fast"
    )
    typer.echo(_verdict(speedup, promised, batch_size))
    if json_path is not None:
        with bad_input_to_usage_error():
            write_json(
                json_path,
                {
                    "engine": used,
                    "batch_size": batch_size,
                    "steps": steps,
                    "cfg": cfg,
                    "costs": rule.basis.costs.to_dict(),
                    "predicted": {name: p._asdict() for name, p in promised.items()},
                    "measured": {**measured, "speedup": speedup},
                },
            )


def _own_folder(model: str, drafter: str) -> Path:
    """The folder of the drafter that is to keep its record.

    Raises
    ------
    ValueError
        If it has none.
    """
    folder = bundled_drafter(locate(model, "model")) if drafter == "trained" else Path(drafter)
    if folder is None or not (Path(folder) / "config.json").is_file():
        raise ValueError(f"--save needs a trained drafter in a folder, got {drafter!r}")
    check_writable(Path(folder) / "config.json", "--save")
    return Path(folder)


def _recorded(
    teacher: Any,
    drafter: Any,
    schedule: Schedule,
    cfg: float,
    cfg_channels: int | None,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """The drafter's record, by number of sweeps."""
    records: dict[int | None, AcceptanceRecord] = {}
    own = drafter.sampling.get("sweeps")
    for sweeps in dict.fromkeys([own, 1, 2] if own else [None, 1]):
        rule = RecordingWindow(_RECORDED)
        sampler = SpeculativeSampler(
            teacher,
            drafter,
            schedule,
            rule,
            cfg,
            cfg_channels,
            sweeps=sweeps,
            recycle=settings["recycle"],
        )
        with tqdm(total=_IMAGES * len(schedule), desc=f"record, {sweeps or 'no'} sweeps") as bar:
            sampler.sample([i % teacher.num_classes for i in range(_IMAGES)], progress=bar.update)
        records[sweeps] = rule.record()
    return write_records(records)


def _keep(folder: Path, table: dict[str, Any]) -> None:
    """Write the record into ``config.json``."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["sampling"] = {**config.get("sampling", {}), "acceptance": table}
    write_json(path, config)


def _promises(basis: Basis, steps: int, samples: int, recycles: bool) -> dict[str, Predicted]:
    """What each width promises, in its best way, and what the automatic window does."""
    play = partial(
        predict,
        records=basis.records,
        costs=basis.costs,
        steps=steps,
        samples=samples,
        recycles=recycles,
    )
    promised = {}
    for rows in (rows for rows in _WIDTHS if rows <= basis.largest):
        each = [play(partial(FixedWindows, rows, steps, sweeps)) for sweeps in basis.records]
        promised[str(rows)] = min(each, key=lambda run: run.seconds)
    promised["auto"] = play(lambda: AutoWindows(steps, samples, basis))
    return promised


def _compare(
    auto: SpeculativeSampler, plain: SequentialSampler, labels: list[int], batches: int
) -> dict[str, float]:
    """Median seconds of a batch, drawn in turn, and mean rounds of the former."""
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


def _describe(basis: Basis, samples: int, promised: dict[str, Predicted]) -> list[str]:
    """Costs and promises, line by line."""
    teacher = basis.costs.teacher
    one = float(teacher(samples))
    widths = [rows for rows in _WIDTHS if rows <= basis.largest]
    times = {rows: float(teacher(samples * rows)) for rows in widths}
    lines = ["teacher rows of each image   " + "".join(f"{rows:8d}" for rows in widths)]
    lines += ["milliseconds of a call       " + "".join(f"{1e3 * times[r]:8.1f}" for r in widths)]
    lines += ["in calls of one row          " + "".join(f"{times[r] / one:8.2f}" for r in widths)]
    plain = promised["1"].seconds
    speeds = "".join(f"{plain / promised[str(rows)].seconds:8.2f}" for rows in widths)
    lines += ["speed-up to be expected      " + speeds]
    best = promised["auto"]
    return [
        *lines,
        f"--window auto promises {plain / best.seconds:.2f}, in {best.rounds:.1f} rounds",
    ]


def _verdict(speedup: float, promised: dict[str, Predicted], samples: int) -> str:
    """Whether it pays, in one sentence."""
    widths = {name: run.seconds for name, run in promised.items() if name != "auto"}
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
