"""Background decoding: replacements that depend on the files alone, and bounded memory."""

import errno
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from free.training.dataset import decoder as decoding
from free.training.dataset.decoder import Decoder, Pixels
from free.training.dataset.order import images_at


class Files:
    """Ten files; each is one pixel of its number, unless it is damaged."""

    def __init__(self, damaged: set[int]) -> None:
        self.damaged = damaged
        self.reads: list[int] = []

    def __call__(self, path: Path) -> Pixels:
        number = int(path.name)
        self.reads.append(number)
        if number in self.damaged:
            raise OSError(f"{path} is truncated")
        return np.full((1, 1, 1), number, np.uint8)

    def decoder(self, prefetch: int = 2, kind: type[Decoder] = Decoder) -> Decoder:
        return kind(Path("f"), [str(i) for i in range(10)], self, 2, prefetch)


def _run(decoder: Decoder, steps: range, parts: Sequence[range]) -> torch.Tensor:
    """The images of batches of eight."""
    read = []
    for step in steps:
        for rows in parts:
            pixels, index = decoder.pixels(4, step, rows, 8)
            assert pixels.flatten().tolist() == index.tolist()
            read.append(index)
    return torch.cat(read).view(len(steps), -1)


DAMAGED = {3, 4, 9}
REPLACED = {3: 5, 4: 5, 9: 0}


@pytest.mark.parametrize("prefetch", [0, 2, 5])
def test_a_damaged_file_is_the_next_good_one_whoever_asks_and_when(prefetch: int) -> None:
    def read(steps: range, *parts: range) -> torch.Tensor:
        return _run(Files(DAMAGED).decoder(prefetch), steps, parts)

    asked = [images_at(10, 4, step, range(8), 8).tolist() for step in range(9)]
    expected = torch.tensor([[REPLACED.get(i, i) for i in row] for row in asked])
    assert torch.equal(read(range(9), range(8)), expected)
    assert torch.equal(read(range(5, 9), range(8)), expected[5:])
    assert torch.equal(read(range(9), range(3), range(3, 6), range(6, 8)), expected)
    for rank in (range(4), range(4, 8)):
        assert torch.equal(read(range(9), rank), expected[:, rank.start : rank.stop])


def test_damaged_files_are_listed_and_read_once() -> None:
    files = Files(DAMAGED)
    decoder = files.decoder()
    _run(decoder, range(9), [range(8)])
    assert decoder.skipped == [{"file": str(i), "reason": f"{i} is truncated"} for i in (3, 4, 9)]
    assert all(files.reads.count(i) <= 2 for i in DAMAGED)  # two threads may meet one at once


def test_steps_ahead_are_decoded_and_no_more() -> None:
    files = Files(set())
    decoder = files.decoder(prefetch=3)
    del files.reads[:]
    decoder.pixels(4, 0, range(4), 4)
    deadline = time.monotonic() + 10
    while len(files.reads) < 16 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(files.reads) == 16
    for step in range(1, 6):
        decoder.pixels(4, step, range(4), 4)
    assert {key[1] for key in decoder._ahead} == {6, 7, 8}
    decoder.pixels(4, 500, range(2), 4)  # elsewhere: what was ahead is forgotten
    assert {key[1:3] for key in decoder._ahead} == {(s, range(2)) for s in (501, 502, 503)}
    decoder.pixels(5, 500, range(2), 4)
    assert {key[0] for key in decoder._ahead} == {5}


def test_a_step_does_not_wait_for_those_ahead() -> None:
    files = Files(set())
    decoder = files.decoder(prefetch=1)
    slow, go = set(images_at(10, 4, 1, range(4), 4).tolist()), threading.Event()

    def read(path: Path) -> Pixels:
        assert int(path.name) not in slow or go.wait(10)
        return files(path)

    decoder._read = read
    decoder.pixels(4, 0, range(4), 4)
    go.set()
    assert set(decoder.pixels(4, 1, range(4), 4)[1].tolist()) == slow
    assert decoder.skipped == []


def test_threads_end_with_the_decoder() -> None:
    others = set(threading.enumerate())
    decoder = Files(set()).decoder()
    decoder.pixels(4, 0, range(4), 4)
    own = set(threading.enumerate()) - others
    assert own
    deadline = time.monotonic() + 10
    del decoder
    while any(thread.is_alive() for thread in own) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(thread.is_alive() for thread in own)


def test_a_folder_most_of_which_is_damaged_is_refused() -> None:
    assert len(Files(set(range(5))).decoder().skipped) == 5
    message = "got f where 6 of the 10 that were tried cannot: 0: 0 is truncated; 1: 1 is"
    with pytest.raises(ValueError, match=message):
        Files(set(range(6))).decoder()
    files = Files(set())
    decoder = files.decoder()
    files.damaged = set(range(10))  # later, all of them
    with pytest.raises(ValueError, match="got f with none left: 0: 0 is truncated"):
        decoder.pixels(4, 0, range(4), 4)


class Unsteady(Files):
    """Each read of the eighth file fails a number of times before it succeeds."""

    def __init__(self, error: BaseException, times: int) -> None:
        super().__init__(set())
        self.error, self.times = error, times

    def __call__(self, path: Path) -> Pixels:
        if path.name == "7" and self.times:
            self.times -= 1
            raise self.error
        return super().__call__(path)


def test_a_read_that_fails_for_a_moment_is_tried_again(monkeypatch) -> None:
    """The image must not be another one because of it; one that goes on failing ends the run."""
    monkeypatch.setattr(decoding, "_PAUSES", (0.0, 0.0))
    decoder = Unsteady(OSError(errno.EIO, "Input/output error"), 2).decoder()
    assert set(decoder.pixels(4, 0, range(10), 10)[1].tolist()) == set(range(10))
    assert decoder.skipped == []
    with pytest.raises(OSError, match=r"Stale file handle, 3 times: 'f/7'") as raised:
        Unsteady(OSError(errno.ESTALE, "Stale file handle"), 99).decoder()
    assert raised.value.errno == errno.ESTALE


def test_what_the_file_itself_is_to_blame_for_is_skipped_at_once() -> None:
    """Unlike a lack of memory."""
    for number in (errno.ENOENT, errno.EACCES, errno.EISDIR, errno.EINVAL):
        files = Unsteady(OSError(number, "no use"), 99)
        assert [one["file"] for one in files.decoder().skipped] == ["7"]
        assert files.times == 98
    with pytest.raises(MemoryError):
        Unsteady(MemoryError(), 1).decoder()


def test_numbers_are_checked() -> None:
    for threads, prefetch, message in (
        (0, 2, "threads must be an integer in 1..1024, got 0"),
        (100_000, 2, "threads must be an integer in 1..1024, got 100000"),
        (True, 2, "threads must be an integer in 1..1024, got True"),
        (1, -1, "prefetch must be an integer >= 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            Decoder(Path("f"), ["0"], Files(set()), threads, prefetch)


def test_it_is_told_apart_from_a_replacement_by_what_was_met_before() -> None:
    """The bug that the rule is there against: the last good image instead of the next."""

    class Last(Decoder):
        last = np.zeros((1, 1, 1), np.uint8), 0

        def _usable(self, index: int) -> tuple[Pixels, int]:
            image = self._try(index)
            if image is not None:
                self.last = image, index
            return self.last

    whole, resumed = (
        _run(Files(DAMAGED).decoder(0, Last), range(first, 9), [range(8)]) for first in (1, 5)
    )
    assert not torch.equal(resumed, whole[4:])
