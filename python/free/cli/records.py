"""Options that belong together, as records that commands take.

typer reads options from the parameters of a command. Here a parameter may be annotated with a
dataclass as well, whose fields are such parameters: each becomes an option.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import torch
import typer

from free.cli import options
from free.reference.decide import LOOKING_AHEAD
from free.reference.draft import SOURCES
from free.rounds.tolerance import TOLERANCE
from free.schedule.schedule import Schedule
from free.schedule.stochasticity import EXPECTED

#: The paper's settings, and those of a drafter that recommends none.
PAPER: dict[str, Any] = {"window": 8, "sweeps": None, "recycle": False, "verifier": "reflection"}

_RECYCLE = {"off": False, "best": "response"} | {source: source for source in SOURCES}


@dataclass(frozen=True)
class ModelOptions:
    """Which networks run, under which guidance, and where."""

    model: options.Model = "mnist"
    drafter: Annotated[
        str,
        typer.Option(
            help="trained, the model's own, or frozen where it has none; frozen: no training, the "
            "last prediction kept; or a drafter's folder or hub id."
        ),
    ] = "trained"
    vae: Annotated[
        str | None,
        typer.Option(
            help="VAE of a model of latents: a folder or hub id, such as "
            "stabilityai/sd-vae-ft-ema. Default: the model's own vae/, if it has one."
        ),
    ] = None
    constants: options.Constants = None
    cfg: options.Cfg = 1.5
    cfg_channels: options.CfgChannels = None
    device: options.Device = "cpu"
    dtype: Annotated[
        str,
        typer.Option(help="float32, bfloat16 or float16: of the networks; states are float32."),
    ] = "float32"

    @property
    def guidance(self) -> dict[str, Any]:
        """The sampler's arguments of guidance."""
        return {"cfg_scale": self.cfg, "cfg_channels": self.cfg_channels}


@dataclass(frozen=True)
class EngineOptions(ModelOptions):
    """Which networks run, and on which engine."""

    engine: Annotated[
        str,
        typer.Option(
            envvar="FREE_ENGINE",
            help="torch, onnxruntime, tensorrt or tensorrt-rtx: what runs the networks; models are "
            "exported on first use. auto: ONNX Runtime for embedded models on the CPU where it is "
            "installed, else torch.",
        ),
    ] = "auto"


@dataclass(frozen=True)
class LawOptions:
    """Which law is sampled."""

    steps: options.Steps = 250
    variance: Annotated[
        str,
        typer.Option(
            help="Of the transitions: posterior (the paper's), upper (beta), a number between 0 "
            "and 1 for a geometric mixture of the two, a table of free fit-variance (.json), or a "
            "folder of free train-variance."
        ),
    ] = "posterior"
    stochasticity: Annotated[
        float | None,
        typer.Option(
            help="Noise of the transitions; 1 as trained: DDIM's eta, with --sde the supplement's "
            "epsilon, with --law the law's eta; 0 is deterministic: only with --window 1 or "
            "--verifier tolerance. With a deterministic --scheduler how much is added: 0.01 for "
            f"images some {EXPECTED[0.01]} dB from its own. Default: 1, or the law's own; 0 with "
            "--verifier tolerance."
        ),
    ] = None
    sde: options.Sde = False
    law: options.Law = None
    scheduler: options.Scheduler = None

    def schedule(
        self, device: torch.device, prediction: str, verifier: str = "reflection"
    ) -> Schedule:
        """The schedule of this law; see :func:`free.cli.options.parse_schedule`.

        It is without noise for a ``verifier`` that needs that, unless another amount is asked for.
        """
        silent = verifier == TOLERANCE and self.stochasticity is None and self.law != "repa"
        return options.parse_schedule(
            self.steps,
            self.variance,
            0.0 if silent else self.stochasticity,
            self.sde,
            device,
            law=self.law,
            scheduler=self.scheduler,
            prediction=prediction,
        )


