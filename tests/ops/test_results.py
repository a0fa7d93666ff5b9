"""Results of ops lie in memory of their own, for as long as somebody holds them."""

import gc
import resource

import torch

from free import ops


def normals(seed: int, size: int) -> torch.Tensor:
    zero = torch.zeros(1, dtype=torch.int64)
    return ops.philox_normal(zero + seed, zero, zero, 1, size)


def test_a_part_outlives_the_result_and_later_calls() -> None:
    for size in (1, 7, 784, 100_000):
        result = normals(0, size)
        part, before = result[0, -1:].detach(), result.clone()[0, -1:]
        del result
        gc.collect()
        others = [normals(seed, size) for seed in range(1, 40)]
        assert torch.equal(part, before)
        assert len({other.data_ptr() for other in others} | {part.data_ptr()}) == 40


def test_it_is_a_tensor_like_any_other() -> None:
    result = normals(0, 5)
    assert result.data_ptr() % 64 == 0
    assert result.is_contiguous()
    assert result._version == 0
    result += 1.0  # written to, saved for gradients, and moved as torch's own are
    assert result._version == 1
    weight = torch.ones(5, requires_grad=True)
    (weight * result).sum().backward()
    assert torch.equal(weight.grad, result[0])
    shared = result.clone().share_memory_()
    assert torch.equal(shared, result.share_memory_())
    assert result.is_shared()
    with torch.inference_mode():
        assert normals(0, 5).is_inference()


def test_memory_is_given_back() -> None:
    normals(0, 2**18)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(200):  # of a megabyte each
        normals(seed, 2**18)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
