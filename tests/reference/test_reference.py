"""The twins against the formulas, written out sample by sample."""

import math

import numpy as np
import pytest
import torch

from free import reference
from tests.windows import Window, random_window

#: Random123, kat_vectors, philox4x32 with 10 rounds: counter, key, result.
KNOWN = """
00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8
ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd
243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1
"""


@pytest.mark.parametrize("line", KNOWN.split("\n")[1:-1])
def test_philox_known_answers(line: str) -> None:
    counter, key, expected = torch.tensor([int(w, 16) for w in line.split()]).split((4, 2, 4))
    assert torch.equal(reference.philox4x32(counter, key), expected)


def test_normals_are_box_muller() -> None:
    seeds, zero = torch.tensor([11]), torch.tensor([0])
    counter, key = torch.tensor([1, 0, 0, 2]), torch.tensor([11, 0])
    words = reference.philox4x32(counter, key).tolist()
    radius = math.sqrt(-2 * math.log(((words[2] >> 1) + 0.5) / 2**31))
    angle = 2 * math.pi * words[3] / 2**32
    normals = reference.philox_normal(seeds, zero, zero, 2, 8)[0, 6:]  # second block, second pair
    expected = [radius * math.cos(angle), radius * math.sin(angle)]
    assert normals.tolist() == pytest.approx(expected, rel=1e-6)


def by_the_book(window: Window, b: int) -> tuple[np.ndarray, int, int, list[float]]:
    """Algorithm of supplement B for one sample, in float64, with a loop."""
    x, m_hat, m, sigma, length, uniforms, noise = (t[b].double().numpy() for t in window)
    ratios = []
    for j in range(int(length) - 1):
        z = (x[j + 1] - m_hat[j]) / sigma[j]
        delta = (m_hat[j] - m[j]) / sigma[j]
        log_q_over_p = (
            -np.sum((x[j + 1] - m[j]) ** 2 - (x[j + 1] - m_hat[j]) ** 2) / 2 / sigma[j] ** 2
        )
        ratios.append(log_q_over_p)
        if math.log1p(-uniforms[j]) <= log_q_over_p:
            continue
        e = delta / np.sqrt(np.sum(delta**2))
        return m[j] + sigma[j] * (z - 2 * np.sum(z * e) * e), j + 1, j, ratios
    last = int(length) - 1
    return m[last] + sigma[last] * noise, last + 1, last, ratios


@pytest.mark.parametrize("delta", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("shape", [(1,), (3, 4), (1, 28, 28)])
def test_verify_window_is_the_papers_algorithm(shape: tuple[int, ...], delta: float) -> None:
    window = random_window(50, 6, shape, delta=delta, ragged=True)
    state, advance, accepted, log_ratio = reference.verify_window(*window)
    for b in range(50):
        expected_state, expected_advance, expected_accepted, ratios = by_the_book(window, b)
        assert (advance[b].item(), accepted[b].item()) == (expected_advance, expected_accepted)
        np.testing.assert_allclose(state[b].numpy(), expected_state, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            log_ratio[b, : len(ratios)].numpy(), ratios, rtol=1e-4, atol=1e-4
        )
        assert bool(log_ratio[b, len(ratios) :].isnan().all())
