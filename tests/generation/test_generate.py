"""Whole runs in one process: what they draw, what they refuse, and that nothing is lost."""

import errno
import importlib
import itertools
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from free import FrozenDrafter, Schedule, SpeculativeSampler
from free.generation import chunks, generate
from free.generation.plan import make_plan
from free.images.autoencoder import LatentCoder
from free.images.picture import to_uint8
from tests.generation.runs import BATCH, CHUNKS, NUM, draw, images, plain, sampler
from tests.pipelines import tiny_dit, tiny_vae

#: The module; the package has its function under the same name.
run = importlib.import_module("free.generation.generate")


class _Killed(BaseException):
    """Not an Exception: nothing on the way may think that it can go on."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "samples.npz"
    draw(out)
    return out


def _interrupt(out: Path, after: int, draws: Any = None, **options: Any) -> None:
    """Run until so many chunks are kept."""
    write, count = chunks.ChunkFolder.write, itertools.count(1)

    def counted(*arguments: Any) -> None:
        write(*arguments)
        if next(count) == after:
            raise _Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks.ChunkFolder, "write", counted)
        with pytest.raises(_Killed):
            draw(out, draws, **options)


def test_images_are_the_samplers(whole: Path) -> None:
    draws = sampler()
    plan = make_plan(draws.teacher, NUM, "random", 0, BATCH)
    expected = [
        to_uint8(draws.sample(plan.labels[plan.span(j)].tolist(), plan.seeds(j)).samples).numpy()
        for j in range(CHUNKS)
    ]
    np.testing.assert_array_equal(images(whole), np.concatenate(expected))
    with np.load(whole) as archive:
        assert archive.files == ["arr_0", "arr_1"]
        np.testing.assert_array_equal(archive["arr_1"], plan.labels)
    assert images(whole).shape == (NUM, 8, 8, 1)
    assert len(np.unique(images(whole), axis=0)) == NUM
    assert list(whole.parent.iterdir()) == [whole]


def test_report_and_pictures(tmp_path: Path, whole: Path) -> None:
    lines: list[str] = []
    out, png = tmp_path / "a" / "x.npz", tmp_path / "p" / "q"
    done = draw(out, png=png, report=tmp_path / "r.json", tell=lines.append)
    assert out.read_bytes() == whole.read_bytes()
    assert done.report is not None
    assert done.report.samples == done.drawn == NUM
    assert len(set(done.report.seeds)) == NUM
    assert done.report.parallel_efficiency == NUM * 5 / sum(done.report.rounds_by_sample)
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["report"]["rounds"] == done.report.rounds
    assert record["run"]["processes"] == 1
    settings = record["settings"]
    assert (settings["window"], settings["device"]) == (4, "cpu")
    assert settings["threads"] == torch.get_num_threads()
    assert settings["drafter"] == {"type": "FrozenDrafter", "keep": "image"}
    assert settings["teacher"]["config"]["timestep_divisor"] == 128
    assert lines == []
    names = sorted(path.name for path in png.glob("*.png"))
    assert names == [f"{i:06d}.png" for i in range(NUM)]
    for name, image in zip(names, images(whole), strict=True):
        with Image.open(png / name) as picture:
            np.testing.assert_array_equal(np.asarray(picture), image[..., 0])


def test_a_complete_archive_is_left_alone(tmp_path: Path, whole: Path) -> None:
    out = shutil.copy(whole, tmp_path / "x.npz")
    before, lines = out.stat(), []
    done = draw(out, png=tmp_path / "p", tell=lines.append)
    assert (done.drawn, done.report) == (0, None)
    assert lines == [f"{out} is complete: nothing to draw (overwrite draws it anew)"]
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert len(list((tmp_path / "p").glob("*.png"))) == NUM  # asked for later, made from it
    with pytest.raises(ValueError, match=r"out must be new .* num 10, not 11.*overwrite replaces"):
        draw(out, num=11)
    for _ in range(2):
        assert draw(out, num=11, overwrite=True).drawn == len(images(out)) == 11


def test_killed_at_every_write_it_ends_with_the_same_bytes(tmp_path, monkeypatch) -> None:
    """Before and after every rename and the removal; a kept chunk is not drawn again."""
    num, number_of_chunks = 5, 2
    draw(tmp_path / "whole.npz", num=num)
    for moment in itertools.count():
        out, png = tmp_path / str(moment) / "x.npz", tmp_path / str(moment) / "png"
        with monkeypatch.context() as patch:
            clock = itertools.count()
            patch.setattr(Path, "replace", _dying(Path.replace, clock, moment))
            patch.setattr(shutil, "rmtree", _dying(shutil.rmtree, clock, moment))
            try:
                draw(out, num=num, png=png)
            except _Killed:
                pass
            else:
                break
        kept = len(list(out.parent.glob("x.npz.chunks/chunk-*")))
        left = 0 if out.exists() else max(0, num - BATCH * kept)
        assert draw(out, num=num, png=png).drawn == left
        assert out.read_bytes() == (tmp_path / "whole.npz").read_bytes()
        assert {path.name for path in out.parent.iterdir()} == {"x.npz", "png"}
        assert len(list(png.glob("*.png"))) == num
    # Two manifests, the pictures, the chunks, the archive, and the removal.
    assert moment == 2 * (2 + num + number_of_chunks + 1 + 1)


def _dying(act: Callable[..., Any], clock: Iterator[int], moment: int) -> Callable[..., Any]:
    """``act``, before and after which the clock ticks."""

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if next(clock) == moment:
            raise _Killed
        result = act(*arguments, **options)
        if next(clock) == moment:
            raise _Killed
        return result

    return wrapped


def test_what_a_killed_process_left_half_written_is_swept(tmp_path: Path, whole: Path) -> None:
    out, png, folder = tmp_path / "x.npz", tmp_path / "png", tmp_path / "x.npz.chunks"
    _interrupt(out, after=2, png=png)
    (folder / ".chunk-00000002-abcd.npz").write_bytes(b"half")
    (folder / "archive.partial").write_bytes(b"half")
    (png / ".000007-abcd.png").write_bytes(b"half")
    draw(out, png=png, keep_chunks=True)
    assert out.read_bytes() == whole.read_bytes()
    assert not list(png.glob(".*"))
    left = {path.name for path in folder.iterdir()}
    assert left == {"manifest.json", "lock", *(f"chunk-{i:08d}.npz" for i in range(CHUNKS))}
    draw(out)
    assert not folder.exists()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[250] ^= 1
    path.write_bytes(data)


def _rewrite(path: Path, **arrays: Any) -> None:
    with np.load(path) as archive:
        np.savez_compressed(path, **{**archive, **arrays})


@pytest.mark.parametrize(
    "damage",
    [_flip, lambda path: shutil.copy(path.with_name("chunk-00000000.npz"), path),
     lambda path: path.write_bytes(path.read_bytes()[:-100]),
     lambda path: np.savez(path, arr_0=np.zeros((3, 8, 8, 1), np.uint8)),
     lambda path: _rewrite(path, report=np.frombuffer(b"[" * 100_000, np.uint8)),
     lambda path: _rewrite(path, arr_0=np.zeros((3, 8, 8, 10**4), np.uint8))],
    ids=["a bit", "another chunk", "truncated", "of other origin", "deep", "vast"],
)  # fmt: skip
def test_a_damaged_chunk_is_drawn_again(tmp_path, whole, damage) -> None:
    out, lines = tmp_path / "x.npz", []
    _interrupt(out, after=3)
    damage(tmp_path / "x.npz.chunks" / "chunk-00000001.npz")
    assert draw(out, tell=lines.append).drawn == 4
    assert lines == [
        "chunk-00000001.npz is damaged: images 3..5 are drawn again",
        "6 of 10 images are there; the rest follows",
    ]
    assert out.read_bytes() == whole.read_bytes()


def test_a_chunk_damaged_during_the_run(tmp_path, whole, monkeypatch) -> None:
    """What was whole when it was checked is checked again when the archive is made."""
    out, join = tmp_path / "x.npz", run._join

    def damaged(folder: Any, settings: Any) -> Any:
        _flip(folder.file(2))
        return join(folder, settings)

    with monkeypatch.context() as patch:
        patch.setattr(run, "_join", damaged)
        with pytest.raises(RuntimeError, match=r"chunk-00000002.npz .* run the same command again"):
            draw(out)
    assert not out.exists()
    assert draw(out).drawn == 3
    assert out.read_bytes() == whole.read_bytes()


def test_another_runs_chunks_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "x.npz"
    _interrupt(out, after=2)
    for difference, message in (
        ({"num": 11}, "num 10, not 11"),
        ({"batch_size": 4}, "batch_size 3, not 4"),
        ({"labels": "balanced"}, r"labels .*, not"),
        ({"draws": sampler(6)}, "steps 5, not 6, schedule"),
        ({"draws": sampler(weights=1)}, r"teacher\.weights \w{12}\.\.\., not \w{12}\.\.\."),
        ({"draws": sampler(drafter=FrozenDrafter("eps"))}, r"drafter\.keep image, not eps"),
        ({"draws": sampler(window=3)}, "window 4, not 3"),
        ({"draws": sampler(sweeps=None)}, "sweeps 1, not None"),
        ({"draws": sampler(recycle="reuse")}, "recycle response, not reuse"),
        ({"draws": sampler(cfg_scale=2)}, "cfg_scale 1.5, not 2"),
        ({"draws": plain()}, "sampler SpeculativeSampler, not SequentialSampler"),
    ):
        told = f"out must be of a run with the same settings, got .*x.npz.chunks with .*{message}"
        with pytest.raises(ValueError, match=told):
            draw(out, **difference)
        assert len(list(tmp_path.glob("x.npz.chunks/chunk-*"))) == 2


def test_a_full_disk_loses_nothing(tmp_path, whole, monkeypatch) -> None:
    out = tmp_path / "x.npz"
    write, left = chunks.write_npz, [2]

    def full(path: Path, *arguments: Any) -> None:
        if not left[0]:
            path.write_bytes(b"as much as there was room for")
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        write(path, *arguments)

    when_drawn = "No space left on device: what is drawn is kept in"
    for module, message, kept in ((chunks, when_drawn, 2), (run, "No space left", CHUNKS)):
        with monkeypatch.context() as patch:
            patch.setattr(module, "write_npz", full)
            with pytest.raises(OSError, match=message):
                draw(out)
        assert len(list(tmp_path.glob("x.npz.chunks/*chunk-*"))) == kept
    assert not out.exists()
    assert draw(out).drawn == 0
    assert out.read_bytes() == whole.read_bytes()


def test_the_disk_is_looked_at_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ValueError, match="out must be on a disk with 0.00 GB free for the archive"):
        draw(tmp_path / "x.npz")


def test_a_second_run_at_once_is_refused_and_changes_nothing(tmp_path, whole, monkeypatch) -> None:
    """Not even where the one at work has not kept a chunk yet."""
    out, write = tmp_path / "x.npz", chunks.ChunkFolder.write
    manifest = tmp_path / "x.npz.chunks" / "manifest.json"

    def write_late(*arguments: Any) -> None:
        before = manifest.read_text()
        for num in (7, NUM):
            with pytest.raises(ValueError, match="out must not be in the making by another proc"):
                draw(out, num=num)
        assert manifest.read_text() == before
        write(*arguments)

    monkeypatch.setattr(chunks.ChunkFolder, "write", write_late)
    draw(out)
    assert out.read_bytes() == whole.read_bytes()


def test_a_chunk_comes_too_late(tmp_path: Path) -> None:
    """Its run has been ended by others: it must not bring the folder back."""
    _interrupt(tmp_path / "x.npz", 1)
    plan = make_plan(sampler().teacher, NUM, "random", 0, BATCH)
    folder = chunks.ChunkFolder(tmp_path / "x.npz.chunks", plan, (8, 8, 1))
    content = folder.read(0)
    folder.remove()
    with pytest.raises(RuntimeError, match="x.npz.chunks is gone: another process has ended"):
        folder.write(1, content)
    assert not list(tmp_path.iterdir())


def test_beside_a_complete_archive_anothers_chunks_stay(tmp_path: Path, whole: Path) -> None:
    out = shutil.copy(whole, tmp_path / "x.npz")
    _interrupt(out, 1, num=11, overwrite=True)
    assert draw(out).drawn == 0
    assert draw(out, num=11, overwrite=True).drawn == 11 - BATCH


def test_folders_of_others_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "png").mkdir()
    (tmp_path / "png" / "cat.png").write_text("")
    (tmp_path / "y.npz.chunks").mkdir()
    (tmp_path / "y.npz.chunks" / "chunk-1.npz").write_text("")
    (tmp_path / "z.npz.chunks").write_text("")
    np.savez(tmp_path / "a.npz", np.zeros(3))
    (tmp_path / "b.npz").mkdir()
    _interrupt(tmp_path / "d.npz", 1)
    (tmp_path / "d.npz.chunks" / "manifest.json").write_text("{")
    for name, options, message in (
        ("x.npz", {"png": tmp_path / "png"}, r"png must be new or without such files.* cat.png"),
        ("y.npz", {}, r"out must be new or without such files, got .* chunk-1"),
        ("z.npz", {}, r"out must have room for .*, got the file .*z.npz.chunks"),
        ("a.npz", {}, "out must be new .* with a file of another origin"),
        ("b.npz", {"overwrite": True}, r"out must be a file that can be written, got .*b.npz"),
        ("c.npy", {}, r"out must end in .npz, got"),
        ("d.npz", {}, "with a damaged manifest; remove it"),
    ):
        with pytest.raises(ValueError, match=message):
            draw(tmp_path / name, **options)


def test_latents_are_decoded(tmp_path: Path) -> None:
    teacher, coder = tiny_dit(), LatentCoder(tiny_vae())
    draws = SpeculativeSampler(teacher, "frozen", Schedule.ddpm(3), window=3)
    generate(draws, tmp_path / "x.npz", 3, coder=coder, batch_size=2, labels=[7])
    plan = make_plan(teacher, 3, [7], 0, 2)
    first = draws.sample([7, 7], plan.seeds(0)).samples
    np.testing.assert_array_equal(images(tmp_path / "x.npz")[:2], to_uint8(coder.decode(first)))
    assert images(tmp_path / "x.npz").shape == (3, 64, 64, 3)
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        settings = json.loads(archive.comment)
    assert settings["vae"]["scale"] == 0.18215
    with pytest.raises(ValueError, match=r"vae must be given for samples of shape \[4, 8, 8\]"):
        generate(draws, tmp_path / "y.npz", 3)
    coder.vae.decoder.conv_out.bias += 1
    with pytest.raises(ValueError, match=r"vae\.weights"):
        generate(draws, tmp_path / "x.npz", 3, coder=coder, batch_size=2, labels=[7])
