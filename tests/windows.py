"""Windows to verify: random ones, and ones with a planned course."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.arguments import arguments


class Window(arguments("verify_window", "verifier")):
    """Without the verifier."""

    def rows(self, index: Tensor) -> Window:
        return Window(*(t[index].contiguous() for t in self))


def random_window(
    batch: int,
    width: int,
    shape: tuple[int, ...],
    *,
    delta: float = 1.0,
    ragged: bool = False,
    seed: int = 0,
) -> Window:
    """Drafts around means at distance ``delta`` sigma from the target's."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(*size, generator=g)  # noqa: E731
    dim = torch.Size(shape).numel()
    sigma = 0.1 + 0.4 * torch.rand(batch, width, generator=g)
    scale = sigma[:, :-1].view(batch, width - 1, *[1] * len(shape))
    target_means = draw(batch, width, *shape)
    shift = draw(batch, width - 1, *shape) / dim**0.5
    draft_means = target_means[:, :-1] + delta * scale * shift
    states = torch.empty(batch, width, *shape)
    states[:, 0] = draw(batch, *shape)
    states[:, 1:] = draft_means + scale * draw(batch, width - 1, *shape)
    length = torch.full((batch,), width, dtype=torch.int32)
    if ragged:
        length = torch.randint(1, width + 1, (batch,), generator=g, dtype=torch.int32)
    uniforms = torch.rand(batch, width - 1, generator=g)
    noise = draw(batch, *shape)
    return Window(states, draft_means, target_means, sigma, length, uniforms, noise)


def by_numbers(states, draft_means, target_means, sigma, uniforms, noise=1.0) -> Window:
    """A full window of one sample of one element."""
    rows = (torch.tensor([row])[..., None] for row in (states, draft_means, target_means))
    length = torch.tensor([len(states)], dtype=torch.int32)
    columns = (torch.tensor([sigma]), length, torch.tensor([uniforms]), torch.tensor([[noise]]))
    return Window(*rows, *columns)


def random_relaxation(batch: int, width: int, shape: tuple[int, ...], **changes: Any) -> Any:
    """Arguments of verify_window_relaxed, of which what length says to ignore is NaN."""
    window = random_window(batch, width, shape, delta=0.9, ragged=True, seed=width)
    spent = torch.rand(batch, dtype=torch.float64) * 0.1
    given = {"uncertainty": None, "spent": spent, "rule": "allow", "strength": 1.5, "budget": 0.2}
    return spoil_beyond_length(window, math.nan)._asdict() | given | changes


def spoil_beyond_length(window: Window, value: float) -> Window:
    """The same window with ``value`` in every entry that length says to ignore."""
    spoiled = Window(*(t.clone() for t in window))
    for b, length in enumerate(window.length.tolist()):
        for tensor in (spoiled.states, spoiled.target_means, spoiled.sigma):
            tensor[b, length:] = value
        for tensor in (spoiled.draft_means, spoiled.uniforms):
            tensor[b, length - 1 :] = value
    return spoiled
