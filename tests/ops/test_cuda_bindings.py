"""The door to the CUDA kernels: what it passes on and what it refuses, with no GPU.

Tensors here claim to be on a GPU while their memory is the CPU's: every call fails before that is
looked at.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from free import ops
from free.ops import _C, operator
from free.ops.contract import CONTRACTS
from tests.ops.examples import EXAMPLES, FULL, Example

NO_CUDA = ops.build_info()["cuda"] is None


class Elsewhere(Tensor):
    """A tensor that says so when it is asked for its attributes; so do those that it makes."""

    device_: torch.device = torch.device("cuda:0")
    device = property(lambda self: self.device_)  # type: ignore[assignment]
    is_cpu = property(lambda self: self.device_.type == "cpu")
    is_cuda = property(lambda self: self.device_.type == "cuda")

    def get_device(self) -> int:
        """Number of the device; -1 on the CPU."""
        return -1 if self.device_.index is None else self.device_.index


def elsewhere(given: dict[str, Any], **devices: str) -> dict[str, Any]:
    """Arguments on the first GPU, those that are named on other devices."""
    moved = dict(given)
    for key, value in given.items():
        if isinstance(value, Tensor):
            moved[key] = value.as_subclass(Elsewhere)
            moved[key].device_ = torch.device(devices.get(key, "cuda:0"))
    return moved


@pytest.fixture(autouse=True)
def _by_attributes() -> Iterator[None]:
    operator.connect(exchange=False, stream_of=lambda tensor: 0)
    yield
    operator.connect()


def run(name: str, given: dict[str, Any]) -> Any:
    parameters = inspect.signature(getattr(ops, name)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return _C.run(CONTRACTS[name].number, (), given, defaults, None)


@pytest.mark.skipif(NO_CUDA, reason="this build has no CUDA")
@pytest.mark.skipif(torch.cuda.is_available(), reason="would launch on memory that is not there")
@pytest.mark.parametrize("example", EXAMPLES.values(), ids=list(EXAMPLES))
def test_all_is_passed_on_before_cuda_finds_no_device(example: Example) -> None:
    with pytest.raises(RuntimeError, match=r"^CUDA: .*(driver|device)"):
        run(example.name, elsewhere(example.given))


@pytest.mark.skipif(not NO_CUDA, reason="this build has CUDA")
@pytest.mark.parametrize("name", CONTRACTS)
def test_a_build_without_cuda_leaves_it_to_others(name: str) -> None:
    assert run(name, elsewhere(FULL[name].given)) is NotImplemented
    assert "this build of free has no CUDA kernels: " in str(_C.cuda_refusal(0))
    assert "FREE_CUDA=ON pip install" in str(_C.cuda_refusal(0))


@pytest.mark.parametrize("name", CONTRACTS)
def test_two_devices_and_unknown_ones_are_refused(name: str) -> None:
    """Whichever tensor it is that lies elsewhere: on another GPU, or on the CPU."""
    given = FULL[name].given
    first, *others = [key for key, value in given.items() if isinstance(value, Tensor)]
    everywhere = dict.fromkeys([first, *others], "xpu:0")
    assert run(name, elsewhere(given, **everywhere)) is NotImplemented
    for key in others:
        for device in ("cpu", "cuda:1", "xpu:0"):
            with pytest.raises(ValueError, match=f"^{key}: .* on cuda:0, got one on {device}$"):
                run(name, elsewhere(given, **{key: device}))
    for device in ("cpu", "cuda:1", "xpu:0"):
        with pytest.raises(ValueError, match=f": .* on {device}, got one on cuda:0$"):
            run(name, elsewhere(given, **{first: device}))


@pytest.mark.parametrize("name", CONTRACTS)
def test_cuda_tensors_have_a_kernel_of_their_own(name: str) -> None:
    """And the twin serves where there is neither a CPU nor a GPU."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    assert has(f"free::{name}", "CUDA")
    assert has(f"free::{name}", "CompositeExplicitAutograd")
