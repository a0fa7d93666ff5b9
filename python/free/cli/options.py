"""Options that several commands share, and how their texts are read.

What cannot be read is a ValueError that names the option, what it takes and what came.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from free.devices import find_device
from free.files import check_writable, read_json
from free.images.labels import class_ids
from free.models.sigma import SigmaNet
from free.rounds.relaxation import Relaxation
from free.schedule.diffusers import LAWS, ddpm_config
from free.schedule.flow import KINDS
from free.schedule.schedule import Schedule
from free.schedule.variance import VarianceFit

Model = Annotated[
    str,
    typer.Option(
        help="mnist, a checkpoint's file or folder, a bundle with teacher/ and drafter/, or a hub "
        "id; free sample, tune and profile also take a folder of free export."
    ),
]
Constants = Annotated[
    str | None,
    typer.Option(
        help="original or diffusers: whose timestep divisor and norm epsilon. Default: the "
        "checkpoint's."
    ),
]
Cfg = Annotated[float, typer.Option(help="Guidance scale; 1 is none.")]
CfgChannels = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Leading channels that are guided; 3 for the figures of the original DiT. Default: "
        "all.",
    ),
]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Steps = Annotated[int, typer.Option(help="Transitions of the sampler, 2 to 1000.")]
Sde = Annotated[
    bool,
    typer.Option(
        "--sde", help="Euler-Maruyama of the reverse-time SDE instead of DDPM's transitions."
    ),
]
Law = Annotated[
    str | None,
    typer.Option(
        help="Another sampler of the same network: ddpm, ddim, euler-ancestral or sde-dpmsolver++ "
        "where noise is predicted; renoise, flow-sde, cps, dance or repa where it is the velocity "
        "of flow matching. Default: DiT's DDPM, or what --scheduler says."
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Scheduler of diffusers that is sampled: its scheduler_config.json, or a folder that "
        "has one."
    ),
]
Uncertainty = Annotated[
    str,
    typer.Option(
        help="What --relax takes for the teacher's uncertainty: discrepancy (of drafter and "
        "teacher), or learned_variance (of a teacher that has one)."
    ),
]
Heads = Annotated[int | None, typer.Option(help="Attention heads, where the file does not tell.")]
ImageSize = Annotated[
    int | None, typer.Option(help="Side of the input, where the file does not tell.")
]
NumClasses = Annotated[
    int | None,
    typer.Option(help="Classes, where the file does not tell: all rows of its table, or one less."),
]
Family = Annotated[
    str | None,
    typer.Option(
        help="dit, sit or repa: whose network it is, where the file does not tell (SiT's own)."
    ),
]
#: What ``--json`` means, in every command; :mod:`free.cli.command` knows the standard output.
JSON_HELP = "File for all figures, for programs; - is the standard output."
Figures = Annotated[Path | None, typer.Option("--json", help=JSON_HELP)]

#: Of one call; ``free generate`` draws more.
_MOST_IMAGES = 1_000_000

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parse_labels(
    text: str, names: Mapping[str, int] | None = None, per_label: int = 1
) -> list[int]:
    """``"0-9"``, ``"3"``, ``"1,4-6"``, or by name ``"tench,5"`` -> the labels, each so often."""
    labels: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        if match is None and names and part.strip():
            labels.extend(class_ids([part.strip()], names, "labels"))
            continue
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ValueError(f"labels must look like 0-9 or 1,4-6, got {text!r}")
        labels.extend(range(first, last + 1))
    if len(labels) * per_label > _MOST_IMAGES:
        raise ValueError(
            f"labels must be of at most {_MOST_IMAGES} images, got {len(labels)} labels, each "
            f"{per_label} times"
        )
    return [label for label in labels for _ in range(per_label)]


def parse_words(text: str, option: str) -> list[str]:
    """The values of a list, each once."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError(f"{option} must be values with commas between them, got {text!r}")
    return list(dict.fromkeys(parts))


def parse_numbers(text: str, kind: type, option: str) -> list[Any]:
    """The numbers of a list, each once."""
    try:
        return [kind(part) for part in parse_words(text, option)]
    except ValueError:
        word = "integers" if kind is int else "numbers"
        raise ValueError(
            f"{option} must be {word} with commas between them, got {text!r}"
        ) from None


def parse_schedule(
    steps: int,
    variance: str,
    stochasticity: float | None,
    sde: bool,
    device: torch.device,
    *,
    law: str | None = None,
    scheduler: str | None = None,
    prediction: str = "epsilon",
) -> Schedule:
    """The schedule of a law's options, for a network of this prediction, as ``DiTConfig`` has it.

    A variance network is put on ``device``.
    """
    if law is None and scheduler is None:
        schedule = _ddpm_schedule(steps, variance, stochasticity, sde, device)
    elif sde or variance != "posterior":
        raise ValueError("--law and --scheduler must come without --variance and --sde")
    else:
        schedule = _named_schedule(steps, law, scheduler, stochasticity)
    of_flow = bool(np.allclose(schedule.signal + schedule.noise, 1.0))
    if of_flow != (prediction == "velocity"):
        laws = (*KINDS, "repa") if prediction == "velocity" else [n for n in LAWS if n not in KINDS]
        raise ValueError(
            f"--law must be one of {', '.join(laws)} with a network of {_TOLD[prediction]}, "
            f"got {law or scheduler or 'DDPM'}"
        )
    # Networks of a velocity are told the time from 0 to 1, which is how much is noise.
    return dataclasses.replace(schedule, timesteps=schedule.noise) if of_flow else schedule


