"""Decoding images in background threads, ahead of the steps that ask for them."""

from __future__ import annotations

import errno
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from free.arguments import as_integer
from free.devices import MOST_THREADS
from free.training.dataset.order import images_at
from free.training.dataset.sets import Skipped

Pixels = NDArray[np.uint8]
#: Pixels, and the file that they are of.
_Decoding = Future[tuple[Pixels, int]]

#: Images that are looked at before a run starts.
_PROBED = 32

#: What of the system's errors says that a file is of no use, now and later; decoders' own have no
#: number. Any other, as of a network's file system, may be gone at the next attempt.
_LASTING = {None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EINVAL}
#: Seconds before another attempt.
_PAUSES = (0.2, 2.0)


class _Request(NamedTuple):
    """Rows of a step, as of :func:`free.training.dataset.order.images_at`."""

    seed: int
    step: int
    rows: range
    batch_size: int


class Decoder:
    """Reads the images of training steps.

    Pillow lets go of the interpreter while it decodes and resizes, so threads use all cores. At
    most ``prefetch`` steps are decoded ahead, and held in bytes; 0 for none.

    An image that cannot be read is replaced by the next of the list that can: which one a row gets
    depends on the files alone, not on who met the damage before. So a read that fails for another
    reason than the file (``EIO``, ``ESTALE``, too many open files) is tried again, and then ends
    the run.

    ``read(path)`` returns the pixels of a file, [H, W, C] uint8 of one shape for all files, or
    raises. The files, at least one, are named below the folder.

    Raises
    ------
    ValueError
        If a number is out of its range, or more than half of a probe of the files is of no use.
    OSError
        If the probe cannot read a file for another reason than the file; so can :meth:`pixels`.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[str],
        read: Callable[[Path], Pixels],
        threads: int,
        prefetch: int = 2,
    ) -> None:
        expected = f"threads must be an integer in 1..{MOST_THREADS}"
        threads = as_integer(threads, expected, 1, MOST_THREADS)
        prefetch = as_integer(prefetch, "prefetch must be an integer >= 0", 0)
        self._folder = folder
        self._files = files
        self._read = read
        self._prefetch = prefetch
        self._unusable: dict[int, str] = {}
        self._ahead: dict[_Request, list[_Decoding]] = {}
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        self._probe()

    @property
    def skipped(self) -> list[Skipped]:
        """Files found unusable up to now, in their order."""
        return [
            {"file": self._files[index], "reason": reason}
            for index, reason in sorted(self._unusable.copy().items())
        ]

    def pixels(self, seed: int, step: int, rows: range, batch_size: int) -> tuple[Pixels, Tensor]:
        """The images of some rows of a step, [R, H, W, C] uint8, and their index, [R] int64.

        The index is of the files that were read, replacements included. Arguments are those of
        :func:`free.training.dataset.order.images_at`. A ValueError if none of the files can be read
        any more.
        """
        now = _Request(seed, step, rows, batch_size)
        steps = range(step, step + 1 + self._prefetch)
        for key in list(self._ahead):  # what a run that went elsewhere has left
            if key.step not in steps or now != key._replace(step=step, rows=rows):
                for future in self._ahead.pop(key):
                    future.cancel()
        decoding = self._ahead.pop(now, None) or self._begin(now)
        # The same rows of the next steps: whatever the ranks and micro-batches, they will come.
        for later in steps[1:]:
            key = now._replace(step=later)
            if key not in self._ahead:
                self._ahead[key] = self._begin(key)
        images, index = zip(*(future.result() for future in decoding), strict=True)
        return np.stack(images), torch.tensor(index, dtype=torch.int64, device="cpu")

    def _begin(self, request: _Request) -> list[_Decoding]:
        index = images_at(len(self._files), *request)
        return [self._pool.submit(self._usable, i) for i in index.tolist()]

    def _usable(self, index: int) -> tuple[Pixels, int]:
        """The first image from this one on that can be read, and which it is."""
        count = len(self._files)
        for place in range(index, index + count):
            image = self._try(place % count)
            if image is not None:
                return image, place % count
        raise ValueError(
            f"data must have images that can be used, got {self._folder} with none left: "
            + self._reasons()
        )

    def _try(self, index: int) -> Pixels | None:
        if index in self._unusable:
            return None
        path = self._folder / self._files[index]
        for pause in (*_PAUSES, None):
            try:
                return self._read(path)
            except MemoryError:  # says nothing of the file
                raise
            except Exception as error:  # Pillow's decoders raise anything on damaged files
                if not isinstance(error, OSError) or error.errno in _LASTING:
                    text = str(error).replace(str(path), self._files[index])
                    self._unusable[index] = text or type(error).__name__
                    return None
                if pause is None:
                    reason = f"{error.strerror}, {len(_PAUSES) + 1} times"
                    raise OSError(error.errno, reason, str(path)) from error
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _probe(self) -> None:
        """Refuse a folder most of which is of no use, before hours are spent on the rest."""
        count = len(self._files)
        probes = min(count, _PROBED)
        found = list(self._pool.map(self._try, [i * count // probes for i in range(probes)]))
        bad = sum(image is None for image in found)
        if 2 * bad > len(found):
            raise ValueError(
                f"data must have images that can be used, got {self._folder} where {bad} of the "
                f"{len(found)} that were tried cannot: {self._reasons()}"
            )

    def _reasons(self) -> str:
        return "; ".join(f"{entry['file']}: {entry['reason']}" for entry in self.skipped[:3])
