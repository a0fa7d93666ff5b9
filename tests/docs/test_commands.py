"""Every command line of README, docs/ and the commands' help is one that works.

Each is run as it stands, on small models by the same names, with options added that make it short.
What is not run is listed with the reason; its options are still read, or its files looked for.
"""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from free.cli import app
from free.training import journal
from free.window import measure
from tests.cli.commands import run
from tests.docs import pages
from tests.docs.pages import ROOT, Told

COMMANDS = pages.commands()
FREE = [told for told in COMMANDS if re.match(r"free\b|torchrun .* free ", told.text)]

#: Options that make a command short; an option given twice counts the second time.
SMALL = {
    "sample": "--steps 6 --per-label 1",
    "generate": "--num 4 --steps 4 --batch-size 2 --device cpu",
    "tune": "--steps 6 --images 1 --batch-size 2",
    "sweep": "--steps 6 --labels 3 --per-label 1 --reference none",
    "bench": "--steps 8 --images 2 --rows plain,free-4 --quality 0",
    "profile": "--steps 6 --batches 1",
    "evaluate": "--resamples 0 --device cpu",
    "train-teacher": "--steps 2 --batch-size 2 --hidden 16 --depth 1 --heads 2 --no-tensorboard",
    "train-drafter": "--steps 2 --batch-size 2 --sampling-steps 8 --device cpu --warmup 0"
    " --no-tensorboard",
    "train-variance": "--steps 2 --batch-size 2 --width 2 --no-tensorboard",
    "fit-variance": "--steps 4 --labels 0",
    "export": "",
    "convert": "",
    "info": "",
}

#: Commands that draw with the embedded model unless told otherwise: here with a small one.
EMBEDDED = ("sample", "generate", "tune", "sweep", "bench", "profile", "train-variance")

#: What stands for something else in a line.
MEANT = {
    "--model ...": "--model my-dit",
    "--data ...": "--data images/",
    "--variance ...": "--variance upper",
    "--recipe paper ...": "--recipe paper --model digits",
    "--recipe free ...": "--recipe free --model digits",
    "...": "",
    "--model mnist": "--model digits",
    "--data photos": "--data photos --upscale",
    "--data glyphs": "--data glyphs --upscale",
    "--evaluate-every 15epochs": "--evaluate-every 2 --evaluate-images 1",
    "--evaluate-every 30epochs": "--evaluate-every 2 --evaluate-images 1",
    "--evaluate-every 500": "--evaluate-every 2 --evaluate-images 1",
    "--evaluate-images 20": "",
}

#: By a part of the line: why it is not run, even small.
NOT_RUN = {
    "--features inception": "FID's Inception weights are not at hand",
    "--features efficientnet": "it takes more than 1280 images; tests/evaluation has its features",
    "--to tensorrt": "minutes, and TensorRT; tests/export/test_tensorrt.py builds",
    "--engine tensorrt": "a GPU; tests/gpu/test_tensorrt.py runs engines",
    "--engine onnxruntime": "tracing takes half a minute; tests/cli/test_models.py samples so",
    "--model engine": "it takes an export: slow, below; tests/cli/test_export.py samples one",
    "free export": "tracing takes half a minute: slow, below",
    "--draw": "committed figures, of other steps; tests/cli/test_bench.py draws some",
    "--compile": "torch.compile takes a minute; tests/training/test_trainer.py has it",
}


