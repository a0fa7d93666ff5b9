"""Labels at the ends of lines never cover each other."""

import itertools

import numpy as np
import pytest

from free.bench.style import COLOURS, Label, label_ends, panels, spread


def test_places_are_spread_no_further_than_it_takes() -> None:
    assert spread([5.0, 0.0, 20.0], 4.0) == [5.0, 0.0, 20.0]
    assert spread([1.0, 1.0], 4.0) == [-1.0, 3.0]  # the order of equal ones stays
    assert spread([0.0, 9.0, 3.0, 10.0], 4.0) == pytest.approx([-0.5, 7.5, 3.5, 11.5])
    places = np.random.default_rng(0).normal(0, 10, 9)
    moved = np.array(spread(list(places), 4.0))
    order = np.argsort(places)
    assert np.diff(moved[order]).min() >= 4.0 - 1e-9
    assert moved.mean() == pytest.approx(places.mean())


def test_labels_of_a_plot_do_not_overlap() -> None:
    figure, (axes,) = panels(1)
    axes.plot([1, 2], [1, 2])
    axes.set_yscale("log")
    label_ends(axes, [Label(2, 2 + 0.01 * i, f"label {i}", COLOURS["plain"]) for i in range(5)])
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 + 0.5 for low, high in itertools.pairwise(boxes))
