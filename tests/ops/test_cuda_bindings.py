"""The doors to the CUDA kernels: what they refuse, and what they say without a GPU or without CUDA.

Capsules here claim to be on a GPU while their memory is the CPU's: every call fails before it is
looked at.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

from free import ops
from free.ops import _C, draft, philox, recycle, teacher, verify
from tests.drafts import random_guesses, random_roll
from tests.rows import random_note, random_response
from tests.windows import random_window

CPU, CUDA = 1, 2

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]


class _Head(ctypes.Structure):
    """How a DLManagedTensor begins."""

    _fields_ = (("data", ctypes.c_void_p), ("type", ctypes.c_int32), ("index", ctypes.c_int32))


def on_gpu(tensor: Tensor, index: int = 0, kind: int = CUDA) -> Any:
    """A capsule that says so."""
    capsule = to_dlpack(tensor)
    head = _Head.from_address(_pointer_of(capsule, b"dltensor"))
    head.type, head.index = kind, index
    return capsule


WINDOW = random_window(2, 4, (3, 5))
RESULTS = {
    "state": torch.empty(2, 3, 5),
    "advance": torch.empty(2, dtype=torch.int32),
    "accepted": torch.empty(2, dtype=torch.int32),
    "log_ratio": torch.empty(2, 3),
}
SPENT = {name: torch.zeros(2).double() for name in ("spent", "bound", "log_likelihood")}
COLUMNS = {name: torch.arange(3) for name in ("seeds", "transition", "round")}
NOISE = {
    "seeds": torch.arange(2),
    "k": torch.arange(2),
    "rounds": torch.arange(2),
    "length": torch.ones(2, dtype=torch.int32),
    "noise": torch.empty(2, 3, 5),
    "uniforms": torch.empty(2, 3),
    "last": torch.empty(2, 5),
}
GIVEN = random_guesses(2, 3, (5,))
GUESSES = {k: v for k, v in GIVEN._asdict().items() if k != "drafts"}
GUESSES |= ops.first_guesses(*GIVEN)._asdict()
SPAN = random_roll(2, 3, (5,), "adds")
ROLL = {k: v for k, v in SPAN._asdict().items() if isinstance(v, Tensor)}
MEANS = {
    "x": torch.zeros(3, 4, 5),
    "eps": torch.zeros(6, 4, 5).half(),
    "a": torch.zeros(3),
    "b": torch.zeros(3),
    "signal": torch.ones(3),
    "noise": torch.zeros(3),
    "combined": torch.zeros(3, 4, 5),
    "means": torch.zeros(3, 4, 5),
    "guess": torch.zeros(3, 4, 5),
}
NOTE = random_note(2, 3, (3, 5))
NOTED = NOTE._asdict()
FIRST = {"first": NOTED.pop("first")}
RESPONSE = random_response(2, 4, (3, 5))
SUMS = RESPONSE._asdict() | {name: torch.zeros(2) for name in ("dot_after", "square_after")}
MEMORY = {"memory": SUMS.pop("memory")}
ROWS = {
    "length": torch.ones(2, dtype=torch.int32),
    "advance": torch.ones(2, dtype=torch.int32),
    "row": torch.zeros(2, 4, dtype=torch.int64),
    "known": torch.zeros(2, dtype=torch.int64),
}
GUIDED = {"cfg_scale": 1.5, "cfg_channels": 3}
RELAXED = {"rule": "allow", "strength": 0.3, "budget": 1.0, "uncertainty": None}
#: Of each door: its tensors, the one that says where the work is done, and the other arguments.
DOORS: dict[str, tuple[dict[str, Tensor], str, dict[str, Any]]] = {
    "verify_window": (WINDOW._asdict() | RESULTS, "states", {"verifier": "block"}),
    "verify_window_relaxed": (WINDOW._asdict() | RESULTS | SPENT, "states", RELAXED),
    "window_noise": (NOISE, "noise", {"purpose": 1, "decision": 2}),
    "first_guesses": (GUESSES, "x", {}),
    "roll_window": (ROLL, "states", {"adds": True, "first": 0, "end": 3}),
    "target_means": (MEANS, "x", GUIDED),
    "note_nonfinite": (NOTED, "failed", FIRST),
    "response_sums": (SUMS, "states", MEMORY),
    "philox_normal": (COLUMNS | {"out": torch.empty(3, 5)}, "out", {"purpose": 1}),
    "philox_uniform": (COLUMNS | {"out": torch.empty(3, 5)}, "out", {"purpose": 1}),
    "recycled_rows": (ROWS, "row", {"discarded": True, "stride": 0}),
}
EVERY = pytest.mark.parametrize("door", DOORS)
NO_CUDA = ops.build_info()["cuda"] is None
NEEDS_CUDA = pytest.mark.skipif(NO_CUDA, reason="this build has no CUDA")


#: What asks how much workspace a door needs.
ROOM = {
    "verify_window": "verify",
    "verify_window_relaxed": "verify",
    "response_sums": "response",
}


def workspace(door: str) -> Tensor:
    count = 1 if NO_CUDA else getattr(_C, f"cuda_{ROOM[door]}_workspace")(2, 4, 15)
    return torch.empty(count, dtype=torch.float64)


def call(door: str, **changes: Any) -> None:
    tensors, _, others = DOORS[door]
    if door in ROOM:
        tensors = tensors | {"workspace": workspace(door)}
    given = {name: on_gpu(tensor) for name, tensor in tensors.items()}
    getattr(_C, f"cuda_{door}")(**(given | others | changes), stream=0)


def tensors_of(*but: str) -> list[tuple[str, str]]:
    return [
        (door, name)
        for door, (tensors, first, _) in DOORS.items()
        for name in tensors
        if not ("first" in but and name == first)
    ]


# --- tensors -------------------------------------------------------------------------------------


@EVERY
def test_a_first_tensor_on_the_cpu(door: str) -> None:
    tensors, first, _ = DOORS[door]
    expected = f"^{first}: expected a tensor on a CUDA device, got one on the CPU$"
    with pytest.raises(ValueError, match=expected):
        call(door, **{first: to_dlpack(tensors[first])})
    with pytest.raises(ValueError, match=f"^{first}: .*, got one on DLPack device type 7$"):
        call(door, **{first: on_gpu(tensors[first], kind=7)})


@pytest.mark.parametrize(("door", "name"), tensors_of("first"))
def test_two_devices(door: str, name: str) -> None:
    tensor = DOORS[door][0][name]
    expected = f"^{name}: expected a tensor on CUDA device 0, got one on "
    with pytest.raises(ValueError, match=expected + "CUDA device 1$"):
        call(door, **{name: on_gpu(tensor, index=1)})
    with pytest.raises(ValueError, match=expected + "the CPU$"):
        call(door, **{name: to_dlpack(tensor)})


def test_cpu_kernels_refuse_what_is_on_a_gpu() -> None:
    tensors, _, others = DOORS["roll_window"]
    given = {name: to_dlpack(tensor) for name, tensor in tensors.items()} | others
    with pytest.raises(
        ValueError, match="^noise: expected a tensor on the CPU, got one on CUDA device 3$"
    ):
        _C.roll_window(**(given | {"noise": on_gpu(tensors["noise"], index=3)}))


@pytest.mark.parametrize(("door", "name"), tensors_of())
def test_no_capsule_wrong_dtype_and_wrong_shape(door: str, name: str) -> None:
    tensor = DOORS[door][0][name]
    with pytest.raises(TypeError, match=f"^{name}: expected an unused DLPack capsule, got int$"):
        call(door, **{name: 1})
    with pytest.raises(TypeError, match=f"^{name}: expected (float|int)[0-9].*, got complex64$"):
        call(door, **{name: on_gpu(tensor.to(torch.complex64))})
    shape = [7, 7] if name == "failed" else [7]  # of any length, that one
    expected = rf"^{name}: expected .*shape .*, got {re.escape(str(shape))}$"
    with pytest.raises(ValueError, match=expected):
        call(door, **{name: on_gpu(torch.zeros(shape, dtype=tensor.dtype))})


@NEEDS_CUDA
def test_a_window_wider_than_compiled_for() -> None:
    window = random_window(1, 257, (1,))
    results = {
        "state": torch.empty(1, 1),
        "advance": torch.empty(1, dtype=torch.int32),
        "accepted": torch.empty(1, dtype=torch.int32),
        "log_ratio": torch.empty(1, 256),
    }
    wide = {name: on_gpu(tensor) for name, tensor in (window._asdict() | results).items()}
    with pytest.raises(
        ValueError, match="^states: expected at most 256 rows a window on CUDA, got 257$"
    ):
        call("verify_window", **wide)


@NEEDS_CUDA
def test_a_workspace_too_small() -> None:
    with pytest.raises(ValueError, match=r"^workspace: expected shape \[18\], got \[17\]$"):
        call("verify_window", workspace=on_gpu(torch.empty(17, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"^workspace: expected shape \[12\], got \[17\]$"):
        call("response_sums", workspace=on_gpu(torch.empty(17, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("door", "changes", "message"),
    [
        ("verify_window", {"verifier": "blocks"}, "^verifier: expected one of 'reflection', 'bl"),
        ("verify_window_relaxed", {"rule": "no"}, "^rule: expected one of 'temper', 'allow', got"),
        ("verify_window_relaxed", {"strength": -1.0}, "^strength: expected a finite value >= 0"),
        ("verify_window_relaxed", {"budget": -1.0}, "^budget: expected a value >= 0, got -1"),
        (
            "roll_window",
            {"end": 4},
            "^first and end: expected 0 <= first <= end <= 3, got 0 and 4$",
        ),
        (
            "roll_window",
            {"settled": None},
            "^settled: expected with change, and only then, got one",
        ),
        ("target_means", {"cfg_channels": 5}, r"^cfg_channels: expected a value in 0\.\.4, got 5$"),
        (
            "target_means",
            {"cfg_scale": None},
            r"^eps: expected shape \[3, 4, 5\], got \[6, 4, 5\]$",
        ),
        *(
            (
                "target_means",
                {name: None},
                "^signal, noise and guess: expected all or none of them$",
            )
            for name in ("signal", "noise", "guess")
        ),
        (
            "note_nonfinite",
            {"samples": on_gpu(torch.zeros(4, dtype=torch.int64))},
            r"^samples: expected shape \[B\], B a divisor of 6 rows, got \[4\]$",
        ),
        (
            "response_sums",
            {"past_x": on_gpu(torch.zeros(7, 15))},
            r"^past_x: expected shape \[R, 3, 5\], got \[7, 15\]$",
        ),
        (
            "response_sums",
            {"row": on_gpu(torch.zeros(2, 3, dtype=torch.int64))},
            r"^row: expected shape \[2, at least 4\], got \[2, 3\]$",
        ),
    ],
)
def test_bad_values(door: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(door, **changes)


# --- what CUDA says ------------------------------------------------------------------------------


@NEEDS_CUDA
@pytest.mark.skipif(
    torch.cuda.is_available(), reason="would launch on memory that is not the GPU's"
)
@EVERY
def test_without_a_gpu_cudas_own_words(door: str) -> None:
    with pytest.raises(RuntimeError, match=r"^CUDA: .*(driver|device)"):
        call(door)


#: What each op does for CUDA tensors, and arguments of it.
IMPLEMENTATIONS: dict[str, tuple[ModuleType, Callable[..., Any], tuple[Any, ...]]] = {
    "verify_window": (verify, verify._verify_cuda, (*WINDOW, "block")),
    "verify_window_relaxed": (
        verify,
        verify._relaxed_cuda,
        (*WINDOW, torch.zeros(2, 3), SPENT["spent"], "allow", 0.3, 1.0),
    ),
    "window_noise": (draft, draft._noise_cuda, (*tuple(NOISE.values())[:4], 4, 5, 1, 2)),
    "the first round": (
        draft,
        draft._noise_cuda,
        (NOISE["seeds"], NOISE["k"], None, NOISE["length"], 1, 5, 1, 2),
    ),
    "first_guesses": (draft, draft._guesses_cuda, tuple(GIVEN)),
    "roll_window_": (draft, draft._roll_cuda, tuple(SPAN)),
    "no change": (draft, draft._roll_cuda, tuple(random_roll(2, 3, (5,)))),
    "target_means": (
        teacher,
        teacher._means_cuda,
        (*tuple(MEANS.values())[:4], 1.5, 3, MEANS["signal"], MEANS["noise"]),
    ),
    "target_means, no image": (
        teacher,
        teacher._means_cuda,
        (*tuple(MEANS.values())[:4], 1.5, 3, None, None),
    ),
    "note_nonfinite": (teacher, teacher._finite_cuda, tuple(NOTE)),
    "note_nonfinite, no low": (teacher, teacher._finite_cuda, tuple(NOTE._replace(low=None))),
    "response_sums": (recycle, recycle._sums_cuda, tuple(RESPONSE)),
    "philox_normal": (
        philox,
        partial(philox._philox_cuda, _C.cuda_philox_normal),
        (*COLUMNS.values(), 1, 5),
    ),
    "recycled_rows": (
        recycle,
        recycle._rows_cuda,
        (ROWS["length"], ROWS["advance"], 4, True, None),
    ),
}


@NEEDS_CUDA
@pytest.mark.skipif(
    torch.cuda.is_available(), reason="would launch on memory that is not the GPU's"
)
@pytest.mark.parametrize("op", IMPLEMENTATIONS)
def test_ops_give_the_doors_what_they_ask_for(monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    """All checks are passed before CUDA finds no device."""
    module, implementation, arguments = IMPLEMENTATIONS[op]
    monkeypatch.setattr(module, "to_dlpack", on_gpu)
    monkeypatch.setattr(module, "stream_of", lambda _: 0)
    with pytest.raises(RuntimeError, match="^CUDA: "):
        implementation(*arguments)


@pytest.mark.skipif(not NO_CUDA, reason="this build has CUDA")
@EVERY
def test_a_build_without_cuda_says_how_to_get_one(door: str) -> None:
    with pytest.raises(
        RuntimeError, match="^this build of free has no CUDA kernels: .*FREE_CUDA=ON"
    ):
        call(door)


# --- registration --------------------------------------------------------------------------------


#: Where a door is not called what its op is.
OP_OF = {"note_nonfinite": "note_nonfinite_", "roll_window": "roll_window_"}


@pytest.mark.parametrize("name", [OP_OF.get(door, door) for door in DOORS])
def test_cuda_tensors_have_a_kernel_of_their_own(name: str) -> None:
    """And the twin serves where there is neither a CPU nor a GPU."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    assert has(f"free::{name}", "CUDA")
    assert has(f"free::{name}", "CompositeExplicitAutograd")


def test_fake_tensors_of_a_gpu_pass_through() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    def fakes(*tensors: Tensor) -> list[Tensor]:
        return [torch.empty(t.shape, dtype=t.dtype, device="cuda") for t in tensors]

    with FakeTensorMode():
        verified = ops.verify_window(*fakes(*WINDOW), "block")
        drawn = ops.philox_normal(*fakes(*COLUMNS.values()), 1, 5)
        x, eps, a, b = fakes(*list(MEANS.values())[:4])
        means = ops.target_means(x, eps, a, b, **GUIDED)
        window = ops.window_noise(*fakes(*list(NOISE.values())[:4]), 4, 5, 1, 2)
        guesses = ops.first_guesses(*fakes(*GIVEN[:-1]), GIVEN.drafts)
    assert verified.state.shape == (2, 3, 5)
    assert drawn.shape == (3, 5)
    assert means.eps.shape == (3, 4, 5)
    assert window.noise.shape == (2, 3, 5)
    assert guesses.intercept.shape == (2, 3, 5)
    every = (*verified, drawn, *means, *window, *guesses)
    assert {t.device.type for t in every} == {"cuda"}