def words(text: str) -> list[str]:
    """The words behind ``free``; several processes are one here."""
    for written, meant in MEANT.items():
        text = text.replace(written, meant)
    text = re.sub(r"^torchrun .*? free ", "free ", text)
    found = shlex.split(text)[1:]
    return found + ["--out", "runs/new"] * (found[0] == "train-drafter" and "--out" not in found)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no option makes short: measuring, recording and drawing curves."""
    monkeypatch.setattr(measure, "_TEACHER_BUDGET", 0.02)
    monkeypatch.setattr(measure, "_OTHER_BUDGET", 0.02)
    monkeypatch.setattr("free.cli.tune._IMAGES", 2)
    monkeypatch.setattr("free.cli.tune._RECORDED", 4)
    monkeypatch.setattr(journal, "draw_losses", lambda folder: False)


def not_run(told: Told) -> str | None:
    return next((why for part, why in NOT_RUN.items() if part in told.text), None)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    "told", [told for told in FREE if not not_run(told)], ids=lambda told: told.text
)
def test_a_command_works(told: Told, place: Path) -> None:
    name, *arguments = words(told.text)
    if name in EMBEDDED and "--model" not in arguments:
        arguments += ["--model", "digits"]
    written = {"convert": arguments[1:2], "generate": ["samples.npz"]}.get(name, [])
    for path in (place / one for one in written):  # by an earlier line
        if path.exists():
            path.rename(place / "earlier")
    if "dit.json" in arguments and name == "sample":
        model = ["--model", "DiT-XL-2-256x256.pt", "--labels", "0", "--steps", "6"]
        assert run("fit-variance", *model, "--out", "dit.json")[0] == 0
    code, text = run(name, *arguments, *SMALL[name].split())
    assert code == 0, f"{told.page}: {told.text}\n{text}"
    if "next: free " in text:  # what it advises works
        name, *arguments = text.partition("next: free ")[2].split()
        code, text = run(name, *arguments, *SMALL[name].split())
        assert code == 0, f"{name} {' '.join(arguments)}\n{text}"


@pytest.mark.parametrize("told", FREE, ids=lambda told: told.text)
def test_a_command_has_its_options(told: Told) -> None:
    """Also where it is not run."""
    name, *arguments = words(told.text)
    command: Any = typer.main.get_command(app)
    with command.make_context("free", [name, *arguments], resilient_parsing=False) as context:
        command.commands[name].make_context(name, list(arguments), parent=context).close()


def test_what_is_not_run_is_there() -> None:
    """A reason without a command is one too many."""
    for part in NOT_RUN:
        assert any(part in told.text for told in FREE), part


class ParsedError(Exception):
    """The command line was read."""


@pytest.mark.parametrize(
    "told", [c for c in COMMANDS if re.match(r"python \S+\.py", c.text)], ids=lambda told: told.text
)
def test_a_benchmark_has_its_options(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take minutes to hours; ``make bench-check`` runs their parts."""
    script, *arguments = shlex.split(told.text)[1:]
    before, parse = set(sys.modules), argparse.ArgumentParser.parse_args

    def parsed(parser: argparse.ArgumentParser, *given: Any) -> None:
        parse(parser, *given)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.syspath_prepend(str((ROOT / script).parent))
    with pytest.raises(ParsedError):
        runpy.run_path(str(ROOT / script), run_name="__main__")
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        places = getattr(module, "__file__", None), *getattr(module, "__path__", ())
        if any(str(ROOT / "benchmarks") in str(place) for place in places):
            del sys.modules[name]


OTHERS = [c for c in COMMANDS if c not in FREE and not re.match(r"python \S+\.py", c.text)]


@pytest.mark.parametrize("told", OTHERS, ids=lambda told: told.text)
def test_what_else_is_told_is_there(told: Told) -> None:
    """Targets of the Makefile, extras of the package, modules and files."""
    program, *arguments = shlex.split(told.text)
    if program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE)
    elif program == "pip":
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        for extra in re.findall(r"\[(\w[\w-]*)\]", told.text):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
    else:  # python -m; the classifier would be written into the package
        module = arguments[arguments.index("-m") + 1]
        file = f"{module.replace('.', '/')}.py"
        assert module == "pytest" or any((ROOT / at / file).is_file() for at in ("python", ""))
        paths = [word for word in arguments if "/" in word]
        assert all((ROOT / path).exists() for path in paths)


def test_lines_are_found() -> None:
    """At least one of each kind, of each of the commands, and of most pages."""
    texts = [told.text for told in COMMANDS]
    for told in ("make demo", "free tune", "free info", "pip install .", "free sample --paper"):
        assert told in texts
    assert any(text.startswith("torchrun --nproc-per-node 4 -m free train") for text in texts)
    assert {words(told.text)[0] for told in FREE} == set(SMALL)


def test_free_info_prints_what_the_page_shows() -> None:
    page = pages.PAGES["docs/checkpoints.md"]
    shown = page[page.index("$ free info mnist") :].split("\n\n")[0].splitlines()[1:]
    _, text = run("info", "mnist")
    for line in shown:
        assert " ".join(line.split()).rpartition("...")[2] in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "told",
    [c for c in COMMANDS if c.text.startswith("free export") and "tensorrt" not in c.text],
    ids=lambda told: told.text,
)
def test_an_export_works(told: Told, place: Path) -> None:
    """As it stands, of the embedded model, and what it wrote is sampled."""
    pytest.importorskip("onnxscript")
    code, text = run(*shlex.split(told.text)[1:])
    assert code == 0, text
    sample = ["sample", "--model", place / "engine", "--engine", "auto", "--out", place / "x.png"]
    code, text = run(*sample, "--labels", 3, "--steps", 20)
    assert code == 0, text
