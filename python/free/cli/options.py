"""Options and parsing that the commands share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from free.devices import find_device
from free.images.labels import class_ids
from free.models.sigma import SigmaNet
from free.reference.decide import LOOKING_AHEAD
from free.reference.draft import SOURCES
from free.rounds.relaxation import Relaxation
from free.schedule.schedule import Schedule
from free.schedule.variance import VarianceFit

__all__ = [
    "PAPER",
    "Cfg",
    "CfgChannels",
    "Constants",
    "Device",
    "DrafterSource",
    "Dtype",
    "Engine",
    "Model",
    "Paper",
    "Recycle",
    "Relax",
    "Sde",
    "Steps",
    "Stochasticity",
    "Sweeps",
    "Uncertainty",
    "Vae",
    "Variance",
    "Window",
    "bad_input_to_usage_error",
    "drafting_settings",
    "parse_device",
    "parse_dtype",
    "parse_labels",
    "parse_relaxation",
    "parse_schedule",
    "parse_window",
]

Model = Annotated[
    str,
    typer.Option(
        help="mnist, a checkpoint's file or folder, a bundle with teacher/ and drafter/, or a hub "
        "id."
    ),
]
DrafterSource = Annotated[
    str,
    typer.Option(
        help="trained, the model's own, or frozen where it has none; frozen: no training, the last "
        "prediction kept; or a drafter's folder or hub id."
    ),
]
Vae = Annotated[
    str | None,
    typer.Option(
        help="VAE of a model of latents: a folder or hub id, such as stabilityai/sd-vae-ft-ema. "
        "Default: the model's own vae/, if it has one."
    ),
]
Constants = Annotated[
    str | None,
    typer.Option(
        help="original or diffusers: whose timestep divisor and norm epsilon. Default: the "
        "checkpoint's."
    ),
]
Steps = Annotated[int, typer.Option(help="Transitions of the sampler, 2 to 1000.")]
Variance = Annotated[
    str,
    typer.Option(
        help="Of the transitions: posterior (the paper's), upper (beta), a number between 0 and 1 "
        "for a geometric mixture of the two, a table of free fit-variance (.json), or a folder of "
        "free train-variance."
    ),
]
Stochasticity = Annotated[
    float,
    typer.Option(
        help="Noise of the transitions, 1 as trained: DDIM's eta, or with --sde the supplement's "
        "epsilon. 0 is deterministic: only with --window 1."
    ),
]
Sde = Annotated[
    bool,
    typer.Option(
        "--sde", help="Euler-Maruyama of the reverse-time SDE instead of DDPM's transitions."
    ),
]
Window = Annotated[
    str | None,
    typer.Option(
        help="Teacher rows of a round; 1 is the plain sampler, auto what pays most, as measured on "
        "this machine. Default: the model's, else 8."
    ),
]
Sweeps = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Drafter calls a round, each for the whole window; 0 is autoregression. "
        "Default: the model's.",
    ),
]
Recycle = Annotated[
    str | None,
    typer.Option(
        help="What to make of the teacher's rows behind a rejection: response, "
        "control_variate, reuse, drafter, best (whichever has done best so far), or off. "
        "Default: the model's."
    ),
]
Verifier = Annotated[
    str,
    typer.Option(
        help="reflection, or block: judges a window's drafts together and keeps more of them, but "
        "nothing is recycled (--recycle off, which it implies)."
    ),
]
Relax = Annotated[
    str | None,
    typer.Option(
        metavar="RULE:STRENGTH[:BUDGET]",
        help="Accept more than the exact rule does, where the teacher is unsure: temper:1, or "
        "allow:0.3:0.05, which keeps each image's law within a total variation of 0.05 of the "
        "exact one. The report bounds the distance. Default: exact.",
    ),
]
Uncertainty = Annotated[
    str,
    typer.Option(
        help="What --relax takes for the teacher's uncertainty: discrepancy (of drafter and "
        "teacher), or learned_variance (of a teacher that has one)."
    ),
]
Paper = Annotated[
    bool,
    typer.Option("--paper", help="As in the paper: autoregression, reflection, nothing recycled."),
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
Dtype = Annotated[
    str, typer.Option(help="float32, bfloat16 or float16: of the networks; states are float32.")
]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Engine = Annotated[
    str,
    typer.Option(
        envvar="FREE_ENGINE",
        help="torch, onnxruntime, tensorrt or tensorrt-rtx: what runs the networks; models are "
        "exported on first use. auto: ONNX Runtime for embedded models on the CPU where it is "
        "installed, else torch.",
    ),
]

#: The paper's settings, and those of a drafter that recommends none.
PAPER: dict[str, Any] = {"window": 8, "sweeps": None, "recycle": False, "verifier": "reflection"}


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parse_labels(text: str, names: Mapping[str, int] | None = None) -> list[int]:
    """``"0-9"``, ``"3"``, ``"1,4-6"``, ``"tench,5"`` -> the labels.

    Parameters
    ----------
    text : str
    names : mapping of str to int, optional
        Classes by name, where the model's have names.

    Raises
    ------
    ValueError
        If the text is not such a list, or a name is not known; suggests the nearest.
    """
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
    return labels


def drafting_settings(
    recommended: dict[str, Any],
    paper: bool,
    window: str | None,
    sweeps: int | None,
    recycle: str | None,
    verifier: str,
) -> dict[str, Any]:
    """``window``, ``sweeps``, ``recycle`` and ``verifier`` of the sampler from the command line's
    options.

    Parameters
    ----------
    recommended : dict
        The drafter's own, where no option is given.
    paper : bool
        The paper's settings instead; only the window may be chosen besides.
    window, sweeps, recycle
        As given, or None. ``sweeps`` 0 is autoregression, and the default "auto" with window
        "auto"; ``recycle`` also takes "off" and "best", and is off with a verifier that excludes
        it.
    verifier : str

    Raises
    ------
    ValueError
        If ``paper`` is joined by ``sweeps``, ``recycle`` or another verifier, or ``recycle`` is
        none of these.
    """
    if paper and (sweeps is not None or recycle is not None or verifier != PAPER["verifier"]):
        raise ValueError(
            "--paper must come without --sweeps, --recycle and --verifier, which it sets"
        )
    settings = PAPER | ({} if paper else recommended) | {"verifier": verifier}
    if verifier in LOOKING_AHEAD:
        settings["recycle"] = False
    if window is not None:
        settings["window"] = parse_window(window)
    if settings["window"] == "auto" and not paper:
        settings["sweeps"] = "auto"
    if sweeps is not None:
        settings["sweeps"] = sweeps or None
    if recycle is not None:
        if recycle not in (*SOURCES, "best", "off"):
            raise ValueError(
                f"--recycle must be one of {', '.join(SOURCES)}, best or off, got {recycle!r}"
            )
        settings["recycle"] = {"off": False, "best": True}.get(recycle, recycle)
    return settings


def parse_schedule(
    steps: int, variance: str, stochasticity: float, sde: bool, device: torch.device
) -> Schedule:
    """The schedule from the command line's options.

    Parameters
    ----------
    steps : int
    variance : str
        As ``--variance`` says.
    stochasticity : float
    sde : bool
    device : torch.device
        Of a variance network.

    Raises
    ------
    ValueError
        If an option is none of those, or they exclude each other.
    """
    if sde:
        if variance != "posterior":
            raise ValueError(f"--sde must come without --variance, which it sets, got {variance!r}")
        return Schedule.sde("vp", steps, stochasticity)
    chosen: Any = variance
    if variance not in ("posterior", "upper"):
        try:
            chosen = float(variance)
        except ValueError:
            path = Path(variance)
            if not path.exists():
                raise ValueError(
                    "--variance must be posterior, upper, a number, or a table or network that is "
                    f"there, got {variance!r}"
                ) from None
            chosen = (
                SigmaNet.from_pretrained(path, device) if path.is_dir() else VarianceFit.load(path)
            )
    return Schedule.ddpm(steps, variance=chosen, stochasticity=stochasticity)


def parse_window(text: str) -> int | str:
    """``"auto"``, or a number of rows.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if text == "auto":
        return text
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) < 1:
        raise ValueError(f"--window must be an integer >= 1 or auto, got {text!r}")
    return int(text)


