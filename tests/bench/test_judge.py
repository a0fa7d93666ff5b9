"""Rows of one law are judged together: by equally many images of each class, from all rows."""

from typing import Any

import numpy as np
import torch

from free.bench.judge import Judge
from free.evaluation import measure
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
        self.seen: list[int] = []

    def __call__(self, images: Any) -> Features:
        self.seen += [int(image.max()) for image in images]
        generator = torch.Generator().manual_seed(len(self.seen))
        pooled = torch.randn(len(images), 2, generator=generator)
        return Features(pooled, None, torch.eye(3)[[0] * len(images)])


def _judge(images: int, classes: int = 3, **more: Any) -> Judge:
    return Judge(images, classes, _Network(), PixelCoder(), **more)


def test_what_is_missing_is_drawn_by_the_rows_in_turn() -> None:
    rows: Any = [_Drawn(-1, [0, 1]), _Drawn(1, [0, 1])]
    assert _judge(6).missing(rows) == [2, 2]
    assert _judge(3).missing(rows) == [2]
    judge = _judge(60)
    assert len(list(judge.completing(rows))) == 7  # batches of 8
    assert judge.missing(rows) == []
    assert sorted(len(row.labels) for row in rows) == [26, 34]
    first: Any = _Drawn(-1, [])
    next(judge.completing([first]))
    assert set(first.labels) == {0, 1, 2}  # not all of one class: others may be drawn meanwhile


def test_equally_many_of_each_class_from_all_rows() -> None:
    judge, rows = _judge(6), [_Drawn(-1, [0, 1, 2] * 2), _Drawn(1, [0, 1, 2] * 4)]
    figures = judge.figures(rows)  # type: ignore[arg-type]
    assert sorted(judge.network.seen) == [0] * 3 + [255] * 3
    assert figures["accuracy"].value == 1 / 3  # two of each class, all named 0
    assert set(figures) == {"accuracy"}


def test_a_reference_gives_distances_and_other_classes_no_accuracy() -> None:
    reference = measure(np.zeros((9, 4, 4, 1), np.uint8), _Network(), "reference")
    rows: Any = [_Drawn(0, [0, 1, 2] * 3)]
    judge = _judge(9, reference=reference)
    assert {"frechet", "accuracy"} <= set(judge.figures(rows))
    assert judge.to_dict() == {"images": 9, "features": "zero", "reference": 9}
    rows = [_Drawn(0, [0, 1, 2, 3])]
    assert _judge(2, classes=4).figures(rows) == {}
