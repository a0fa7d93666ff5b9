"""Registers the subcommands."""

from __future__ import annotations

from typing import Annotated

import typer

from free.cli.bench import bench
from free.cli.command import command as as_command
from free.cli.convert import convert
from free.cli.evaluate import evaluate
from free.cli.export import export
from free.cli.fit_variance import fit_variance
from free.cli.generate import generate
from free.cli.info import info
from free.cli.profile import profile
from free.cli.sample import sample
from free.cli.sweep import sweep
from free.cli.train_drafter import train_drafter
from free.cli.train_teacher import train_teacher
from free.cli.train_variance import train_variance
from free.cli.tune import tune
from free.version import __version__

app = typer.Typer(name="free", no_args_is_help=True, rich_markup_mode="markdown")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"free {__version__}")
        raise typer.Exit


@app.callback()
def _free(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Say which it is."),
    ] = False,
) -> None:
    """Lossless, faster sampling for Diffusion Transformers.

    Exit codes: 0; 1 for a file that cannot be read or written, as on a full disk, for memory that
    is full, and for networks that return NaN or infinity; 2 for what the command line asks for.
    """


for command in (sample, generate, tune, sweep, bench, profile, evaluate, info, convert,
                train_teacher, train_drafter, train_variance, fit_variance, export):  # fmt: skip
    app.command()(as_command(command))
