"""Arguments of the ops on rows of a teacher call: random ones, with nonsense where nobody looks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from free import reference
from free.models.output import TeacherRows
from free.rounds.state import Recycled
from tests.arguments import arguments

NEVER = torch.iinfo(torch.int64).max


Note = arguments("note_nonfinite_")


def random_note(
    batch: int,
    entries: int,
    shape: tuple[int, ...],
    *,
    dtype: torch.dtype = torch.float32,
    low: bool = True,
    bad: float = 0.5,
    seed: int = 0,
) -> Note:
    """Half of the rows have something that is not finite, at a random place."""
    g = torch.Generator().manual_seed(seed)
    first, rows = 1, batch * entries
    values = torch.randn(rows, *shape, generator=g).to(dtype)
    flat = values.view(rows, -1)
    where = torch.randint(flat.shape[1], (rows,), generator=g)
    what = torch.tensor([math.nan, math.inf, -math.inf], dtype=dtype)
    spoiled = torch.rand(rows, generator=g) < bad
    spoil = what[torch.randint(3, (rows,), generator=g)]
    row = torch.arange(rows)
    flat[row, where] = torch.where(spoiled, spoil, flat[row, where])
    k = torch.randint(100, (rows,), generator=g)
    samples = torch.randperm(2 * batch, generator=g)[:batch]
    # Some samples have failed before, early or late.
    failed = torch.full((2 * batch,), torch.iinfo(torch.int64).max)
    failed[::3] = torch.randint(100, (len(failed[::3]),), generator=g)
    high = first + torch.randint(entries + 2, (batch,), generator=g)
    lowest = torch.randint(first + 2, (batch,), generator=g) if low else None
    return Note(failed, samples, values, k, first, lowest, high)


def noted(op: Any, note: Note) -> Tensor:
    """What is in ``failed`` afterwards; it stays as it is."""
    failed = note.failed.clone()
    op(**note._replace(failed=failed)._asdict())
    return failed


def earliest(op: Any, values: Tensor, k: Any, samples: Any, failed: Any) -> list[int]:
    """What is in ``failed`` after one row of each sample has been looked at."""
    failed, k, samples = (torch.as_tensor(column).clone() for column in (failed, k, samples))
    return noted(op, Note(failed, samples, values, k, 0, None, torch.ones_like(samples))).tolist()


class Response(arguments("response_sums")):
    def of(self, index: Tensor) -> Response:
        """Of some samples; the call before stays."""
        return self._replace(
            **{
                name: getattr(self, name)[index].contiguous()
                for name in self._fields
                if name not in ("past_x", "past_guess", "memory")
            }
        )

    def counts(self) -> list[int]:
        """How many transitions of each sample are summed up."""
        columns = (self.advance.tolist(), self.length.tolist(), self.known.tolist())
        return [
            min(advance, length - 1, known - 1)
            for advance, length, known in zip(*columns, strict=True)
        ]


def random_response(
    batch: int, width: int, shape: tuple[int, ...], *, memory: float = 0.7, seed: int = 0
) -> Response:
    """The last sample has all of its window counted; of others, what does not count is NaN."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(*size, generator=g)  # noqa: E731
    past = batch * width + 3
    length = torch.randint(1, width + 1, (batch,), generator=g).int()
    advance = (1 + torch.rand(batch, generator=g) * length).int().clamp(max=length)
    known = torch.randint(1, width + 2, (batch,), generator=g)
    length[-1] = advance[-1] = known[-1] = width
    response = Response(
        draw(batch, width, *shape),
        draw(batch, width, *shape),
        draw(past, *shape),
        draw(past, *shape),
        torch.stack([torch.randperm(past, generator=g)[: width + 2] for _ in range(batch)]),
        known,
        length,
        advance,
        draw(batch),
        draw(batch).abs(),
        memory,
    )
    read = torch.zeros(past, dtype=torch.bool)
    for b, count in enumerate(response.counts()):
        read[response.row[b, 1 : count + 1]] = True
        response.states[b, count:] = response.guess[b, count:] = math.nan
    response.past_x[~read] = response.past_guess[~read] = math.nan
    return response


