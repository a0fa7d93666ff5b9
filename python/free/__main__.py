"""``python -m free``: the command, for ``torchrun`` and the like."""

from free.cli import app

app(prog_name="free")
