"""Running commands in this process."""

import json
from typing import Any

from typer.testing import CliRunner

from free.cli import app


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and output of a command, without line breaks and boxes."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def succeed(*arguments: object) -> str:
    """The output of a command that must end well."""
    code, text = run(*arguments)
    assert code == 0, text
    return text


def figures(*arguments: object) -> Any:
    """What a command writes to the standard output with ``--json -``: JSON alone."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json", "-"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refuse(message: str, *arguments: object) -> None:
    """A command that must end with this message and exit code 2, not with a traceback."""
    code, text = run(*arguments)
    assert code == 2, text
    assert message in text, text
