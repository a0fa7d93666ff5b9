"""The CUDA kernels' text, executed on the CPU, against the torch twins and the CPU's kernels:
verifying and rows of noise. test_cuda_windows and test_cuda_rows have the others.
"""

import math

import pytest
import torch

from free import ops, reference
from tests.drafts import random_counters
from tests.shim import NEEDS_COMPILER, Kernels, same
from tests.windows import random_relaxation, random_window, spoil_beyond_length

pytestmark = NEEDS_COMPILER

EVERY = pytest.mark.parametrize("verifier", ops.VERIFIERS)
#: Processors: with few of them a block verifies its sample alone, with many all blocks share it.
ALONE, SHARED = 1, 10_000


# --- verify_window -------------------------------------------------------------------------------


#: Single elements, odd and ragged ends, a chunk and its neighbours, whole and split quads.
@pytest.mark.parametrize(
    ("batch", "width", "size"),
    [(1, 1, 1), (1, 1, 1500), (2, 2, 7), (1, 9, 16), (5, 4, 513), (2, 6, 1500), (2, 6, 512)],
)
@EVERY
def test_verifying_agrees_with_twin_and_cpu(kernels, verifier, batch, width, size) -> None:
    window = random_window(batch, width, (size,), delta=0.6, ragged=True, seed=width + size)
    window = spoil_beyond_length(window, math.nan)
    verified = kernels.verify_window(*window, verifier)
    same(verified, reference.verify_window(*window, verifier), 1e-5)
    same(verified, ops.verify_window(*window, verifier), 2e-6)


@EVERY
def test_drafts_stand_and_are_repaired(kernels: Kernels, verifier: str) -> None:
    """What the agreement above is about: every course that a window can take."""
    window = random_window(60, 4, (9,), delta=0.8, ragged=True)
    verified = kernels.verify_window(*window, verifier)
    expected = ops.verify_window(*window, verifier)
    same(verified, expected, 2e-6)
    repaired = expected.accepted < window.length - 1
    assert 5 < int(repaired.sum()) < 55
    for accepted in range(4):
        assert bool((expected.accepted == accepted).any())


@EVERY
def test_a_deterministic_end(kernels: Kernels, verifier: str) -> None:
    window = random_window(12, 3, (11,), delta=0.0)
    window.sigma[:, 2] = 0  # sampled from the target
    window.sigma[:6, 1] = 0  # drafted
    window.draft_means[:3, 1] += 1.0
    window.states[:, 2] = window.draft_means[:, 1] + window.sigma[:, 1, None]
    verified = kernels.verify_window(*window, verifier)
    same(verified, ops.verify_window(*window, verifier), 2e-6)
    state, _, accepted, _ = verified
    assert accepted.tolist() == [1] * 3 + [2] * 9
    assert torch.equal(state, window.target_means[torch.arange(12), accepted.long()])


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e15, 1e25])
@EVERY
def test_extreme_magnitudes_decide_as_on_the_cpu(kernels, verifier, scale) -> None:
    """Squares of these are no floats."""
    window = random_window(20, 4, (33,), delta=0.8)
    rows = ("states", "draft_means", "target_means", "sigma")
    window = window._replace(**{name: getattr(window, name) * scale for name in rows})
    state, _, accepted, _ = kernels.verify_window(*window, verifier)
    expected = ops.verify_window(*window, verifier)
    assert torch.equal(accepted, expected.accepted)
    assert len(accepted.unique()) > 1
    same((state / scale,), (expected.state / scale,), 1e-5)


@pytest.mark.parametrize("where", ["states", "draft_means", "target_means"])
@EVERY
def test_what_is_not_finite_is_rejected(kernels: Kernels, verifier: str, where: str) -> None:
    window = random_window(8, 4, (21,), delta=0.3)
    getattr(window, where)[::2, 1, 20] = math.nan
    verified = kernels.verify_window(*window, verifier)
    same(verified, ops.verify_window(*window, verifier), 2e-6)


