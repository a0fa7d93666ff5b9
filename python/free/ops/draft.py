"""A window before the drafter is asked: what the teacher's last call says of it."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

from free import reference

# After torch, so that one OpenMP runtime serves both.
from free.ops import _C
from free.ops.operator import check_integer, check_tensor, register, stream_of

__all__ = [
    "FirstGuesses",
    "WindowNoise",
    "first_guesses",
    "roll_window_",
    "window_noise",
]

_GUESSES = (
    "Tensor x, Tensor k, Tensor past_x, Tensor past_guess, Tensor row, Tensor known, "
    "Tensor source, Tensor dot, Tensor square, Tensor columns, SymInt drafts"
)


class FirstGuesses(NamedTuple):
    """A window of P drafts that is still to be rolled, W = P + 1.

    Entry ``i`` of ``states``, ``means`` and ``guesses`` is the state before transition ``k + i``,
    and mean and guess of the transition that led to it. Only entry 0 is written.

    Attributes
    ----------
    states, means, guesses : Tensor, shape [B, W, ...], float32
    intercept : Tensor, shape [B, P, ...], float32
    slope : Tensor, shape [B, P], float32
        The guess of transition ``k + i`` at a state x is ``intercept + slope x``.
    settled : Tensor, shape [B], int64
        For how many transitions that stands; the others are the drafter's.
    at : Tensor, shape [B, W], int64
        Transitions ``k + i``, within the schedule.
    coefficients : Tensor, shape [3, B, W], float32
        ``a``, ``b`` and ``sigma`` there.
    """

    states: Tensor
    means: Tensor
    guesses: Tensor
    intercept: Tensor
    slope: Tensor
    settled: Tensor
    at: Tensor
    coefficients: Tensor


def first_guesses(
    x: Tensor,
    k: Tensor,
    past_x: Tensor,
    past_guess: Tensor,
    row: Tensor,
    known: Tensor,
    source: Tensor,
    dot: Tensor,
    square: Tensor,
    columns: Tensor,
    drafts: int,
) -> FirstGuesses:
    """Begin windows from what the teacher said in its last call.

    A transition that it has seen at a discarded state ``x_old`` is guessed to be what it said
    there, plus, where the source is the response, ``(x - x_old) dot / square``, at least 0 times
    and at most as often as ``columns[3]`` says. Others are guessed to be the last it has seen.

    Parameters
    ----------
    x : Tensor, shape [B, ...], float32
        Current states. At least one axis follows B, and none is empty.
    k : Tensor, shape [B], int64
        Their transitions; those beyond the schedule count as its nearest.
    past_x, past_guess : Tensor, shape [R, ...], float32
        States of the call, and what was said of them, as guesses.
    row : Tensor, shape [B, V], int64, V >= W
        As :class:`free.ops.RecycledRows` has it. The first W = P + 1 are used.
    known : Tensor, shape [B], int64
        Likewise.
    source : Tensor, shape [B], int64
        Index into :data:`free.reference.draft.SOURCES`.
    dot, square : Tensor, shape [B], float32
        As :class:`free.rounds.state.Evidence` has them.
    columns : Tensor, shape [4, N], float32
        ``a``, ``b``, ``sigma`` and the largest response of each transition.
    drafts : int
        P, at least 0.

    Returns
    -------
    FirstGuesses

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came; on the CPU also for a ``row`` that is
        not in ``0 .. R - 1``. On CUDA the nearest that is stands for it. Other values are not
        looked at.
    """
    source = torch.full_like(k, (0, 2, 3)[source])
    check_tensor("x", x, torch.float32)
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(f"x: expected a non-empty shape [B, ...], got {list(x.shape)}")
    (batch, *sample), device = x.shape, x.device
    check_integer("drafts", drafts, 0)
    check_tensor("past_x", past_x, torch.float32, device=device)
    if list(past_x.shape[1:]) != sample or len(past_x) == 0:
        expected = ", ".join(map(str, ("R", *sample)))
        raise ValueError(f"past_x: expected shape [{expected}], got {list(past_x.shape)}")
    check_tensor("past_guess", past_guess, torch.float32, past_x.shape, device)
    check_tensor("row", row, torch.int64, device=device)
    if row.dim() != 2 or len(row) != batch or row.shape[1] <= drafts:
        raise ValueError(
            f"row: expected shape [{batch}, at least {drafts + 1}], got {list(row.shape)}"
        )
    for name, column in (("k", k), ("known", known), ("source", source)):
        check_tensor(name, column, torch.int64, (batch,), device)
    for name, column in (("dot", dot), ("square", square)):
        check_tensor(name, column, torch.float32, (batch,), device)
    check_tensor("columns", columns, torch.float32, device=device)
    if columns.dim() != 2 or columns.shape[0] != 4 or columns.shape[1] == 0:
        raise ValueError(f"columns: expected shape [4, N], got {list(columns.shape)}")
    given = (x, k, past_x, past_guess, row, known, source, dot, square, columns, drafts)
    return FirstGuesses(*torch.ops.free.first_guesses(*given))


def _guesses_cpu(*arguments: Any) -> FirstGuesses:
    *inputs, _ = arguments
    guesses = _guesses_fake(*arguments)
    _C.first_guesses(*map(to_dlpack, (*inputs, *guesses)))
    return guesses


def _guesses_cuda(*arguments: Any) -> FirstGuesses:
    *inputs, _ = arguments
    guesses = _guesses_fake(*arguments)
    _C.cuda_first_guesses(*map(to_dlpack, (*inputs, *guesses)), stream=stream_of(inputs[0]))
    return guesses


def _guesses_fake(x: Tensor, k: Tensor, *rest: Any) -> FirstGuesses:
    drafts = rest[-1]
    batch, *sample = x.shape
    window = (batch, drafts + 1, *sample)
    return FirstGuesses(
        x.new_empty(window),
        x.new_empty(window),
        x.new_empty(window),
        x.new_empty((batch, drafts, *sample)),
        x.new_empty((batch, drafts)),
        torch.empty_like(k),
        k.new_empty((batch, drafts + 1)),
        x.new_empty((3, batch, drafts + 1)),
    )


register(
    f"first_guesses({_GUESSES}) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _guesses_cpu,
    _guesses_cuda,
    reference.first_guesses,
    _guesses_fake,
)

_NOISE = (
    "Tensor seeds, Tensor k, Tensor? rounds, Tensor length, SymInt width, SymInt size, "
    "int purpose, int decision"
)


class WindowNoise(NamedTuple):
    """What a window draws.

    Attributes
    ----------
    noise : Tensor, shape [B, W - 1, D], float32
        Standard normals of the drafts.
    uniforms : Tensor, shape [B, W - 1], float32
        In [0, 1), of the decisions about them.
    last : Tensor, shape [B, D], float32
        Standard normals of transition ``length - 1``, which is sampled from the target if every
        draft stands.
    """

    noise: Tensor
    uniforms: Tensor
    last: Tensor


def window_noise(
    seeds: Tensor,
    k: Tensor,
    rounds: Tensor | None,
    length: Tensor,
    width: int,
    size: int,
    purpose: int,
    decision: int,
) -> WindowNoise:
    """The numbers of :func:`philox_normal` and :func:`philox_uniform` for transitions
    ``k .. k + width - 1`` of each sample.

    Parameters
    ----------
    seeds : Tensor, shape [B], int64
    k : Tensor, shape [B], int64
        Where the windows begin, ``0 .. 2**32 - width``.
    rounds : Tensor or None, shape [B], int64
        Which of a transition's numbers, ``0 .. 2**32 - 1``; None for the first of all.
    length : Tensor, shape [B], int32
        Rows of each window; what is not in ``1 .. width`` counts as the nearest that is.
    width, size : int
        W and D, at least 1.
    purpose, decision : int
        Last words of the normals' and of the uniforms' counters (:class:`free.rounds.noise.Purpose`).

    Returns
    -------
    WindowNoise

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was expected and what came; on the CPU also for a ``k``, as
        ``transition``, or ``rounds``, as ``round``, out of range. On CUDA values are not looked
        at.
    """
    check_tensor("seeds", seeds, torch.int64)
    if seeds.dim() != 1:
        raise ValueError(f"seeds: expected shape [B], got {list(seeds.shape)}")
    check_tensor("k", k, torch.int64, seeds.shape, seeds.device)
    if rounds is not None:
        check_tensor("rounds", rounds, torch.int64, seeds.shape, seeds.device)
    check_tensor("length", length, torch.int32, seeds.shape, seeds.device)
    for name, value in (("width", width), ("size", size)):
        check_integer(name, value, 1)
    for name, value in (("purpose", purpose), ("decision", decision)):
        check_integer(name, value, 0, 2**32 - 1)
    drawn = torch.ops.free.window_noise(seeds, k, rounds, length, width, size, purpose, decision)
    return WindowNoise(*drawn)


def _noise_cuda(*arguments: Any) -> WindowNoise:
    seeds, k, rounds, length, _, _, purpose, decision = arguments
    drawn = _noise_fake(*arguments)
    given = (seeds, k, rounds, length, *drawn)
    capsules = [None if tensor is None else to_dlpack(tensor) for tensor in given]
    _C.cuda_window_noise(purpose, decision, *capsules, stream=stream_of(seeds))
    return drawn


def _noise_fake(
    seeds: Tensor,
    k: Tensor,
    rounds: Tensor | None,
    length: Tensor,
    width: int,
    size: int,
    purpose: int,
    decision: int,
) -> WindowNoise:
    batch = seeds.shape[0]
    shapes = ((batch, width - 1, size), (batch, width - 1), (batch, size))
    return WindowNoise(*(seeds.new_empty(shape, dtype=torch.float32) for shape in shapes))


def _noise_cpu(*arguments: Any) -> WindowNoise:
    """By the kernels for rows."""
    by_rows = partial(
        reference.window_noise,
        normal=torch.ops.free.philox_normal,
        uniform=torch.ops.free.philox_uniform,
    )
    return WindowNoise(*by_rows(*arguments))


register(
    f"window_noise({_NOISE}) -> (Tensor, Tensor, Tensor)",
    _noise_cpu,
    _noise_cuda,
    reference.window_noise,
    _noise_fake,
)

_ROLL = (
    "Tensor(a!) states, Tensor(b!) means, Tensor(c!) guesses, Tensor noise, Tensor intercept, "
    "Tensor slope, Tensor? change, Tensor? settled, bool adds, Tensor a, Tensor b, Tensor sigma, "
    "SymInt first, SymInt end"
)


def roll_window_(
    states: Tensor,
    means: Tensor,
    guesses: Tensor,
    noise: Tensor,
    intercept: Tensor,
    slope: Tensor,
    change: Tensor | None,
    settled: Tensor | None,
    adds: bool,
    a: Tensor,
    b: Tensor,
    sigma: Tensor,
    first: int,
    end: int,
) -> None:
    """Roll a window of states forward from guesses, in place.

    For transitions ``j = first .. end - 1`` of a window of P,

        guess_{j+1} = intercept_j + slope_j x_j          where j < settled, or all without a change
                      change_j (+ guess_j if it adds)    otherwise
        mean_{j+1}  = a_j x_j + b_j guess_{j+1}
        x_{j+1}     = mean_{j+1} + sigma_j noise_j

    A guess stands for whatever the network predicts that a transition's mean is affine in, with
    the coefficients that belong to it: eps, or the predicted image ``x0``.

    Parameters
    ----------
    states, means, guesses : Tensor, shape [B, P + 1, ...], float32
        Entry ``j`` is read as of the transition before, entries ``first + 1 .. end`` are written.
        At least one axis follows P; only P may be 0.
    noise : Tensor, shape [B, P, ...], float32
        N(0, I).
    intercept : Tensor, shape [B, P, ...], float32
    slope : Tensor, shape [B, P], float32
    change : Tensor or None, shape [B, P, ...], float32
        What the drafter says.
    settled : Tensor or None, shape [B], int64
        With ``change``, how many transitions it says nothing of.
    adds : bool
        Whether changes add up along the window.
    a, b, sigma : Tensor, shape [B, P + 1], float32
        The transitions' coefficients; the last are not used.
    first, end : int
        ``0 <= first <= end <= P``.

    Raises
    ------
    TypeError
        For an argument that is no tensor, or a tensor of another dtype.
    ValueError
        For shapes that do not match or are empty, non-contiguous tensors, different devices, a
        change without settled, a span that is not in the window.

    Notes
    -----
    Values are not looked at: a NaN spreads to the later states of its own element and no further.
    The result for a sample depends neither on its batch nor on threads nor on the instruction set.
    """
    check_tensor("states", states, torch.float32)
    shape = states.shape
    if len(shape) < 3 or states.numel() == 0:
        raise ValueError(f"states: expected a non-empty shape [B, P + 1, ...], got {list(shape)}")
    batch, width, *sample = shape
    device, drafts = states.device, (batch, width - 1, *sample)
    check_tensor("means", means, torch.float32, shape, device)
    check_tensor("guesses", guesses, torch.float32, shape, device)
    check_tensor("noise", noise, torch.float32, drafts, device)
    check_tensor("intercept", intercept, torch.float32, drafts, device)
    check_tensor("slope", slope, torch.float32, (batch, width - 1), device)
    if (change is None) != (settled is None):
        raise ValueError("settled: expected with change, and only then, got one of them")
    if change is not None and settled is not None:
        check_tensor("change", change, torch.float32, drafts, device)
        check_tensor("settled", settled, torch.int64, (batch,), device)
    for name, column in (("a", a), ("b", b), ("sigma", sigma)):
        check_tensor(name, column, torch.float32, (batch, width), device)
    for name, value in (("first", first), ("end", end)):
        check_integer(name, value, -(2**63))
    if not 0 <= first <= end < width:
        raise ValueError(
            f"first and end: expected 0 <= first <= end <= {width - 1}, got {first} and {end}"
        )
    rows = (states, means, guesses, noise, intercept, slope, change, settled)
    torch.ops.free.roll_window_(*rows, adds, a, b, sigma, first, end)


def _roll_cpu(*arguments: Any) -> None:
    _C.roll_window(*_capsules(*arguments))


def _roll_cuda(*arguments: Any) -> None:
    _C.cuda_roll_window(*_capsules(*arguments), stream=stream_of(arguments[0]))


def _capsules(*arguments: Any) -> tuple[Any, ...]:
    """As the compiled core takes them."""
    *rows, adds, a, b, sigma, first, end = arguments
    given = [None if tensor is None else to_dlpack(tensor) for tensor in (*rows, a, b, sigma)]
    return (adds, first, end, *given)


def _roll_fake(*arguments: Any) -> None:
    """Nothing is returned."""


register(f"roll_window_({_ROLL}) -> ()", _roll_cpu, _roll_cuda, reference.roll_window_, _roll_fake)
