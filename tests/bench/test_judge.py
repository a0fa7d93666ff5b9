"""Rows of one law are judged together: by equally many images of each class, from all rows."""

from typing import Any

import numpy as np
import torch

from free.bench.judge import Judge, complete, judge, missing
from free.evaluation.features import Features
from free.images.autoencoder import PixelCoder


class _Drawn:
    """Stands for Draws: images that are all of one value, the row's."""

    def __init__(self, value: float, labels: list[int]) -> None:
        self.value = value
        self.labels: list[int] = []
        self.samples: list[torch.Tensor] = []
        self.more(labels)

    def more(self, labels: list[int]) -> None:
        self.labels += labels
        self.samples += [torch.full((1, 4, 4), self.value)] * len(labels)


class _Network:
    """Names every image 0, and keeps what it saw."""

    name, dims, is_inception, classes = "zero", 2, False, 3

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, images: Any) -> Features:
        self.seen += [int(image.max()) for image in images]
        probabilities = torch.eye(3)[torch.zeros(len(images), dtype=torch.int64)]
        generator = torch.Generator().manual_seed(len(self.seen))
        return Features(torch.randn(len(images), 2, generator=generator), None, probabilities)


def test_what_is_missing_is_drawn_by_the_rows_in_turn() -> None:
    rows: Any = [_Drawn(-1, [0, 1]), _Drawn(1, [0, 1])]
    assert missing(rows, 6, 3) == [2, 2]
    assert missing(rows, 3, 3) == [2]
    drawn: list[int] = []
    complete(rows, 60, 3, drawn.append)
    assert missing(rows, 60, 3) == []
    assert sum(drawn) == 56
    assert sorted(len(row.labels) for row in rows) == [26, 34]


def test_equally_many_of_each_class_from_all_rows() -> None:
    network = _Network()
    rows: Any = [_Drawn(-1, [0, 1, 2] * 2), _Drawn(1, [0, 1, 2] * 4)]
    found = judge(rows, Judge(6, network, None, PixelCoder()), 3)
    assert sorted(network.seen) == [0] * 3 + [255] * 3
    assert found["accuracy"].value == 1 / 3  # two of each class, all named 0
    assert set(found) == {"accuracy"}


def test_a_reference_gives_distances_and_other_classes_no_accuracy() -> None:
    from free.evaluation import measure

    network = _Network()
    images = np.zeros((9, 4, 4, 1), np.uint8)
    reference = measure(images, network, "reference")
    rows: Any = [_Drawn(0, [0, 1, 2] * 3)]
    found = judge(rows, Judge(9, network, reference, PixelCoder()), 3)
    assert {"frechet", "accuracy"} <= set(found)
    rows = [_Drawn(0, [0, 1, 2, 3])]
    assert judge(rows, Judge(2, network, None, PixelCoder()), 4) == {}
