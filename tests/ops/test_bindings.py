"""The extension called directly: whatever it is given, it raises and never crashes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils.dlpack import to_dlpack

from free import ops
from free.ops import _C
from tests.windows import random_window

WINDOW = random_window(2, 4, (3, 5))
RESULTS = {
    "state": torch.empty(2, 3, 5),
    "advance": torch.empty(2, dtype=torch.int32),
    "accepted": torch.empty(2, dtype=torch.int32),
    "log_ratio": torch.empty(2, 3),
}
TENSORS = WINDOW._asdict() | RESULTS


def verify(verifier: Any = "reflection", **changes: Any) -> None:
    given = TENSORS | changes
    capsules = {k: to_dlpack(v) if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    _C.verify_window(verifier, **capsules)


def test_good_call_writes_its_results() -> None:
    RESULTS["advance"].fill_(-1)
    verify()
    assert bool((RESULTS["advance"] >= 1).all())


@pytest.mark.parametrize("value", [None, 1, "states", object(), [1.0], 0.5])
@pytest.mark.parametrize("name", TENSORS)
def test_no_capsule(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected an unused DLPack capsule, got"):
        verify(**{name: value})


def test_used_capsule() -> None:
    capsule = to_dlpack(WINDOW.states)
    torch.from_dlpack(capsule)
    with pytest.raises(
        TypeError, match="^states: expected an unused DLPack capsule, got PyCapsule"
    ):
        verify(states=capsule)


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.uint8, torch.complex64])
def test_wrong_dtype(name: str, dtype: torch.dtype) -> None:
    expected = "int32" if TENSORS[name].dtype == torch.int32 else "float32"
    with pytest.raises(TypeError, match=f"^{name}: expected {expected}, got [a-z]+[0-9]+$"):
        verify(**{name: TENSORS[name].to(dtype)})


@pytest.mark.parametrize("name", [name for name in TENSORS if name != "states"])
def test_wrong_shape(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected shape \[.*\], got \[7\]$"):
        verify(**{name: torch.zeros(7, dtype=TENSORS[name].dtype)})


@pytest.mark.parametrize("shape", [(), (2,), (2, 4), (0, 4, 3), (2, 0, 3), (2, 4, 0)])
def test_states_without_elements_or_axes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^states: expected a?.*shape \[B, W, \.\.\.\], got"):
        verify(states=torch.zeros(shape))


@pytest.mark.parametrize("name", TENSORS)
def test_not_contiguous(name: str) -> None:
    tensor = TENSORS[name]
    spread = torch.stack((tensor, tensor), -1)[..., 0]
    with pytest.raises(ValueError, match=f"^{name}: expected a contiguous tensor, got strides"):
        verify(**{name: spread})


def test_values_out_of_range() -> None:
    with pytest.raises(
        ValueError, match=r"^length: expected values in 1\.\.4, got 9 for sample 0$"
    ):
        verify(length=torch.tensor([9, 1], dtype=torch.int32))
    with pytest.raises(ValueError, match="^sigma: expected finite values >= 0, got -"):
        verify(sigma=-WINDOW.sigma)
    with pytest.raises(ValueError, match=r"^uniforms: expected values in \[0, 1\), got"):
        verify(uniforms=WINDOW.uniforms + 1)


@pytest.mark.parametrize("verifier", ["blocks", "", "Reflection"])
def test_unknown_verifier(verifier: str) -> None:
    expected = ", ".join(map(repr, ops.VERIFIERS))
    with pytest.raises(
        ValueError, match=f"^verifier: expected one of {expected}, got '{verifier}'$"
    ):
        verify(verifier)


@pytest.mark.parametrize("verifier", [None, 3])
def test_verifier_of_another_type(verifier: Any) -> None:
    with pytest.raises(TypeError, match="incompatible function arguments"):
        verify(verifier)


def draw(**changes: Any) -> None:
    row = torch.arange(3)
    given = {"seeds": row, "transition": row, "round": row, "purpose": 0, "out": torch.empty(3, 4)}
    given |= changes
    for fill in (_C.philox_normal, _C.philox_uniform):
        fill(**{k: to_dlpack(v) if isinstance(v, torch.Tensor) else v for k, v in given.items()})


def test_draws() -> None:
    draw()
    draw(out=torch.empty(3, 0))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"out": torch.empty(3)}, ValueError, r"^out: expected shape \[R, D\], got \[3\]$"),
        ({"out": torch.empty(3, 4).double()}, TypeError, "^out: expected float32, got float64$"),
        ({"out": torch.empty(4, 3).T}, ValueError, "^out: expected a contiguous tensor"),
        ({"seeds": torch.arange(4)}, ValueError, r"^seeds: expected shape \[3\], got \[4\]$"),
        ({"seeds": torch.zeros(3)}, TypeError, "^seeds: expected int64, got float32$"),
        (
            {"round": torch.arange(3) - 1},
            ValueError,
            r"^round: expected values in 0\.\..* got -1 for row 0$",
        ),
        ({"transition": None}, TypeError, "^transition: expected an unused DLPack capsule"),
        ({"purpose": -1}, TypeError, "incompatible function arguments"),
        ({"purpose": 2**32}, TypeError, "incompatible function arguments"),
        ({"purpose": "draft"}, TypeError, "incompatible function arguments"),
    ],
)
def test_bad_draws(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        draw(**changes)


def test_one_openmp_runtime() -> None:
    """Two would each start threads, and wait for each other's."""
    script = (
        "import free.ops; maps = open('/proc/self/maps').read().split();"
        "print(len({p for p in maps if 'libgomp' in p or 'libomp' in p or 'libiomp' in p}))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(out.stdout) <= 1
