"""Tens of thousands of images into one archive, over any number of processes, resumable.

Each process draws its share of the missing chunks and keeps each as a file of its own. When all are
there, process 0 joins them. A run that is killed loses the chunks in hand, no others.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from free.files import check_writable, parse_json, write_json
from free.generation.chunks import Chunk, ChunkFolder, write_pngs
from free.generation.plan import make_plan
from free.generation.processes import Processes
from free.generation.run_manifest import claim, describe_run, differences, read_manifest
from free.images.archive import Member, read_note, read_rows, write_npz
from free.images.autoencoder import LatentCoder, PixelCoder
from free.images.picture import to_uint8
from free.rounds.report import Report
from free.sampling.request import check_request
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler

#: Images of a finished archive that are turned into pictures at a time.
_ROWS = 64


class Generated(NamedTuple):
    """What a call of :func:`generate` did.

    Attributes
    ----------
    path : Path
        The archive.
    report : Report or None
        Of all its images, whenever they were drawn; None if it was complete before, and in all
        processes but the first.
    drawn : int
        Images that this call drew, in all processes.
    seconds : float
        From the first to the last of them, by the clock.
    """

    path: Path
    report: Report | None
    drawn: int
    seconds: float


def generate(
    sampler: SpeculativeSampler | SequentialSampler,
    out: str | Path,
    num: int,
    *,
    coder: LatentCoder | PixelCoder | None = None,
    labels: str | Sequence[int] = "random",
    seed: int = 0,
    batch_size: int = 8,
    png: str | Path | None = None,
    report: str | Path | None = None,
    overwrite: bool = False,
    keep_chunks: bool = False,
    progress: bool = False,
    tell: Callable[[str], object] = lambda line: None,
    processes: Processes | None = None,
) -> Generated:
    """Draw a set of images and write it as an ``.npz``, or continue to.

    The same settings give the same file, byte for byte, however many processes draw it and however
    often they were killed. Chunks wait in ``<out>.chunks``; another run's folder is not touched.

    Parameters
    ----------
    sampler : SpeculativeSampler or SequentialSampler
        Its teacher must know its ``sample_shape``. Networks are told apart by their weights if they
        are modules, other teachers by their type only.
    out : str or Path
        Ends in ``.npz``. Gets ``arr_0 [num, H, W, C] uint8`` and ``arr_1 [num] int64``, the
        labels; the settings are its note (``unzip -z``). If it is there and of the same settings,
        nothing is done.
    num : int
        Images.
    coder : LatentCoder or PixelCoder, optional
        Makes images of samples; by default they are images.
    labels, seed, batch_size
        See :func:`free.generation.plan.make_plan`. ``batch_size`` changes images by rounding, so
        it belongs to the settings.
    png : str or Path, optional
        A folder for ``000000.png`` and so on, besides.
    report : str or Path, optional
        A JSON file for the settings, times and the merged report.
    overwrite : bool
        Replace ``out`` when the new one is complete.
    keep_chunks : bool
        Leave the folder of chunks.
    progress : bool
        Show a bar of all processes' images.
    tell : callable
        Gets lines for people, in process 0.
    processes : Processes, optional
        By default as ``torchrun`` says in the environment.

    Returns
    -------
    Generated

    Raises
    ------
    ValueError
        If an argument is out of its range, ``out`` or a folder is of other settings, another
        process is at it, or the disk is too small; nothing is drawn.
    OSError
        If the disk is full after all. What was drawn is kept.
    RuntimeError
        If another process has ended early. What was drawn is kept.
    """
    processes = Processes.from_environment() if processes is None else processes
    coder = PixelCoder() if coder is None else coder
    teacher: Any = sampler.teacher
    plan = make_plan(teacher, num, labels, seed, batch_size)
    seed = int(seed)  # Python's, which can be written as JSON
    coder.require_fit(teacher.sample_shape)
    if Path(out).suffix != ".npz":
        raise ValueError(f"out must end in .npz, got {str(out)!r}")
    device = check_request(teacher, plan.labels[:1].tolist(), 0, None).state.device
    settings = describe_run(sampler, coder, plan, seed, device)
    # A link stays, what it points to is written.
    out, png = Path(out).resolve(), None if png is None else Path(png)
    folder = ChunkFolder(out.with_name(f"{out.name}.chunks"), plan, tuple(settings["image_shape"]))

    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.joined())
        other = differences(settings, processes.first(lambda: settings))
        if processes.any(torch.tensor([other != ""], dtype=torch.bool, device="cpu")):
            raise ValueError(
                f"processes must all have the same settings, got {other or 'others than here'}"
            )

        def prepare() -> bool:
            check_writable(out, "out")
            if report is not None:
                check_writable(report, "report")
            if png is not None:
                check_writable(png / "000000.png", "png")
            there = _settings_of(out)
            complete = there == settings and not overwrite
            if out.exists() and not complete and not overwrite:
                what = "a file of another origin" if there is None else differences(there, settings)
                raise ValueError(
                    f"out must be new or of a run with the same settings, got {out} with {what}; "
                    "overwrite replaces it"
                )
            if not complete:
                stack.enter_context(folder.locked())
                claim(folder.path, settings, "chunk-*", "out")
                folder.sweep()
            if png is not None:
                claim(png, settings, "*.png", "png")
                for path in png.glob(".[0-9]*-*.png"):  # half-written by a process that was killed
                    path.unlink(missing_ok=True)
            return complete

        if processes.first(prepare):
            if processes.rank == 0:
                _finish_complete(out, folder, png, settings, keep_chunks)
                tell(f"{out} is complete: nothing to draw (overwrite draws it anew)")
            return Generated(out, None, 0, 0.0)

        done = _check_present(folder, png, processes)
        processes.first(lambda: _tell_start(folder, done, png, tell))
        missing = np.flatnonzero(~done)
        start = time.perf_counter()
        bar = _Bar(folder, len(sampler.schedule), progress and processes.rank == 0)
        with bar:
            for chunk in missing[processes.rank :: processes.count].tolist():
                classes = plan.labels[plan.span(chunk)].tolist()
                result = sampler.sample(classes, plan.seeds(chunk), progress=bar.advance)
                pixels = to_uint8(coder.decode(result.samples)).cpu().numpy()
                _keep(folder, chunk, Chunk(pixels, result.report), png)
                bar.look()
            processes.wait(bar.look)
            bar.look()  # what the others kept last
        drawn, seconds = plan.images(~done), time.perf_counter() - start
        if processes.rank != 0:
            return Generated(out, None, drawn, seconds)
        partial, merged = _join(folder, settings)
        if report is not None:
            record = {
                "settings": settings,
                "run": {"processes": processes.count, "drawn": drawn, "seconds": seconds},
                "report": parse_json(merged.to_json()),
            }
            write_json(report, record)
        partial.replace(out)  # last: when it is there, all is
        if not keep_chunks:
            folder.remove()
        return Generated(out, merged, drawn, seconds)


def _settings_of(out: Path) -> dict[str, Any] | None:
    """The settings that an archive was made with, or None if it is none that says so."""
    try:
        settings = parse_json(read_note(out))
    except (OSError, ValueError, zipfile.BadZipFile):
        return None
    return settings if isinstance(settings, dict) else None


def _keep(folder: ChunkFolder, chunk: int, content: Chunk, png: Path | None) -> None:
    """Pictures first: a chunk that is there has its pictures."""
    try:
        if png is not None:
            write_pngs(png, folder.plan.span(chunk).start, content.images)
        folder.write(chunk, content)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror or error}: what is drawn is kept in {folder.path}, run the same "
            "command again for the rest",
        ) from error


def _check_present(
    folder: ChunkFolder, png: Path | None, processes: Processes
) -> NDArray[np.bool_]:
    """Which chunks are there and whole, [chunks]; each process looks at its share."""
    good = torch.zeros(len(folder.plan), dtype=torch.bool, device="cpu")
    present = np.flatnonzero(processes.first(folder.present))
    for chunk in present[processes.rank :: processes.count].tolist():
        try:
            content = folder.read(chunk)
        except ValueError:
            continue
        good[chunk] = True
        if png is not None:
            write_pngs(png, folder.plan.span(chunk).start, content.images)
    return processes.any(good).numpy()


def _tell_start(
    folder: ChunkFolder, done: NDArray[np.bool_], png: Path | None, tell: Callable[[str], object]
) -> None:
    """Say what is there, and make sure that the rest has room."""
    plan = folder.plan
    for chunk in np.flatnonzero(folder.present() & ~done).tolist():
        span = plan.span(chunk)
        tell(
            f"{folder.file(chunk).name} is damaged: images {span.start}..{span.stop - 1} are "
            "drawn again"
        )
    if done.any():
        tell(f"{plan.images(done)} of {len(plan.labels)} images are there; the rest follows")
    image = math.prod(folder.image_shape)
    archive, chunks = len(plan.labels) * image, plan.images(~done) * image
    _check_room(folder.path, archive + chunks, "out", "the archive and the chunks it is made of")
    if png is not None:
        _check_room(png, chunks, "png", "the pictures")


def _check_room(folder: Path, needed: int, argument: str, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"{argument} must be on a disk with {needed / 1e9:.2f} GB free for {what}, "
            f"got {free / 1e9:.2f} GB"
        )


def _finish_complete(
    out: Path, folder: ChunkFolder, png: Path | None, settings: dict[str, Any], keep_chunks: bool
) -> None:
    """What may be missing although the archive is there: pictures, and the end of tidying."""
    if png is not None:
        start = 0
        try:
            for images in read_rows(out, "arr_0", _ROWS):
                write_pngs(png, start, images)
                start += len(images)
        except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
            raise ValueError(
                f"out must be whole, got {out}, damaged: {error}; overwrite replaces it"
            ) from error
    if not keep_chunks and read_manifest(folder.path) == settings:
        # Another process may be replacing the archive; then the folder is its own.
        with contextlib.suppress(ValueError), folder.locked():
            folder.remove()


def _join(folder: ChunkFolder, settings: dict[str, Any]) -> tuple[Path, Report]:
    """The archive, still in the folder of chunks, and the report of all of them."""
    plan, reports = folder.plan, []

    def images() -> Iterator[NDArray[np.uint8]]:
        for chunk in range(len(plan)):
            try:
                content = folder.read(chunk)
            except ValueError as error:
                folder.file(chunk).unlink(missing_ok=True)
                raise RuntimeError(
                    f"{error}: it was whole before; run the same command again to draw it anew"
                ) from error
            reports.append(content.report)
            yield content.images

    partial = folder.path / "archive.partial"
    shape = (len(plan.labels), *folder.image_shape)
    members = [
        Member("arr_0", shape, np.uint8, images()),
        Member("arr_1", shape[:1], np.int64, [plan.labels]),
    ]
    write_npz(partial, members, json.dumps(settings))
    return partial, Report.merge(reports)


class _Bar:
    """The images of all processes, counted by their files, and those in this one's hands."""

    def __init__(self, folder: ChunkFolder, steps: int, visible: bool) -> None:
        self._folder, self._steps, self._visible = folder, steps, visible
        self._in_hand, self._files, self._time = 0, 0, 0.0

    def __enter__(self) -> _Bar:
        self._files = self._count() if self._visible else 0
        total = len(self._folder.plan.labels)
        self._bar = tqdm(total=total, initial=self._files, disable=not self._visible, unit="image")
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, transitions: int) -> None:
        """Note transitions of the chunk in hand."""
        self._in_hand += transitions
        self._show()

    def look(self) -> None:
        """Count the files; no chunk is in hand."""
        self._in_hand, self._time = 0, 0.0
        self._show()

    def _count(self) -> int:
        return self._folder.plan.images(self._folder.present())

    def _show(self) -> None:
        if not self._visible:
            return
        if time.monotonic() - self._time > 2:
            self._files, self._time = self._count(), time.monotonic()
        self._bar.update(max(0, self._files + self._in_hand // self._steps - self._bar.n))
