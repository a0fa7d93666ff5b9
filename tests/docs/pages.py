"""What README, the pages of docs/ and the commands' help tell a reader to type."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import typer

from free.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
HELP = {
    f"free {name} --help": textwrap.dedent(command.help or "")
    for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
}

#: Variables that a line sets first, and the programs that lines begin with.
_PROGRAM = re.compile(r"((?:[A-Z_]+=\S+ +)*)(free|python|torchrun|make|pip)\b(.*)", re.DOTALL)
_SPAN = re.compile(r"`((?:free [a-z-]+|torchrun) [^`]+|free info)`")


class Told(NamedTuple):
    """A command or a block of code, by its text, and the first page that tells it."""

    page: str
    text: str


def commands() -> list[Told]:
    """All command lines, each once: indented or in a fence, and in the run of the text."""
    found: dict[str, str] = {}
    for page, text in (PAGES | HELP).items():
        for line in [*_lines(text), *(" ".join(span.split()) for span in _SPAN.findall(text))]:
            found.setdefault(line, page)
    return [Told(page, text) for text, page in found.items()]


def _lines(text: str) -> Iterator[str]:
    """Commands that stand in lines of their own, without what sets variables, joined."""
    language, whole = None, ""
    for line in text.splitlines():
        if line.startswith("```"):
            language = line[3:] if language is None else None
            continue
        if language not in (None, "sh") or not (language or line.startswith("    ") or whole):
            continue
        whole += line.strip().removeprefix("$ ")
        if whole.endswith("\\"):
            whole = whole[:-1]
            continue
        match = _PROGRAM.fullmatch(whole)
        if match is not None:
            yield f"{match[2]}{match[3]}".partition("  #")[0].strip()
        whole = ""


def blocks() -> dict[str, list[str]]:
    """The blocks of Python of each page."""
    found = {page: re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
             for page, text in PAGES.items()}  # fmt: skip
    return {page: texts for page, texts in found.items() if texts}
