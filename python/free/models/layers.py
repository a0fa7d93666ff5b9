"""The parts that DiT and the drafter are made of, with the original's parameter names.

Peebles & Xie, "Scalable Diffusion Models with Transformers" (2212.09748), adaLN-Zero variant.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NORM_EPS = 1e-6
#: Of the norms of queries and keys.
_HEAD_NORM_EPS = 1e-5
_FREQUENCIES = 256


def sincos_position_embedding(grid: int, hidden: int, device: torch.device | str = "cpu") -> Tensor:
    """Fixed 2-D sine-cosine table [1, grid * grid, hidden], the column's half first (as in MAE).

    It is computed on the CPU whatever the device: sines round differently elsewhere.
    """
    shape = (1, grid * grid, hidden)
    if torch.device(device).type == "meta":  # where arange would import sympy, slower than loading
        return torch.empty(shape, dtype=torch.float32, device=device)
    count = torch.arange(max(hidden // 4, grid), dtype=torch.float64, device="cpu")
    omega = 10000.0 ** (-count[: hidden // 4] / (hidden // 4))
    angle = count[:grid, None] * omega
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)  # [grid, hidden/2]
    column = axis[None, :, :].expand(grid, grid, -1)
    row = axis[:, None, :].expand(grid, grid, -1)
    return torch.cat([column, row], dim=2).reshape(shape).float().to(device)


def unpatchify(tokens: Tensor, patch: int, channels: int) -> Tensor:
    """[R, T, patch * patch * channels] -> [R, channels, H, W]; the channel is the fastest axis."""
    rows, count, _ = tokens.shape
    grid = math.isqrt(count)
    image = tokens.view(rows, grid, grid, patch, patch, channels)
    return image.permute(0, 5, 1, 3, 2, 4).reshape(rows, channels, grid * patch, grid * patch)


def initialize_linear(module: nn.Module) -> None:
    """Xavier weights and zero biases, as in ViT; for ``nn.Module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