def parse_relaxation(text: str | None, uncertainty: str) -> Relaxation | None:
    """``"temper:1"``, ``"allow:0.3:0.05"`` -> the relaxation; None for none.

    Raises
    ------
    ValueError
        If the text is not of this form, or a part of it is out of its range.
    """
    if text is None:
        if uncertainty != "discrepancy":
            raise ValueError(f"--uncertainty must come with --relax, got {uncertainty!r} alone")
        return None
    number = r"([-+.\w]+)"
    match = re.fullmatch(rf"(\w+):{number}(?::{number})?", text)
    try:
        rule, strength, budget = match.groups() if match else ("", "", None)
        amounts = float(strength), None if budget is None else float(budget)
    except ValueError:
        raise ValueError(
            f"--relax must look like temper:1 or allow:0.3:0.05, got {text!r}"
        ) from None
    return Relaxation(rule, *amounts, uncertainty)


def parse_dtype(text: str) -> torch.dtype:
    """A precision by its name.

    Raises
    ------
    ValueError
        If it is none of those that networks run in.
    """
    if text not in _DTYPES:
        raise ValueError(f"--dtype must be one of {', '.join(_DTYPES)}, got {text!r}")
    return _DTYPES[text]


def parse_device(text: str) -> torch.device:
    """The device that ``--device`` names; errors are those of :func:`free.devices.find_device`."""
    return find_device(text, "--device")


@contextmanager
def bad_input_to_usage_error() -> Iterator[None]:
    """Show a ValueError as one line and exit with 2, instead of a traceback; with 1, a GPU whose
    memory is full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(1) from error
    except (ValueError, ImportError) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(2) from error
