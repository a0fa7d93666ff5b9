"""Background decoding: replacements that depend on the files alone, and bounded memory."""

import errno
import re
import threading
import time
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

    def decoder(self, prefetch: int = 2) -> Decoder:
        return Decoder(Path("f"), [str(i) for i in range(10)], self, 2, prefetch)


def _run(decoder: Decoder, steps: range, parts: list[range], of: int) -> torch.Tensor:
    read = []
    for step in steps:
        for rows in parts:
            pixels, index = decoder.pixels(4, step, rows, of)
            assert pixels.flatten().tolist() == index.tolist()
            read.append(index)
    return torch.cat(read).view(len(steps), -1)


DAMAGED = {3, 4, 9}
REPLACED = {3: 5, 4: 5, 9: 0}


def _expected(steps: range, of: int) -> torch.Tensor:
    asked = [images_at(10, 4, step, range(of), of).tolist() for step in steps]
    return torch.tensor([[REPLACED.get(i, i) for i in row] for row in asked])


@pytest.mark.parametrize("prefetch", [0, 2, 5])
def test_a_damaged_file_is_the_next_good_one_whoever_asks_and_when(prefetch: int) -> None:
    steps = range(9)
    expected = _expected(steps, 8)
    assert torch.equal(_run(Files(DAMAGED).decoder(prefetch), steps, [range(8)], 8), expected)
    resumed = _run(Files(DAMAGED).decoder(prefetch), range(5, 9), [range(8)], 8)
    assert torch.equal(resumed, expected[5:])
    micro = [range(3), range(3, 6), range(6, 8)]
    assert torch.equal(_run(Files(DAMAGED).decoder(prefetch), steps, micro, 8), expected)
    for rank in (range(4), range(4, 8)):
        got = _run(Files(DAMAGED).decoder(prefetch), steps, [rank], 8)
        assert torch.equal(got, expected[:, rank.start : rank.stop])


def test_it_is_told_apart_from_a_replacement_by_what_was_met_before() -> None:
    """The bug that the rule is there against: the last good image instead of the next."""

    class Last(Decoder):
        last = np.zeros((1, 1, 1), np.uint8), 0

        def _usable(self, index: int) -> tuple[Pixels, int]:
            image = self._try(index)
            if image is not None:
                self.last = image, index
            return self.last

    def last() -> Decoder:
        files = Files(DAMAGED)
        return Last(Path("f"), [str(i) for i in range(10)], files, 1, 0)

    whole = _run(last(), range(1, 9), [range(8)], 8)
    assert not torch.equal(_run(last(), range(5, 9), [range(8)], 8), whole[4:])


def test_damaged_files_are_listed_and_read_once() -> None:
    files = Files(DAMAGED)
    decoder = files.decoder()
    _run(decoder, range(9), [range(8)], 8)
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


def test_files_that_vanish_end_the_run_when_none_is_left() -> None:
    files = Files(set())
    decoder = files.decoder()
    files.damaged = set(range(10))
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


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_PAUSES", (0.0, 0.0))


@pytest.mark.usefixtures("no_pauses")
def test_a_read_that_fails_for_a_moment_is_tried_again() -> None:
    """The image must not be another one because of it."""
    decoder = Unsteady(OSError(errno.EIO, "Input/output error"), 2).decoder()
    assert set(decoder.pixels(4, 0, range(10), 10)[1].tolist()) == set(range(10))
    assert decoder.skipped == []


@pytest.mark.usefixtures("no_pauses")
def test_a_read_that_goes_on_failing_ends_the_run_and_names_the_file() -> None:
    with pytest.raises(OSError, match=r"Stale file handle, 3 times: 'f/7'") as raised:
        Unsteady(OSError(errno.ESTALE, "Stale file handle"), 99).decoder()
    assert raised.value.errno == errno.ESTALE


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EISDIR, errno.EINVAL])
def test_what_the_file_itself_is_to_blame_for_is_skipped_at_once(number: int) -> None:
    files = Unsteady(OSError(number, "no use"), 99)
    assert [one["file"] for one in files.decoder().skipped] == ["7"]
    assert files.times == 98


def test_no_memory_is_not_a_damaged_file() -> None:
    with pytest.raises(MemoryError):
        Unsteady(MemoryError(), 1).decoder()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0, 2), "threads must be an integer >= 1, got 0"),
        ((True, 2), "threads must be an integer >= 1, got True"),
        ((1, -1), "prefetch must be an integer >= 0, got -1"),
    ],
)
def test_numbers_are_checked(settings: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Decoder(Path("f"), ["0"], Files(set()), *settings)