@dataclass(frozen=True)
class RelaxationOptions:
    """How far the law may be left."""

    relax: Annotated[
        str | None,
        typer.Option(
            metavar="RULE:STRENGTH[:BUDGET]",
            help="Accept more than the exact rule does, where the teacher is unsure: temper:1, or "
            "allow:0.3:0.05, which keeps each image's law within a total variation of 0.05 of the "
            "exact one. The report bounds the distance. Default: exact.",
        ),
    ] = None
    uncertainty: options.Uncertainty = "discrepancy"


@dataclass(frozen=True)
class DraftingOptions:
    """How windows are drafted and verified."""

    window: Annotated[
        str | None,
        typer.Option(
            help="Teacher rows of a round; 1 is the plain sampler, auto what pays most, as "
            "measured on this machine. Default: the model's, else 8."
        ),
    ] = None
    sweeps: Annotated[
        str | None,
        typer.Option(
            help="Drafter calls a round, each for the whole window; 0: none, what the teacher said "
            "last is kept; or autoregression: one call for each row. Default: the model's.",
        ),
    ] = None
    recycle: Annotated[
        str | None,
        typer.Option(
            help="What to make of the teacher's rows behind a rejection: response (or best: it has "
            "measured best), reuse, drafter, or off. Default: the model's."
        ),
    ] = None
    verifier: Annotated[
        str,
        typer.Option(
            help="reflection, or block: judges a window's drafts together and keeps more of them, "
            "but nothing is recycled (--recycle off, which it implies). tolerance: not exact, for "
            "laws without noise (--stochasticity 0, which it implies); see --tolerance."
        ),
    ] = "reflection"
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="With --verifier tolerance: how far a drafted state may be from the one that "
            "follows from the teacher's answers, in units of its size, such as 0.01; 0 is the "
            "plain sampler. The report estimates how far the images are."
        ),
    ] = None
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", help="As in the paper: autoregression, reflection, nothing recycled."
        ),
    ] = False

    def settings(self, recommended: Mapping[str, Any]) -> dict[str, Any]:
        """The sampler's ``window``, ``sweeps``, ``recycle`` and ``verifier``, and its ``tolerance``
        if there is one.

        They are the drafter's own, ``recommended``, where no option is given. Recycling is off
        with a verifier that excludes it, and an automatic window chooses the sweeps too, unless
        ``--recycle`` and ``--sweeps`` say otherwise.
        """
        choices = (self.sweeps, self.recycle, self.verifier)
        if self.paper and choices != (None, None, PAPER["verifier"]):
            raise ValueError(
                "--paper must come without --sweeps, --recycle and --verifier, which it sets"
            )
        settings = {**PAPER, **({} if self.paper else recommended), "verifier": self.verifier}
        if self.tolerance is not None:
            settings["tolerance"] = self.tolerance
        if self.verifier in LOOKING_AHEAD:
            settings["recycle"] = False
        if self.window is not None:
            settings["window"] = options.parse_window(self.window)
        if settings["window"] == "auto" and not self.paper:
            settings["sweeps"] = "auto"
        if self.sweeps is not None:
            settings["sweeps"] = options.parse_sweeps(self.sweeps)
        if self.recycle is not None:
            if self.recycle not in _RECYCLE:
                raise ValueError(
                    f"--recycle must be one of {', '.join(SOURCES)}, best or off, "
                    f"got {self.recycle!r}"
                )
            settings["recycle"] = _RECYCLE[self.recycle]
        return settings


def with_records(command: Callable[..., None]) -> Callable[..., None]:
    """Turn a command that takes records into one that typer can read and call.

    Each parameter is one of typer's, or is annotated with a dataclass. No two options may have one
    name.
    """
    records: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        if not is_dataclass(parameter.annotation):
            parameters.append(parameter)
            continue
        records[parameter.name] = parameter.annotation
        hints = get_type_hints(parameter.annotation, include_extras=True)
        parameters += [
            parameter.replace(name=field.name, annotation=hints[field.name], default=field.default)
            for field in fields(parameter.annotation)
        ]

    @functools.wraps(command)
    def flat(**values: Any) -> None:
        built = {
            name: record(**{f.name: values.pop(f.name) for f in fields(record)})
            for name, record in records.items()
        }
        command(**built, **values)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {one.name: one.annotation for one in parameters}
    return flat