@pytest.mark.parametrize("length", [-(2**31), -1, 0, 5, 2**31 - 1])
def test_a_length_out_of_range_reaches_no_other_memory(kernels: Kernels, length: int) -> None:
    window = random_window(3, 4, (10,), delta=0.5)
    nearest = torch.tensor([2, max(1, min(4, length)), 3], dtype=torch.int32)
    window.length.copy_(torch.tensor([2, length, 3]))
    expected = ops.verify_window(*window._replace(length=nearest))
    same(kernels.verify_window(*window), expected, 2e-6)


def test_the_widest_window(kernels: Kernels) -> None:
    window = random_window(1, ops.WIDEST_ON_CUDA, (5,), delta=0.02, seed=3)
    window.uniforms[:] *= 0.5
    verified = kernels.verify_window(*window, "block")
    same(verified, ops.verify_window(*window, "block"), 2e-6)
    assert int(verified[2]) > 20
    wider = random_window(1, ops.WIDEST_ON_CUDA + 1, (1,))
    with pytest.raises(RuntimeError, match="^states: expected at most 256 rows a window on CUDA"):
        kernels.verify_window(*wider)


# --- what the result does not depend on ----------------------------------------------------------


@pytest.mark.parametrize("size", [4500, 4501])  # split in chunks and in parts; whole quads and not
@EVERY
def test_launches_runs_order_and_alignment_change_no_bit(kernels, verifier, size) -> None:
    window = random_window(2, 9, (size,), delta=0.4, ragged=True, seed=2)
    window.length[0] = 9
    window = spoil_beyond_length(window, math.nan)
    with kernels.on(ALONE):
        alone = kernels.verify_window(*window, verifier)
        same(kernels.verify_window(*window, verifier), alone)
    same(alone, ops.verify_window(*window, verifier), 2e-6)
    for setting in (
        {"processors": SHARED},
        {"processors": ALONE, "descending": True},
        {"processors": SHARED, "descending": True},
        {"processors": SHARED, "shift": 1},
    ):
        with kernels.on(**setting):
            same(kernels.verify_window(*window, verifier), alone)


@EVERY
def test_result_does_not_depend_on_the_batch(kernels: Kernels, verifier: str) -> None:
    window = random_window(5, 4, (700,), delta=0.5, ragged=True)
    together = kernels.verify_window(*window, verifier)
    for b in range(5):
        one = torch.tensor([b])
        alone = kernels.verify_window(*window.rows(one), verifier)
        same(alone, tuple(t[one] for t in together))


# --- verify_window_relaxed -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "unsure", "processors"),
    [("temper", False, ALONE), ("temper", True, SHARED), ("allow", True, ALONE)],
)
def test_relaxed_verifying_agrees_with_twin_and_cpu(kernels, rule, unsure, processors) -> None:
    for size, batch, width in ((13, 20, 5), (4500, 1, 9)):
        unknown = torch.rand(batch, width - 1) if unsure else None
        given = random_relaxation(batch, width, (size,), rule=rule, uncertainty=unknown)
        with kernels.on(processors):
            verified = kernels.verify_window_relaxed(**given)
        expected = ops.verify_window_relaxed(**given)
        same(verified, reference.verify_window_relaxed(**given), 1e-5)
        same(verified, expected, 2e-6)
        assert batch == 1 or bool((expected.bound > given["spent"]).any())


# --- philox --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "size"), [(1, 1), (2, 3), (1, 4), (130, 5), (2, 63), (130, 64), (3, 785)]
)
def test_noise_agrees_with_twin_and_cpu(kernels: Kernels, rows: int, size: int) -> None:
    given = random_counters(rows, size, 2**32 - 1)
    same((kernels.philox_uniform(**given),), (ops.philox_uniform(**given),))
    normals = kernels.philox_normal(**given)
    same((normals,), (ops.philox_normal(**given),), 1e-6)
    same((normals,), (reference.philox_normal(**given),), 3e-6)