class PatchEmbedder(nn.Module):
    """[R, C, H, W] -> [R, T, E]."""

    def __init__(self, patch: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, hidden, patch, stride=patch, dtype=torch.float32)
        nn.init.xavier_uniform_(self.proj.weight.view(hidden, -1))
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class TimestepEmbedder(nn.Module):
    """[R] timesteps, int64 or floating-point -> [R, hidden].

    The 128 frequencies are ``10000 ** (-i / divisor)``. With ``reversed_time`` the weights are of
    ``1 - t``.
    """

    frequencies: Tensor

    def __init__(self, hidden: int, divisor: int = 128, reversed_time: bool = False) -> None:
        super().__init__()
        self.divisor, self.reversed_time = divisor, reversed_time
        self.mlp = nn.Sequential(
            nn.Linear(_FREQUENCIES, hidden, dtype=torch.float32),
            nn.SiLU(),
            nn.Linear(hidden, hidden, dtype=torch.float32),
        )
        self.register_buffer(
            "frequencies", torch.empty(0, dtype=torch.float32, device="cpu"), persistent=False
        )
        self.reset_frequencies()

    def reset_frequencies(self, device: torch.device | str | None = None) -> None:
        """Compute the table anew on ``device``; a module made on "meta" has none."""
        # On the CPU whatever the device, as the trained code did: exp rounds differently elsewhere.
        steps = torch.arange(_FREQUENCIES // 2, dtype=torch.float32, device="cpu")
        table = torch.exp(-math.log(10000.0) * steps / self.divisor)
        self.frequencies = table.to(device or next(self.mlp.parameters()).device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TimestepEmbedder:
        # Angles up to 1000 rad need float32 frequencies whatever the network runs in.
        super()._apply(fn, recurse)
        self.reset_frequencies(self.frequencies.device)
        return self

    def forward(self, t: Tensor) -> Tensor:
        own = 1 - t if self.reversed_time else t
        angle = own[:, None].float() * self.frequencies
        embedding = torch.cat([angle.cos(), angle.sin()], dim=1)
        # Quantised layers have no parameters, and take float32.
        return self.mlp(embedding.to(next(self.mlp.parameters(), embedding).dtype))


class _Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        # There is nothing to draw on "meta", where normal_ would import sympy.
        if not self.weight.is_meta:
            super().reset_parameters()


class LabelEmbedder(nn.Module):
    """[R] int64 labels -> [R, E]; the null class, if there is one, is the last of the labels."""

    def __init__(self, labels: int, hidden: int) -> None:
        super().__init__()
        self.embedding_table = _Embedding(labels, hidden, dtype=torch.float32)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)


class Conditioning(nn.Module):
    """One block's own embedders: ``(t [R], y [R]) -> [R, E]``."""

    def __init__(self, labels: int, hidden: int, divisor: int, reversed_time: bool = False) -> None:
        super().__init__()
        self.t_embedder = TimestepEmbedder(hidden, divisor, reversed_time)
        self.y_embedder = LabelEmbedder(labels, hidden)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.t_embedder(t) + self.y_embedder(y)


class Attention(nn.Module):
    """Multi-head self-attention over tokens, [R, T, E] -> [R, T, E].

    With ``qk_norm`` each head's queries and keys are normed first, over the head's width.
    """

    def __init__(self, hidden: int, heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.q_norm, self.k_norm = (
            nn.LayerNorm(hidden // heads, _HEAD_NORM_EPS, dtype=torch.float32) if qk_norm else None
            for _ in range(2)
        )
        self.qkv = nn.Linear(hidden, 3 * hidden, dtype=torch.float32)
        self.proj = nn.Linear(hidden, hidden, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        rows, tokens, hidden = x.shape
        q, k, v = self.qkv(x).view(rows, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.q_norm is not None and self.k_norm is not None:
            # Where the products are in lower precision, the norms are not.
            wide = self.q_norm.weight.dtype
            q, k = self.q_norm(q.to(wide)).to(v.dtype), self.k_norm(k.to(wide)).to(v.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(rows, tokens, hidden))


class Mlp(nn.Module):
    """Two linear layers with a tanh GELU between them."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden, inner, dtype=torch.float32)
        self.fc2 = nn.Linear(inner, hidden, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class DiTBlock(nn.Module):
    """Transformer block whose norms are modulated by the conditioning (adaLN-Zero).

    ``forward(x [R, T, E], c [R, E]) -> [R, T, E]``. ``norm_eps`` is that of the second norm, the
    only one that differs between the codes of DiT.
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        mlp_ratio: float = 4.0,
        norm_eps: float = _NORM_EPS,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden, elementwise_affine=False, eps=_NORM_EPS)
        self.attn = Attention(hidden, heads, qk_norm)
        self.norm2 = nn.LayerNorm(hidden, elementwise_affine=False, eps=norm_eps)
        self.mlp = Mlp(hidden, round(hidden * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(
            nn.SiLU(), nn.Linear(hidden, 6 * hidden, dtype=torch.float32)
        )

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            self.adaLN_modulation(c).unsqueeze(1).chunk(6, dim=2)
        )
        # addcmul fuses x * (1 + scale) + shift, and x + gate * y, into one pass each.
        x = torch.addcmul(x, gate1, self.attn(torch.addcmul(shift1, self.norm1(x), 1 + scale1)))
        return torch.addcmul(x, gate2, self.mlp(torch.addcmul(shift2, self.norm2(x), 1 + scale2)))


class FinalLayer(nn.Module):
    """[R, T, E] -> [R, T, patch * patch * channels]."""

    def __init__(self, hidden: int, patch: int, channels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(hidden, elementwise_affine=False, eps=_NORM_EPS)
        self.linear = nn.Linear(hidden, patch * patch * channels, dtype=torch.float32)
        self.adaLN_modulation = nn.Sequential(
            nn.SiLU(), nn.Linear(hidden, 2 * hidden, dtype=torch.float32)
        )

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).unsqueeze(1).chunk(2, dim=2)
        return self.linear(torch.addcmul(shift, self.norm_final(x), 1 + scale))
