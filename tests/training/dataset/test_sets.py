"""The order and the randomness of training, whoever asks for which rows; sets in memory."""

import itertools

import pytest
import torch

from free.training.dataset.order import images_at, random_subset, shuffled
from free.training.dataset.sets import ImageSet
from free.training.randomness import RowRandom


def _sequence(count: int, seed: int, of: int, steps: int) -> torch.Tensor:
    return torch.cat([images_at(count, seed, step, range(of), of) for step in range(steps)])


@pytest.mark.parametrize(("count", "of"), [(10, 4), (3, 8), (100, 9)])
def test_every_epoch_shows_every_image_once(count: int, of: int) -> None:
    steps = -(-5 * count // of)
    epochs = _sequence(count, 3, of, steps)[: 5 * count].view(5, count)
    for epoch in epochs:
        assert epoch.sort().values.tolist() == list(range(count))
    if count >= 10:
        assert len({tuple(epoch.tolist()) for epoch in epochs}) == 5  # each in its own order


def test_ranks_and_micro_batches_change_nothing() -> None:
    whole = images_at(10, 5, 3, range(12), 12)
    for cut in (1, 5, 11):
        parts = [images_at(10, 5, 3, rows, 12) for rows in (range(cut), range(cut, 12))]
        assert torch.equal(torch.cat(parts), whole)
    strided = [images_at(10, 5, 3, range(rank, 12, 2), 12) for rank in (0, 1)]
    assert torch.equal(torch.stack(strided, 1).flatten(), whole)
    # The batch size is no more than a cut.
    assert torch.equal(_sequence(10, 1, 3, 8), _sequence(10, 1, 4, 6))
    assert not torch.equal(_sequence(10, 1, 4, 6), _sequence(10, 2, 4, 6))


def test_orders_are_uniform() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(1200):
        key = tuple(shuffled(4, 9, epoch).tolist())
        counts[key] = counts.get(key, 0) + 1
    assert set(counts) == set(itertools.permutations(range(4)))
    chi_square = sum((n - 50) ** 2 / 50 for n in counts.values())
    assert chi_square < 49.7  # 0.999 of 23 degrees of freedom


def test_rows_outside_the_batch_are_refused() -> None:
    for rows in (range(2, 5), range(-1, 2), range(0)):
        with pytest.raises(ValueError, match=r"rows must be some of 0..3, .* got range"):
            images_at(10, 0, 0, rows, 4)


def test_a_subset_is_seeded() -> None:
    subset = random_subset(1000, 0.3, 7)
    assert len(subset) == 300
    assert (subset.diff() > 0).all()
    assert torch.equal(random_subset(1000, 0.3, 7), subset)
    assert not torch.equal(random_subset(1000, 0.3, 8), subset)
    assert random_subset(5, 1.0, 7).tolist() == [0, 1, 2, 3, 4]
    assert len(random_subset(5, 0.01, 7)) == 1
    for share in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"subset must be in \(0, 1\], got"):
            random_subset(10, share, 0)


def test_sets_in_memory() -> None:
    data = ImageSet(torch.arange(9.0).view(9, 1, 1, 1), torch.arange(9), 9)
    assert (len(data), data.sample_shape, data.skipped) == (9, (1, 1, 1), [])
    images, labels = data.batch(0, 4, range(50), 50)
    assert (images.flatten() == labels).all()
    assert labels[7:16].sort().values.tolist() == list(range(9))  # place 207 begins an epoch
    parts = [data.batch(0, 4, rows, 50) for rows in (range(17), range(17, 50))]
    assert torch.equal(torch.cat([part[0] for part in parts]), images)


def _draws(seed: int, step: int, rows: range) -> list[torch.Tensor]:
    random = RowRandom(seed, step, rows)
    return [random.normal((3,)), random.uniform(), random.integers(1000), random.normal((3,))]


def test_rows_steps_seeds_and_draws_are_independent() -> None:
    rows = range(4000)
    normal, _, integers, another = _draws(5, 7, rows)
    others = (_draws(6, 7, rows)[0], _draws(5, 8, rows)[0], another, normal.roll(1, 0))
    for other in others:
        assert abs((normal * other).mean()) < 5 / 12000**0.5
    assert (integers.min() >= 0, integers.max()) == (True, 999)
    assert integers.float().mean() == pytest.approx(499.5, abs=5 * 289 / 4000**0.5)