def random_means(
    rows: int,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    guidance: tuple[float | None, int | None] = (None, None),
    clip: float | None = 0.8,
) -> dict[str, Any]:
    """Arguments of target_means; the guidance counts in full, by a share or not at all."""
    steps = 7
    columns = torch.rand(8, steps) - 0.3
    columns[7] = torch.tensor([1.0, 0.3, 1.0, 0.0, 1.0, 0.7, 1.0])
    k = torch.arange(rows) * 3 % steps
    eps = torch.randn(rows if guidance[0] is None else 2 * rows, *shape).to(dtype)
    given = {"x": torch.randn(rows, *shape), "eps": eps, "k": k, "columns": columns}
    return given | {"cfg_scale": guidance[0], "cfg_channels": guidance[1], "clip": clip}


def random_recycling(
    batch: int, width: int, discarded: bool = True, *, entries: int = 0
) -> dict[str, Any]:
    """Arguments of advance_samples_; of every third sample no row is wanted."""
    length = torch.randint(1, width + 1, (batch,), dtype=torch.int32)
    advance = (1 + torch.rand(batch) * length).int().clamp(max=length)
    k, rounds = torch.randint(0, 100, (2, batch)).unbind(0)
    return {
        "after": torch.randn(batch, 3, 2),
        "x": torch.randn(batch, 3, 2),
        "k": k.clone(),
        "rounds": rounds.clone(),
        "wanted": length.long() * (torch.arange(batch) % 3 < 2),
        "length": length,
        "advance": advance,
        "accepted": torch.randint(0, width, (batch,), dtype=torch.int32),
        "width": width,
        "discarded": discarded,
        "log": torch.full((entries, 3, batch), -1) if entries else None,
    }


def random_asking(
    batch: int,
    width: int,
    shape: tuple[int, ...],
    listed: bool = False,
    null: int | None = None,
    means: bool = False,
) -> dict[str, Any]:
    """Arguments of network_rows: the last entries of every window, or entries here and there, and
    these times a scale.
    """
    first = width // 2
    given = {
        "states": torch.randn(batch, width, *shape),
        "at": torch.randint(0, 9, (batch, width)),
        "y": torch.randint(0, 10, (batch,)),
        "timesteps": torch.randint(0, 1000, (9,)),
        "rows": batch * (width - first),
        "first": first,
        "end": width,
        "null_label": null,
    }
    if means:
        given |= {"means": torch.randn(batch, width - 1, *shape)}
        given |= {"mean_before": torch.randn(batch, *shape)}
    if listed:
        given |= {"scale": torch.rand(9) + 0.5}
        given |= {"rows": 5, "sample": torch.arange(5) % batch, "entry": torch.arange(5) % width}
    return given


def random_innovations(
    rows: int, shape: tuple[int, ...], scaled: bool = False, null: int | None = None
) -> dict[str, Any]:
    """Arguments of drafter_rows; the first row's transition is the first there is."""
    return {
        "x": torch.randn(rows, *shape),
        "mean": torch.randn(rows, *shape),
        "k": torch.arange(rows) * 2 % 9,
        "y": torch.randint(0, 10, (rows,)),
        "timesteps": torch.randint(0, 1000, (9,)),
        "sigma": torch.rand(9) + 0.1,
        "scale": torch.rand(9) + 0.5 if scaled else None,
        "null_label": null,
    }


def recalled(
    rows: TeacherRows, guess: Tensor, length: Tensor, advance: Tensor, width: int
) -> Recycled:
    """What is left of a teacher call to windows of ``width`` rows, by the twin."""
    counts = advance.long()
    left = reference.advance_samples_(
        *torch.zeros(2, len(counts), 1),
        counts,
        counts,
        wanted=counts,
        length=length,
        advance=advance,
        accepted=advance,
        width=width,
        discarded=True,
    )
    return Recycled(rows, guess, left.row, left.known)