_TOLD = {"epsilon": "noise", "velocity": "velocities"}


def _ddpm_schedule(
    steps: int, variance: str, stochasticity: float | None, sde: bool, device: torch.device
) -> Schedule:
    """The schedule of ``--variance``, ``--stochasticity`` and ``--sde``."""
    stochasticity = 1.0 if stochasticity is None else stochasticity
    if sde:
        if variance != "posterior":
            raise ValueError(f"--sde must come without --variance, which it sets, got {variance!r}")
        return Schedule.sde("vp", steps, stochasticity)
    value: Any = variance
    if variance not in ("posterior", "upper"):
        try:
            value = float(variance)
        except ValueError:
            path = Path(variance)
            if not path.exists():
                raise ValueError(
                    "--variance must be posterior, upper, a number, or a table or network that is "
                    f"there, got {variance!r}"
                ) from None
            value = (
                SigmaNet.from_pretrained(path, device) if path.is_dir() else VarianceFit.load(path)
            )
    return Schedule.ddpm(steps, variance=value, stochasticity=stochasticity)


def _named_schedule(
    steps: int, law: str | None, scheduler: str | None, stochasticity: float | None
) -> Schedule:
    """The schedule of ``--law`` and ``--scheduler``."""
    if law == "repa":
        if scheduler is not None or stochasticity is not None:
            raise ValueError("--law repa must come without --scheduler and --stochasticity")
        return Schedule.repa(steps)
    if scheduler is None and law in KINDS:
        return Schedule.flow(law, steps, stochasticity=stochasticity)
    if scheduler is None:
        if law not in LAWS:
            raise ValueError(f"--law must be one of {', '.join(LAWS)} or repa, got {law!r}")
        return Schedule.from_scheduler(ddpm_config(), steps, law, stochasticity)
    path = Path(scheduler)
    names = ("", "scheduler_config.json", "scheduler/scheduler_config.json")
    path = next((path / name for name in names if (path / name).is_file()), path)
    return Schedule.from_scheduler(read_json(path, "--scheduler"), steps, law, stochasticity)


def parse_window(text: str) -> int | str:
    """``"auto"``, or a number of rows."""
    if text == "auto":
        return text
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        raise ValueError(f"--window must be an integer >= 1 or auto, got {text!r}")
    return int(text)


def parse_sweeps(text: str) -> int | None:
    """A number of drafter calls a round; None for autoregression."""
    if text == "autoregression":
        return None
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ValueError(f"--sweeps must be an integer >= 0 or autoregression, got {text!r}")
    return int(text)


def parse_relaxation(text: str | None, uncertainty: str) -> Relaxation | None:
    """``"temper:1"``, ``"allow:0.3:0.05"`` -> the relaxation; None for none."""
    if text is None:
        if uncertainty != "discrepancy":
            raise ValueError(f"--uncertainty must come with --relax, got {uncertainty!r} alone")
        return None
    number = r"([-+.\w]+)"
    match = re.fullmatch(rf"(\w+):{number}(?::{number})?", text)
    try:
        rule, strength, budget = match.groups() if match else ("", "", None)
        amounts = (float(strength), None if budget is None else float(budget))
    except ValueError:
        raise ValueError(
            f"--relax must look like temper:1 or allow:0.3:0.05, got {text!r}"
        ) from None
    return Relaxation(rule, amounts[0], amounts[1], uncertainty)


def parse_dtype(text: str) -> torch.dtype:
    """A precision that networks run in, by its name."""
    if text not in _DTYPES:
        raise ValueError(f"--dtype must be one of {', '.join(_DTYPES)}, got {text!r}")
    return _DTYPES[text]


def parse_device(text: str) -> torch.device:
    """The device that ``--device`` names; errors are those of :func:`free.devices.find_device`."""
    return find_device(text, "--device")


def check_outputs(**outputs: Path | None) -> None:
    """Refuse files that cannot be written, or have two uses, before the work for them is done.

    They go by the names of their options; None is an option that is not given.
    """
    uses: dict[Path, str] = {}
    for name, path in outputs.items():
        if path is None:
            continue
        check_writable(path, f"--{name}")
        if (other := uses.setdefault(path.resolve(), name)) != name:
            raise ValueError(f"--{name} must be another file than --{other}, got {path}")
