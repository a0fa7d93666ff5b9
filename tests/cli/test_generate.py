"""``free generate`` as users run it: several processes, and ``kill -9``."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.commands import refuse, succeed

NUM, BATCH = 30, 2
CHUNKS = NUM // BATCH
#: ``--`` keeps torchrun from reading the options behind it.
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def _arguments(bundle: Path, out: Path, *more: object) -> list[str]:
    return [
        "generate", "--model", str(bundle), "--num", str(NUM), "--batch-size", str(BATCH),
        "--steps", "24", "--labels", "balanced", "--out", str(out), *map(str, more),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    text = succeed(*_arguments(digits, folder / "x.npz", "--png", folder / "png"))
    assert f"{NUM} of them now" in text
    return folder


def _same(folder: Path, whole: Path) -> None:
    """File for file, and nothing besides."""
    names = {str(path.relative_to(whole)) for path in whole.rglob("*")}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == names
    for name in names:
        if (whole / name).is_file():
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert len(names) == NUM + 3  # the archive, the folder, its manifest


def _start(*command: str) -> subprocess.Popen[str]:
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, *command], text=True, **output)


def _kill(pid: int) -> None:
    """``kill -9`` of a process and all below it, which torchrun puts in sessions of their own."""
    os.kill(pid, signal.SIGSTOP)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(pid, signal.SIGKILL)
    for child in children:
        _kill(int(child))


def test_two_processes_killed_once_make_the_files_of_one(digits, whole, tmp_path) -> None:
    """Killed at a random moment; what was kept before stays untouched."""
    choose, folder = random.Random(6), tmp_path / "run"
    more = ("--png", folder / "png", "--json", tmp_path / "r.json")
    launch = [*TORCHRUN, "2", "-m", "--", "free", *_arguments(digits, folder / "x.npz", *more)]
    process, chunks = _start(*launch), folder / "x.npz.chunks"
    while not list(chunks.glob("chunk-*")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    time.sleep(choose.uniform(0, 0.05))
    _kill(process.pid)
    process.communicate()
    kept = {path.name: path.stat().st_ino for path in chunks.glob("chunk-*")}
    assert 1 <= len(kept) < CHUNKS
    assert not (folder / "x.npz").exists()
    process = _start(*launch, "--keep-chunks")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert f"{BATCH * len(kept)} of {NUM} images are there; the rest follows" in output
    assert all(part in output for part in ("100%", f"{NUM}/{NUM}"))
    for name, inode in kept.items():
        assert (chunks / name).stat().st_ino == inode
    shutil.rmtree(chunks)
    _same(folder, whole)
    record = json.loads((tmp_path / "r.json").read_text())
    assert (record["run"]["processes"], record["run"]["drawn"]) == (2, NUM - BATCH * len(kept))
    assert len(record["report"]["rounds_by_sample"]) == NUM


def test_the_plain_sampler(digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.npz"
    few = _arguments(digits, out, "--num", 4, "--steps", 6)
    text = succeed(*few, "--sampler", "plain", "--dtype", "bfloat16")
    assert f"{2 * 6} teacher calls, 1.00 steps a round" in text
    refuse("sampler SequentialSampler, not SpeculativeSampler", *few)
    succeed(*few, "--overwrite", "--paper", "--labels", 2)
    with np.load(out) as archive:
        assert set(archive["arr_1"].tolist()) == {2}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_each_process_has_its_own_gpu(digits, tmp_path, monkeypatch) -> None:
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    refuse("--device must be one that this machine has, got 'cuda:1'",
           *_arguments(digits, tmp_path / "x.npz", "--device", "cuda"))  # fmt: skip


def test_its_help_offers_no_window_that_it_refuses() -> None:
    assert "auto" not in succeed("generate", "--help").partition("--window")[2].partition("--sw")[0]
    assert "auto" in succeed("sample", "--help").partition("--window")[2].partition("--sw")[0]


def test_a_run_that_drew_nothing_leaves_its_name_free(digits: Path, tmp_path: Path) -> None:
    few = _arguments(digits, tmp_path / "x.npz", "--num", 2, "--cfg-channels")
    refuse("cfg_channels must be", *few, 2)
    succeed(*few, 1)
