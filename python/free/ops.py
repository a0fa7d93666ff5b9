"""Checked entry points to the compiled kernels, registered as torch custom ops.

On the CPU the compiled core runs; tensors on other devices take the torch twins of
:mod:`free.reference`. The ops are ``torch.ops.free.verify_window``, ``roll_window``,
``philox_normal`` and ``philox_uniform``; they carry fake implementations, so that graphs which
contain them can be traced, and no gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack

# After torch, so that one OpenMP runtime serves both.
from free import _C, reference

__all__ = [
    "VERIFIERS",
    "Rolled",
    "Verified",
    "build_info",
    "check_verifier",
    "cuda_devices",
    "philox_normal",
    "philox_uniform",
    "roll_window",
    "verify_window",
]

#: Names of the verifiers.
VERIFIERS = ("reflection",)


class Verified(NamedTuple):
    """What became of a window.

    Attributes
    ----------
    state : Tensor, shape [B, ...], float32
        The state after the last transition made.
    advance : Tensor, shape [B], int32
        Transitions made, ``1 .. length``: a repaired draft counts.
    accepted : Tensor, shape [B], int32
        Drafts that stand, ``0 .. length - 1``.
    log_ratio : Tensor, shape [B, W - 1], float32
        ``log q(x_hat) / p(x_hat)`` of every examined draft, ``j <= accepted``. NaN for the others,
        and for an examined one whose state or means are not finite; such a draft is rejected.
    """

    state: Tensor
    advance: Tensor
    accepted: Tensor
    log_ratio: Tensor


class Rolled(NamedTuple):
    """A window of states, and the means that they were drawn around.

    Attributes
    ----------
    states : Tensor, shape [B, P + 1, ...], float32
        ``x`` and the ``P`` states after it.
    means : Tensor, shape [B, P, ...], float32
        The mean of each transition.
    """

    states: Tensor
    means: Tensor


def verify_window(
    states: Tensor,
    draft_means: Tensor,
    target_means: Tensor,
    sigma: Tensor,
    length: Tensor,
    uniforms: Tensor,
    noise: Tensor,
    verifier: str = "reflection",
) -> Verified:
    """Keep the drafts that the target's law allows and repair the first that it does not.

    With ``z = (x_hat - m_hat) / sigma``, ``Delta = (m_hat - m) / sigma``, ``e = Delta / |Delta|``,
    reflection accepts a draft if ``log1p(-u) <= -<z, Delta> - |Delta|^2 / 2``, or if
    ``|Delta| <= 1e-10``, and otherwise makes the state ``m + sigma (z - 2 <z, e> e)``: either way
    it is distributed as N(m, sigma^2 I). The probability of acceptance is ``2 Phi(-|Delta| / 2)``,
    which no rule for one transition exceeds. If all drafts stand, one more transition is sampled
    from the target.

    Entries at and beyond ``length`` are ignored, whatever they hold. Where ``sigma`` is 0 a draft
    stands only if its mean equals the target's; otherwise the state is the target's mean.

    Parameters
    ----------
    states : Tensor, shape [B, W, ...], float32
        ``x_k`` and the drafted ``x_{k+1} .. x_{k+W-1}``: the rows that the teacher saw. At least
        one axis follows ``W``.
    draft_means : Tensor, shape [B, W - 1, ...], float32
        ``m_hat`` of transitions ``0 .. W-2``.
    target_means : Tensor, shape [B, W, ...], float32
        ``m`` of transitions ``0 .. W-1``.
    sigma : Tensor, shape [B, W], float32
        Finite and >= 0; 0 only where the transition is deterministic.
    length : Tensor, shape [B], int32
        Rows of each sample that are real, ``1 .. W``.
    uniforms : Tensor, shape [B, W - 1], float32
        In [0, 1).
    noise : Tensor, shape [B, ...], float32
        Fresh N(0, I) for a transition sampled from the target.
    verifier : {"reflection"}
        The decision rule.

    Returns
    -------
    Verified

    Raises
    ------
    TypeError
        For an argument that is no tensor, or a tensor of another dtype.
    ValueError
        For shapes that do not match, empty or non-contiguous tensors, different devices, an unknown
        verifier; on the CPU also for real entries of ``length``, ``sigma`` and ``uniforms`` out of
        range (on other devices looking would stall the queue).

    Notes
    -----
    The result for a sample does not depend on its batch or on the number of threads.

    References
    ----------
    FREE (arXiv 2511.20390), supplement B, equations 12-14; De Bortoli et al., arXiv 2501.05370.
    """
    _check_window(states, draft_means, target_means, sigma, length, uniforms, noise)
    check_verifier(verifier)
    return Verified(
        *torch.ops.free.verify_window(
            states, draft_means, target_means, sigma, length, uniforms, noise, verifier
        )
    )


def roll_window(
    x: Tensor, guess: Tensor, noise: Tensor, a: Tensor, b: Tensor, sigma: Tensor
) -> Rolled:
    """Roll a window of states forward from guesses.

    With ``x_0 = x`` and ``j = 0 .. P-1``,

        mean_j  = a_j * x_j + b_j * guess_j
        x_{j+1} = mean_j + sigma_j * noise_j

    ``guess`` stands for whatever the network predicts that a transition's mean is affine in, with
    the coefficients that belong to it: eps, or the predicted image ``x0``.

    Parameters
    ----------
    x : Tensor, shape [B, ...], float32
        The state that the window starts from.
    guess : Tensor, shape [B, P, ...], float32
        For transitions ``0 .. P-1``. At least one axis follows ``P``. Only ``P`` may be 0: then the
        window is ``x`` alone.
    noise : Tensor, shape [B, P, ...], float32
        N(0, I).
    a, b, sigma : Tensor, shape [B, P], float32
        The transitions' coefficients.

    Returns
    -------
    Rolled

    Raises
    ------
    TypeError
        For an argument that is no tensor, or a tensor of another dtype.
    ValueError
        For shapes that do not match or are empty, non-contiguous tensors, different devices.

    Notes
    -----
    Values are not looked at: a NaN spreads to the later states of its own element and no further.
    The result for a sample depends neither on its batch nor on threads nor on the instruction set.
    """
    _check_roll(x, guess, noise, a, b, sigma)
    return Rolled(*torch.ops.free.roll_window(x, guess, noise, a, b, sigma))


def philox_normal(
    seeds: Tensor, transition: Tensor, round: Tensor, purpose: int, size: int
) -> Tensor:
    """Counter-based standard normals: float32 ``[R, size]``. See :func:`free.random.normal`.

    ``seeds``, ``transition`` and ``round`` are int64 ``[R]``, the last two in ``0 .. 2**32 - 1``.
    """
    _check_draws(seeds, transition, round, purpose, size)
    drawn: Tensor = torch.ops.free.philox_normal(seeds, transition, round, purpose, size)
    return drawn


def philox_uniform(
    seeds: Tensor, transition: Tensor, round: Tensor, purpose: int, size: int
) -> Tensor:
    """Counter-based uniforms in [0, 1): float32 ``[R, size]``. See :func:`free.random.uniform`.

    ``seeds``, ``transition`` and ``round`` are int64 ``[R]``, the last two in ``0 .. 2**32 - 1``.
    """
    _check_draws(seeds, transition, round, purpose, size)
    drawn: Tensor = torch.ops.free.philox_uniform(seeds, transition, round, purpose, size)
    return drawn


def check_verifier(verifier: str) -> None:
    """Raise a ``ValueError`` unless ``verifier`` is one of :data:`VERIFIERS`."""
    if verifier not in VERIFIERS:
        expected = ", ".join(map(repr, VERIFIERS))
        raise ValueError(f"verifier: expected one of {expected}, got {verifier!r}")


def build_info() -> dict[str, Any]:
    """How the compiled core was built: ``compiler``, ``cuda`` (version or None), ``openmp``, and
    the instruction set ``simd`` that it uses on this machine.
    """
    info: dict[str, Any] = _C.build_info()
    return info


def cuda_devices() -> tuple[list[dict[str, Any]], str | None]:
    """CUDA devices as the compiled core sees them, each with ``name`` and ``capability``, and the
    reason why there are none.
    """
    found = _C.cuda_devices()
    return found["devices"], found["reason"]


# --- checks -------------------------------------------------------------------------------------


def _check_window(
    states: Tensor,
    draft_means: Tensor,
    target_means: Tensor,
    sigma: Tensor,
    length: Tensor,
    uniforms: Tensor,
    noise: Tensor,
) -> None:
    _check_tensor("states", states, torch.float32)
    shape = states.shape
    if len(shape) < 3 or states.numel() == 0:
        raise ValueError(f"states: expected a non-empty shape [B, W, ...], got {list(shape)}")
    batch, width, *sample = shape
    device = states.device
    _check_tensor("draft_means", draft_means, torch.float32, (batch, width - 1, *sample), device)
    _check_tensor("target_means", target_means, torch.float32, shape, device)
    _check_tensor("sigma", sigma, torch.float32, (batch, width), device)
    _check_tensor("length", length, torch.int32, (batch,), device)
    _check_tensor("uniforms", uniforms, torch.float32, (batch, width - 1), device)
    _check_tensor("noise", noise, torch.float32, (batch, *sample), device)


def _check_roll(
    x: Tensor, guess: Tensor, noise: Tensor, a: Tensor, b: Tensor, sigma: Tensor
) -> None:
    _check_tensor("guess", guess, torch.float32)
    shape = guess.shape
    if len(shape) < 3 or shape[0] == 0 or 0 in shape[2:]:
        raise ValueError(
            f"guess: expected shape [B, P, ...] where only P may be 0, got {list(shape)}"
        )
    batch, steps, *sample = shape
    device = guess.device
    _check_tensor("x", x, torch.float32, (batch, *sample), device)
    _check_tensor("noise", noise, torch.float32, shape, device)
    for name, coefficient in (("a", a), ("b", b), ("sigma", sigma)):
        _check_tensor(name, coefficient, torch.float32, (batch, steps), device)


def _check_draws(seeds: Tensor, transition: Tensor, round: Tensor, purpose: int, size: int) -> None:
    _check_tensor("seeds", seeds, torch.int64)
    if seeds.dim() != 1:
        raise ValueError(f"seeds: expected shape [R], got {list(seeds.shape)}")
    _check_tensor("transition", transition, torch.int64, seeds.shape, seeds.device)
    _check_tensor("round", round, torch.int64, seeds.shape, seeds.device)
    if not 0 <= purpose < 2**32:
        raise ValueError(f"purpose: expected a value in 0..4294967295, got {purpose}")
    if size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")


def _check_tensor(
    name: str,
    tensor: Tensor,
    dtype: torch.dtype,
    shape: tuple[int, ...] | None = None,
    device: torch.device | None = None,
) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    if tensor.dtype is not dtype:
        raise TypeError(f"{name}: expected {_name(dtype)}, got {_name(tensor.dtype)}")
    if shape is not None and tensor.shape != shape:
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(tensor.shape)}")
    if device is not None and tensor.device != device:
        raise ValueError(f"{name}: expected a tensor on {device}, got one on {tensor.device}")
    if not tensor.is_contiguous():
        raise ValueError(
            f"{name}: expected a contiguous tensor, got strides {list(tensor.stride())}"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# --- registration -------------------------------------------------------------------------------

_library = torch.library.Library("free", "DEF")
_WINDOW = (
    "Tensor states, Tensor draft_means, Tensor target_means, Tensor sigma, Tensor length, "
    "Tensor uniforms, Tensor noise, str verifier"
)
_ROLL = "Tensor x, Tensor guess, Tensor noise, Tensor a, Tensor b, Tensor sigma"
_DRAWS = "Tensor seeds, Tensor transition, Tensor round, int purpose, SymInt size"


def _verify_window_cpu(*arguments: Any) -> Verified:
    *inputs, verifier = arguments
    verified = _verify_window_fake(*arguments)
    _C.verify_window(verifier, *map(to_dlpack, (*inputs, *verified)))
    return verified


def _verify_window_fake(
    states: Tensor,
    draft_means: Tensor,
    target_means: Tensor,
    sigma: Tensor,
    length: Tensor,
    uniforms: Tensor,
    noise: Tensor,
    verifier: str,
) -> Verified:
    return Verified(
        torch.empty_like(noise),
        torch.empty_like(length),
        torch.empty_like(length),
        torch.empty_like(uniforms),
    )


def _roll_window_cpu(*inputs: Tensor) -> Rolled:
    rolled = _roll_window_fake(*inputs)
    _C.roll_window(*map(to_dlpack, inputs + rolled))
    return rolled


def _roll_window_fake(
    x: Tensor, guess: Tensor, noise: Tensor, a: Tensor, b: Tensor, sigma: Tensor
) -> Rolled:
    batch, steps, *sample = guess.shape
    return Rolled(guess.new_empty((batch, steps + 1, *sample)), torch.empty_like(guess))


def _philox_cpu(fill: Callable[..., None], *arguments: Any) -> Tensor:
    seeds, transition, round, purpose, size = arguments
    out = torch.empty(len(seeds), size)
    fill(to_dlpack(seeds), to_dlpack(transition), to_dlpack(round), purpose, to_dlpack(out))
    return out


def _philox_fake(
    seeds: Tensor, transition: Tensor, round: Tensor, purpose: int, size: int
) -> Tensor:
    return seeds.new_empty((seeds.shape[0], size), dtype=torch.float32)


def _register(
    schema: str, cpu: Callable[..., Any], twin: Callable[..., Any], fake: Callable[..., Any]
) -> None:
    name = schema.partition("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, cpu, "CPU")
    _library.impl(name, twin, "CompositeExplicitAutograd")
    # No gradients: the op does not record itself, instead of warning in a backward pass.
    _library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake(f"free::{name}", fake, lib=_library)


_register(
    f"verify_window({_WINDOW}) -> (Tensor, Tensor, Tensor, Tensor)",
    _verify_window_cpu,
    reference.verify_window,
    _verify_window_fake,
)
_register(
    f"roll_window({_ROLL}) -> (Tensor, Tensor)",
    _roll_window_cpu,
    reference.roll_window,
    _roll_window_fake,
)
for _name_of, _fill, _twin in (
    ("philox_normal", _C.philox_normal, reference.philox_normal),
    ("philox_uniform", _C.philox_uniform, reference.philox_uniform),
):
    _register(f"{_name_of}({_DRAWS}) -> Tensor", partial(_philox_cpu, _fill), _twin, _philox_fake)
