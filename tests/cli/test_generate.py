"""``free generate`` as users run it: several processes, and ``kill -9``."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from free import DiT, DrafterNet
from free.cli import app
from tests.generation.runs import CONFIG
from tests.networks import randomized

NUM, BATCH = 30, 2
CHUNKS = NUM // BATCH
#: ``--`` keeps torchrun from reading the options behind it.
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    randomized(DiT(CONFIG)).save_pretrained(folder / "teacher")
    sampling = {"window": 4, "sweeps": 1, "recycle": "response"}
    randomized(DrafterNet(CONFIG), 7).save_pretrained(folder / "drafter", sampling=sampling)
    return folder


def _arguments(bundle: Path, out: Path, *more: object) -> list[str]:
    return [
        "generate", "--model", str(bundle), "--num", str(NUM), "--batch-size", str(BATCH),
        "--steps", "24", "--labels", "balanced", "--out", str(out), *map(str, more),
    ]  # fmt: skip


def _generate(bundle: Path, out: Path, *more: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, _arguments(bundle, out, *more))
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture(scope="module")
def whole(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    code, text = _generate(bundle, folder / "x.npz", "--png", folder / "png")
    assert code == 0, text
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


def _start(*command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def _kill(pid: int) -> None:
    """``kill -9`` of a process and all below it, which torchrun puts in sessions of their own."""
    os.kill(pid, signal.SIGSTOP)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(pid, signal.SIGKILL)
    for child in children:
        _kill(int(child))


def test_two_processes_make_the_files_of_one(bundle: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = _arguments(
        bundle, folder / "x.npz", "--png", folder / "png", "--json", tmp_path / "r.json"
    )
    run = _start(*TORCHRUN, "2", "-m", "--", "free", *arguments)
    output, _ = run.communicate(timeout=200)
    assert run.returncode == 0, output
    _same(folder, whole)
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["run"]["processes"] == 2
    assert record["run"]["drawn"] == NUM
    assert len(record["report"]["rounds_by_sample"]) == NUM
    assert "100%" in output
    assert f"{NUM}/{NUM}" in output


def test_killed_three_times_it_still_ends_with_the_same_files(
    bundle: Path, whole: Path, tmp_path: Path
) -> None:
    """``kill -9`` of everything, at random moments while it draws; with two processes and one in
    turn. What was kept before a kill is there after it, untouched.
    """
    choose, folder = random.Random(6), tmp_path / "run"
    arguments = _arguments(bundle, folder / "x.npz", "--png", folder / "png")
    chunks, kept = folder / "x.npz.chunks", {}
    for kill in range(3):
        launch = [*TORCHRUN, "2", "-m", "--", "free"] if kill == 1 else ["-m", "free"]
        run, wanted = _start(*launch, *arguments), len(kept) + choose.randint(1, 2)
        while len(list(chunks.glob("chunk-*"))) < wanted:
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.005)
        time.sleep(choose.uniform(0, 0.05))
        _kill(run.pid)
        run.communicate()
        for name, inode in kept.items():
            assert (chunks / name).stat().st_ino == inode
        kept = {path.name: path.stat().st_ino for path in chunks.glob("chunk-*")}
        assert wanted <= len(kept) < CHUNKS
        assert not (folder / "x.npz").exists()
    run = _start(*TORCHRUN, "2", "-m", "--", "free", *arguments)
    output, _ = run.communicate(timeout=200)
    assert run.returncode == 0, output
    assert f"{BATCH * len(kept)} of {NUM} images are there; the rest follows" in output
    assert f"{NUM - BATCH * len(kept)} of them now" in output
    _same(folder, whole)


def test_what_the_archive_holds(bundle: Path, whole: Path) -> None:
    with np.load(whole / "x.npz", allow_pickle=False) as archive:
        assert archive["arr_0"].shape == (NUM, 8, 8, 1)
        assert archive["arr_0"].dtype == np.uint8
        assert archive["arr_1"].tolist() == [i % 3 for i in range(NUM)]
    code, text = _generate(bundle, whole / "x.npz")
    assert code == 0
    assert "x.npz is complete: nothing to draw" in text


def test_the_plain_sampler(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.npz"
    code, text = _generate(bundle, out, "--sampler", "plain", "--dtype", "bfloat16")
    assert code == 0, text
    assert f"{CHUNKS * 24} teacher calls, 1.00 steps a round" in text
    code, text = _generate(bundle, out)
    assert code == 2
    assert "sampler SequentialSampler, not SpeculativeSampler" in text
    code, text = _generate(bundle, out, "--overwrite", "--paper", "--labels", "2")
    assert code == 0, text
    with np.load(out) as archive:
        assert set(archive["arr_1"].tolist()) == {2}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_each_process_has_its_own_gpu(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    code, text = _generate(bundle, tmp_path / "x.npz", "--device", "cuda")
    assert code == 2
    assert "--device must be one that this machine has, got 'cuda:1'" in text


def test_a_full_disk_is_one_line(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("free.generation.chunks.write_npz", full)
    code, text = _generate(bundle, tmp_path / "x.npz")
    assert code == 1
    assert "error: No space left on device: what is drawn is kept in" in text
    assert "Traceback" not in text


def test_a_run_that_drew_nothing_leaves_its_name_free(bundle: Path, tmp_path: Path) -> None:
    code, text = _generate(bundle, tmp_path / "x.npz", "--cfg-channels", 2)
    assert code == 2
    assert "cfg_channels must be" in text
    code, text = _generate(bundle, tmp_path / "x.npz", "--cfg-channels", 1)
    assert code == 0, text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num", 0], "num must be an integer >= 1, got 0"),
        (["--batch-size", 0], "batch_size must be an integer >= 1, got 0"),
        (["--labels", "7"], "labels must be in 0..2 or 3 (the null class), got 7"),
        (["--labels", "all"], "labels must look like 0-9 or 1,4-6, got 'all'"),
        (["--sampler", "ddim"], "--sampler must be free or plain, got 'ddim'"),
        (
            ["--sampler", "plain", "--verifier", "block"],
            "--sampler plain must come without --paper",
        ),
        (["--sampler", "plain", "--window", 3], "--sampler plain must come without --paper"),
        (["--out", "x.npy"], "out must end in .npz, got 'x.npy'"),
        (["--device", "tpu"], "--device must be one that this machine has, got 'tpu'"),
        (["--seed", 2**64], "seed: expected values in -2**63..2**64-1"),
    ],
)
def test_bad_options_are_one_line_and_exit_2(
    bundle: Path, tmp_path: Path, arguments: list[object], message: str
) -> None:
    code, text = _generate(bundle, tmp_path / "x.npz", *arguments)
    assert code == 2, text
    assert message in text
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir())
