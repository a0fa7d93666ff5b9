"""Registers the subcommands."""

from __future__ import annotations

import typer

from free.cli.bench import bench
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

app = typer.Typer(
    name="free",
    help="Lossless, faster sampling for Diffusion Transformers.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
for command in (sample, generate, tune, sweep, bench, profile, evaluate, info, convert,
                train_teacher, train_drafter, train_variance, fit_variance, export):  # fmt: skip
    app.command()(command)
