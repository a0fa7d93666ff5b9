"""What all commands have in common: ``~``, ``--json -``, errors in one line and their codes."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from free import DiT, DrafterNet
from free.cli import app
from free.cli.command import command
from tests.cli.commands import run, succeed
from tests.cli.conftest import CONFIG
from tests.disks import full_disk
from tests.networks import randomized

#: Commands that draw, with small sizes, and files to write in the working folder.
SMALL = {
    "sample": "--labels 3 --steps 4 --out x.png --json x.json",
    "generate": "--num 2 --steps 4 --out x.npz --json x.json",
    "tune": "--steps 4 --images 1 --json x.json",
    "bench": "--steps 8 --images 2 --rows plain,free-4 --quality 0 --json x.json",
    "profile": "--steps 4 --batches 1 --json x.json",
    "sweep": "--steps 4 --labels 3 --per-label 1 --reference none --json x.json",
}


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("bad"), 2, "bad"),
        (ImportError("no such extra"), 2, "no such extra"),
        (FloatingPointError("NaN"), 1, "NaN"),
        (torch.OutOfMemoryError("full"), 1, "full"),
        (MemoryError(), 1, "out of memory"),
        (OSError(28, "No space left on device", "x.npz"), 1, "No space left on device: x.npz"),
        (OSError("the reader's own words"), 1, "the reader's own words"),
    ],
)
def test_errors_end_in_one_line(error, code, line, capsys) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(typer.Exit) as caught:
        command(fail)()
    assert caught.value.exit_code == code
    assert capsys.readouterr().err == f"error: {line}\n"


def test_the_memory_of_a_cpu(capsys) -> None:
    """It has no class of error; bugs keep their traceback."""
    with pytest.raises(typer.Exit) as caught:
        command(lambda: torch.empty(2**46))()
    assert caught.value.exit_code == 1
    line = capsys.readouterr().err
    assert line.startswith("error: out of memory: you tried to allocate 281474976710656 bytes")
    assert line.count("\n") == 1
    with pytest.raises(RuntimeError, match="size of tensor"):
        command(lambda: torch.zeros(2) + torch.zeros(3))()


def test_warnings_are_one_line(capsys) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        command(lambda: warnings.warn("no locks", stacklevel=1))()
    assert capsys.readouterr().err == "warning: no locks\n"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose teacher returns NaN."""
    folder = tmp_path_factory.mktemp("broken")
    teacher = randomized(DiT(CONFIG))
    teacher.final_layer.linear.bias.data.fill_(torch.nan)
    teacher.save_pretrained(folder / "teacher")
    randomized(DrafterNet(CONFIG)).save_pretrained(folder / "drafter")
    return folder


@pytest.mark.parametrize("name", SMALL)
def test_networks_that_return_nan(name: str, broken: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FREE_CACHE", str(tmp_path / "cache"))
    code, text = run(name, "--model", broken, *SMALL[name].split())
    assert code == 1, text
    assert "error: " in text
    assert "teacher returned a non-finite" in text  # not the drafter, which is given what it says


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        *((f"{name} --model MODEL {more}", "x.") for name, more in SMALL.items()),
        ("convert MODEL new --to free", "new/model.safetensors"),
        ("convert MODEL new.pt --to original", "new.pt"),
        ("info MODEL --json x.json", "x.json"),
        ("train-teacher --steps 1 --hidden 16 --depth 1 --no-tensorboard --out new", "new/train"),
    ],
    ids=lambda value: value.split()[0],
)
def test_a_full_disk(arguments: str, file: str, digits: Path, tmp_path, monkeypatch) -> None:
    """One line that names the file, and nothing is left of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FREE_CACHE", str(tmp_path / "cache"))
    with full_disk():
        code, text = run(*arguments.replace("MODEL", str(digits)).split())
    assert code == 1, text
    assert re.search(f"error: .*File too large.*{re.escape(str(tmp_path / file))}", text), text
    assert not any(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["x.json", "x.json.gz"])
def test_a_trace_that_finds_a_full_disk(name: str, digits: Path, tmp_path, monkeypatch) -> None:
    """torch's profiler says nothing of it."""
    monkeypatch.chdir(tmp_path)
    with full_disk(room=64):
        code, text = run(
            *("profile", "--model", digits, "--engine", "torch", "--steps", 4, "--batches", 1),
            *("--trace", name),
        )
    assert code == 1, text
    reason = "(the profiler could not write all of it|File too large)"
    assert re.search(f"error: {reason}: {re.escape(str(tmp_path / name))}", text), text
    assert not any(tmp_path.iterdir())


def test_tilde(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell expands it behind an equals sign."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(digits)
    succeed("generate", "--model=~/model", "--num=2", "--steps=4", "--out=~/x.npz")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "x.npz"}


def test_tilde_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    code, text = run("info", "--json=~/x.json")
    assert code == 2
    assert "error: ~ in ~/x.json must be a home folder, and the user has none" in text
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["sample", "generate", "info", "sweep"])
def test_json_on_the_standard_output(name: str, digits: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    more = ["info", str(digits)] if name == "info" else [name, "--model", str(digits)]
    options = SMALL.get(name, "--json x.json").replace("--json x.json", "--json -").split()
    result = CliRunner().invoke(app, [*more, *options])
    assert result.exit_code == 0, result.output
    assert isinstance(json.loads(result.stdout), dict)
    assert result.stderr
    assert not (tmp_path / "-").exists()


def test_json_is_a_file_in_every_command() -> None:
    for name, one in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for option in one.params:
            if "--json" in option.opts:
                assert not option.is_flag, name
                assert "- is the standard output" in option.help, name


def test_version() -> None:
    import free

    assert succeed("--version") == f"free {free.__version__}"


def test_a_reader_that_has_seen_enough() -> None:
    """As ``free info | head``: no error is printed."""
    command = [sys.executable, "-m", "free", "info"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
