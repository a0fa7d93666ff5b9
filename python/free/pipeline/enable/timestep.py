"""How a pipeline tells its network the time: recognised from what it passes, else refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: What networks call it.
NAMES = ("timestep", "timesteps", "t", "timestep_ratio")

#: ``form(t, T, dtype)``: what a pipeline makes of timesteps ``t`` of T. Where it casts matters in
#: half precision.
FORMS: dict[str, Callable[[Tensor, float, torch.dtype], Tensor]] = {
    "t": lambda t, T, dtype: t.to(dtype),
    "t / T": lambda t, T, dtype: (t / T).to(dtype),
    "t / T, cast before": lambda t, T, dtype: t.to(dtype) / T,
    "1 - t / T": lambda t, T, dtype: (1 - t / T).to(dtype),
    "1 - t / T, cast before": lambda t, T, dtype: 1 - t.to(dtype) / T,
    "(T - t) / T": lambda t, T, dtype: ((T - t) / T).to(dtype),
    "(T - t) / T, cast before": lambda t, T, dtype: (T - t.to(dtype)) / T,
}


class TimestepForm:
    """The forms that have explained all that was passed so far, of ``T`` training steps.

    ``scale`` is a factor of the network's own configuration.
    """

    def __init__(self, T: float, scale: float = 1.0) -> None:
        self._T, self._scale = T, scale
        self._left = list(FORMS)

    def recognise(self, value: Any, nominal: Tensor, name: str) -> None:
        """Compare with what is passed at timestep ``nominal``.

        Raises ValueError, naming the argument, if no form is left.
        """
        passed = torch.as_tensor(value, device=nominal.device)
        left = [
            form
            for form in self._left
            if bool((passed == self._made(form, nominal, passed.dtype)).all())
        ]
        if not left:
            raise ValueError(
                f"{name} must be the scheduler's timestep t (t, t / T, 1 - t / T, with T = "
                f"{self._T:g}), so that other rows can be told theirs, got "
                f"{passed.flatten()[:3].tolist()} at t = {float(nominal):g}"
            )
        self._left = left

    def make(self, value: Any, timesteps: Tensor, branches: int) -> Tensor:
        """The argument for rows at ``timesteps [R]``, in each branch, like ``value``."""
        like = torch.as_tensor(value, device=timesteps.device)
        made = self._made(self._left[0], timesteps, like.dtype).repeat(branches)
        if like.dim() < 2:
            return made
        return made.view(-1, *[1] * (like.dim() - 1)).expand(-1, *like.shape[1:])

    def _made(self, form: str, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        made = FORMS[form](timesteps, self._T, dtype)
        return made if self._scale == 1.0 else (made * self._scale).to(dtype)
