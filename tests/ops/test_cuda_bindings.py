"""The door to the CUDA kernels: what it passes on and what it refuses, with no GPU.

Capsules here claim to be on a GPU while their memory is the CPU's: every call fails before that is
looked at.
"""

import ctypes
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

from free import ops
from free.ops import _C, operator
from free.ops.contract import CONTRACTS
from tests.ops.examples import EXAMPLES, FULL, Example

CPU, CUDA, OTHER = 1, 2, 7
NO_CUDA = ops.build_info()["cuda"] is None

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]


class _Head(ctypes.Structure):
    """How a DLManagedTensor begins."""

    _fields_ = (("data", ctypes.c_void_p), ("type", ctypes.c_int32), ("index", ctypes.c_int32))


def elsewhere(tensor: Tensor, kind: int = CUDA, index: int = 0) -> Any:
    """A capsule that says so."""
    capsule = to_dlpack(tensor)
    head = _Head.from_address(_pointer_of(capsule, b"dltensor"))
    head.type, head.index = kind, index
    return capsule


def connect(capsule_of: Any) -> None:
    operator.connect(exchange=False, to_dlpack=capsule_of, stream_of=lambda tensor: 0)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    operator.connect()


def run(example: Example) -> Any:
    return _C.run(CONTRACTS[example.name].number, (), example.given, True)


@pytest.mark.skipif(NO_CUDA, reason="this build has no CUDA")
@pytest.mark.skipif(torch.cuda.is_available(), reason="would launch on memory that is not there")
@pytest.mark.parametrize("example", EXAMPLES.values(), ids=list(EXAMPLES))
def test_all_is_passed_on_before_cuda_finds_no_device(example: Example) -> None:
    connect(elsewhere)
    with pytest.raises(RuntimeError, match=r"^CUDA: .*(driver|device)"):
        run(example)


@pytest.mark.skipif(not NO_CUDA, reason="this build has CUDA")
@pytest.mark.parametrize("name", CONTRACTS)
def test_a_build_without_cuda_leaves_it_to_others(name: str) -> None:
    connect(elsewhere)
    assert run(FULL[name]) is NotImplemented
    assert "this build of free has no CUDA kernels: " in str(_C.cuda_refusal(0))
    assert "FREE_CUDA=ON pip install" in str(_C.cuda_refusal(0))


@pytest.mark.parametrize("name", CONTRACTS)
def test_two_devices_and_unknown_ones_are_refused(name: str) -> None:
    """Whichever tensor it is that lies elsewhere: on another GPU, or on the CPU."""
    example = FULL[name]
    tensors = [key for key, value in example.given.items() if isinstance(value, Tensor)]
    connect(partial(elsewhere, kind=OTHER))
    assert run(example) is NotImplemented

    def only(chosen: Tensor, kind: int, index: int, tensor: Tensor) -> Any:
        return elsewhere(tensor, kind, index) if tensor is chosen else elsewhere(tensor)

    for key in tensors:
        for kind, index in ((CPU, 0), (CUDA, 1)):
            connect(partial(only, example.given[key], kind, index))
            assert run(example) is NotImplemented
    # What else fails is not hidden: no tensor is left to be read.
    connect(lambda tensor: None)
    assert run(example) is NotImplemented


@pytest.mark.parametrize("name", CONTRACTS)
def test_cuda_tensors_have_a_kernel_of_their_own(name: str) -> None:
    """And the twin serves where there is neither a CPU nor a GPU."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    assert has(f"free::{name}", "CUDA")
    assert has(f"free::{name}", "CompositeExplicitAutograd")
