"""roll_window against its twin, the closed form, and with bad input."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

from free import _C, reference
from free.ops import Rolled, roll_window


class Roll(NamedTuple):
    """The arguments of roll_window, in its order."""

    x: Tensor
    guess: Tensor
    noise: Tensor
    a: Tensor
    b: Tensor
    sigma: Tensor

    def rows(self, index: Tensor) -> Roll:
        return Roll(*(t[index].contiguous() for t in self))


def random_roll(batch: int, steps: int, shape: tuple[int, ...]) -> Roll:
    return Roll(
        torch.randn(batch, *shape),
        torch.randn(batch, steps, *shape),
        torch.randn(batch, steps, *shape),
        1 + 0.1 * torch.rand(batch, steps),
        -0.2 * torch.rand(batch, steps),
        torch.rand(batch, steps),
    )


def assert_equal(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for name, value, other in zip(Rolled._fields, actual, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=0, equal_nan=True, msg=name)


BOTH = pytest.mark.parametrize("roll", [roll_window, reference.roll_window])

# --- what is computed --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(1,), (7,), (16,), (1023,), (1025,), (3, 5, 7), (2, 1, 3, 2, 5), (4, 32, 32)]
)
@pytest.mark.parametrize("steps", [0, 1, 7, 31])
@pytest.mark.parametrize("batch", [1, 5])
def test_agrees_with_twin(batch: int, steps: int, shape: tuple[int, ...]) -> None:
    window = random_roll(batch, steps, shape)
    rolled = roll_window(*window)
    assert rolled.states.shape == (batch, steps + 1, *shape)
    assert rolled.means.shape == (batch, steps, *shape)
    # To the bit: neither fuses a product into a sum.
    assert_equal(rolled, reference.roll_window(*window))


@BOTH
def test_two_transitions_by_hand(roll: Any) -> None:
    states, means = roll(
        torch.tensor([[1.0]]),
        torch.tensor([[[10.0], [20.0]]]),
        torch.tensor([[[1.0], [-3.0]]]),
        torch.tensor([[2.0, 0.5]]),
        torch.tensor([[0.1, 0.25]]),
        torch.tensor([[4.0, 1.0]]),
    )
    assert means.flatten().tolist() == [3.0, 8.5]
    assert states.flatten().tolist() == [1.0, 7.0, 5.5]


@BOTH
def test_constant_guess_without_noise_is_a_geometric_series(roll: Any) -> None:
    a, b, steps = 0.9, 0.3, 20
    window = random_roll(3, steps, (5, 2))
    guess = window.guess[:, :1].expand_as(window.guess).contiguous()
    states, means = roll(
        window.x,
        guess,
        torch.zeros_like(guess),
        torch.full_like(window.a, a),
        torch.full_like(window.b, b),
        window.sigma,
    )
    power = a ** torch.arange(steps + 1).double().view(-1, 1, 1)
    exact = power * window.x[:, None] + b * (1 - power) / (1 - a) * guess[:, :1]
    torch.testing.assert_close(states.double(), exact, rtol=1e-5, atol=1e-5)
    assert torch.equal(means, states[:, 1:])


@BOTH
def test_no_transition(roll: Any) -> None:
    window = random_roll(2, 0, (3,))
    states, means = roll(*window)
    assert torch.equal(states, window.x[:, None])
    assert means.shape == (2, 0, 3)


# --- what it does not depend on ----------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["guess", "noise"])
def test_non_finite_input_stays_in_its_element(roll: Any, where: str, bad: float) -> None:
    window = random_roll(3, 6, (40,))
    clean = roll(*window)
    getattr(window, where)[1, 2, 17] = bad
    spoiled = roll(*window)
    # The mean of a transition does not see its noise.
    for results, first in ((0, 3), (1, 2 if where == "guess" else 3)):
        touched = torch.zeros_like(clean[results], dtype=torch.bool)
        touched[1, first:, 17] = True
        assert not bool(spoiled[results][touched].isfinite().any())
        assert torch.equal(spoiled[results][~touched], clean[results][~touched])


def test_result_does_not_depend_on_the_batch() -> None:
    window = random_roll(9, 5, (3, 9, 41))
    order = torch.randperm(9)
    together = roll_window(*window)
    assert_equal(roll_window(*window.rows(order)), tuple(t[order] for t in together))
    for b in range(9):
        one = torch.tensor([b])
        assert_equal(roll_window(*window.rows(one)), tuple(t[one] for t in together))


@pytest.mark.parametrize(("batch", "size"), [(1, 150_001), (40, 3001)])
def test_result_does_not_depend_on_the_number_of_threads(batch: int, size: int) -> None:
    window = random_roll(batch, 8, (size,))  # above the size where threads start
    single = roll_window(*window)
    torch.set_num_threads(2)
    try:
        several = roll_window(*window)
    finally:
        torch.set_num_threads(1)
    assert_equal(several, single)


# --- torch integration -------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 3])
def test_is_a_well_formed_custom_op(steps: int) -> None:
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    window = random_roll(2, steps, (4,))
    torch.library.opcheck(torch.ops.free.roll_window, tuple(window), test_utils=checks)


def test_fake_tensors_pass_through() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        rolled = roll_window(*(mode.from_tensor(t) for t in random_roll(2, 3, (4, 5))))
    assert rolled.states.shape == (2, 4, 4, 5)
    assert rolled.means.shape == (2, 3, 4, 5)


def test_other_devices_take_the_twin() -> None:
    window = [t.to("meta") for t in random_roll(2, 3, (4, 5))]
    assert roll_window(*window).states.shape == (2, 4, 4, 5)


def test_inference_mode_and_gradients() -> None:
    window = random_roll(2, 3, (4,))
    expected = roll_window(*window)
    with torch.inference_mode():
        assert_equal(roll_window(*(t.clone() for t in window)), expected)
    window.guess.requires_grad_(True)
    rolled = roll_window(*window)
    assert_equal(rolled, expected)
    assert not rolled.states.requires_grad


# --- bad input ---------------------------------------------------------------------------------

GOOD = random_roll(2, 4, (3, 5))
NOT_GUESS = [name for name in Roll._fields if name != "guess"]


def bad(name: str, value: Any) -> dict[str, Any]:
    return GOOD._asdict() | {name: value}


@pytest.mark.parametrize("name", Roll._fields)
def test_no_tensor(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected a tensor, got list$"):
        roll_window(**bad(name, [1.0]))


@pytest.mark.parametrize("name", Roll._fields)
def test_wrong_dtype(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected float32, got float64$"):
        roll_window(**bad(name, getattr(GOOD, name).double()))


@pytest.mark.parametrize("name", NOT_GUESS)
def test_wrong_shape(name: str) -> None:
    tensor = getattr(GOOD, name)
    with pytest.raises(ValueError, match=rf"^{name}: expected shape \[.*\], got \[1") as error:
        roll_window(**bad(name, tensor[:1]))
    assert str(list(tensor.shape)) in str(error.value)


@pytest.mark.parametrize("shape", [(), (2,), (2, 4), (0, 4, 3), (2, 4, 0), (2, 4, 3, 0)])
def test_guess_without_elements_or_axes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^guess: expected shape \[B, P, \.\.\.\] where only P"):
        roll_window(**bad("guess", torch.zeros(shape)))


@pytest.mark.parametrize("name", Roll._fields)
def test_not_contiguous(name: str) -> None:
    tensor = getattr(GOOD, name)
    spread = torch.stack((tensor, tensor), -1)[..., 0]
    with pytest.raises(ValueError, match=f"^{name}: expected a contiguous tensor, got strides"):
        roll_window(**bad(name, spread))


@pytest.mark.parametrize("name", NOT_GUESS)
def test_wrong_device(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected a tensor on cpu, got one on meta$"):
        roll_window(**bad(name, getattr(GOOD, name).to("meta")))


# --- the extension called directly: it raises and never crashes ----------------------------------

TENSORS = GOOD._asdict() | {"states": torch.empty(2, 5, 3, 5), "means": torch.empty(2, 4, 3, 5)}


def roll_directly(**changes: Any) -> None:
    given = TENSORS | changes
    _C.roll_window(**{k: to_dlpack(v) if isinstance(v, Tensor) else v for k, v in given.items()})


def test_good_direct_call_writes_its_results() -> None:
    TENSORS["states"].fill_(math.nan)
    roll_directly()
    assert_equal((TENSORS["states"], TENSORS["means"]), roll_window(*GOOD))


@pytest.mark.parametrize("value", [None, 1, "states", [1.0]])
@pytest.mark.parametrize("name", TENSORS)
def test_no_capsule(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected an unused DLPack capsule, got"):
        roll_directly(**{name: value})


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int32])
def test_wrong_dtype_of_a_capsule(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"^{name}: expected float32, got [a-z]+[0-9]+$"):
        roll_directly(**{name: TENSORS[name].to(dtype)})


@pytest.mark.parametrize("name", [name for name in TENSORS if name != "guess"])
def test_wrong_shape_of_a_capsule(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected shape \[.*\], got \[7\]$"):
        roll_directly(**{name: torch.zeros(7)})


@pytest.mark.parametrize("shape", [(), (2, 4), (0, 4, 3), (2, 4, 0)])
def test_guess_capsule_without_elements_or_axes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^guess: expected shape \[B, P, \.\.\.\].*, got \["):
        roll_directly(guess=torch.zeros(shape))


@pytest.mark.parametrize("name", TENSORS)
def test_capsule_that_is_not_contiguous(name: str) -> None:
    tensor = TENSORS[name]
    spread = torch.stack((tensor, tensor), -1)[..., 0]
    with pytest.raises(ValueError, match=f"^{name}: expected a contiguous tensor, got strides"):
        roll_directly(**{name: spread})
