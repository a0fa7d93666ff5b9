"""The forward pass of DiT in float64 NumPy, written from the paper and the names of its weights."""

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor


def numpy_dit(
    state: Mapping[str, Tensor],
    heads: int,
    x: np.ndarray,
    t: float,
    y: int,
    divisor: int = 128,
    norm_eps: float = 1e-6,
) -> np.ndarray:
    """One image ``x [C, H, H]`` through the DiT that a state dict in the original layout describes.

    Returns all the output channels. ``norm_eps`` is that of the norm before each MLP. Heads whose
    queries and keys have weights of a norm are normed, as timm does it.
    """
    w = {name: value.double().numpy() for name, value in state.items()}
    hidden, _, patch, _ = w["x_embedder.proj.weight"].shape
    depth = sum(name.endswith("mlp.fc1.bias") for name in w)
    grid = x.shape[1] // patch

    def linear(v: np.ndarray, name: str) -> np.ndarray:
        return v @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def silu(v: np.ndarray) -> np.ndarray:
        return v / (1 + np.exp(-v))

    def norm(v: np.ndarray, eps: float = 1e-6) -> np.ndarray:
        centred = v - v.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)

    def head_norm(v: np.ndarray, name: str) -> np.ndarray:
        if f"{name}.weight" not in w:
            return v
        return norm(v, 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    squares = x.reshape(len(x), grid, patch, grid, patch)
    tokens = np.einsum("cipjq,hcpq->ijh", squares, w["x_embedder.proj.weight"])
    h = tokens.reshape(-1, hidden) + w["x_embedder.proj.bias"] + w["pos_embed"][0]

    frequencies = np.exp(-math.log(1e4) * np.arange(128) / divisor)
    embedding = np.concatenate([np.cos(t * frequencies), np.sin(t * frequencies)])
    c = linear(silu(linear(embedding, "t_embedder.mlp.0")), "t_embedder.mlp.2")
    c = silu(c + w["y_embedder.embedding_table.weight"][y])

    for block in range(depth):
        name = f"blocks.{block}"
        s1, g1, a1, s2, g2, a2 = np.split(linear(c, f"{name}.adaLN_modulation.1"), 6)
        q, k, v = np.split(linear(norm(h) * (1 + g1) + s1, f"{name}.attn.qkv"), 3, axis=1)
        mixed = np.empty_like(h)
        for head in range(heads):
            part = slice(head * hidden // heads, (head + 1) * hidden // heads)
            own_q, own_k = (
                head_norm(rows[:, part], f"{name}.attn.{one}_norm")
                for rows, one in ((q, "q"), (k, "k"))
            )
            score = own_q @ own_k.T / math.sqrt(hidden // heads)
            weight = np.exp(score - score.max(1, keepdims=True))
            mixed[:, part] = weight / weight.sum(1, keepdims=True) @ v[:, part]
        h = h + a1 * linear(mixed, f"{name}.attn.proj")
        inner = linear(norm(h, norm_eps) * (1 + g2) + s2, f"{name}.mlp.fc1")
        inner = inner / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        h = h + a2 * linear(inner, f"{name}.mlp.fc2")

    shift, scale = np.split(linear(c, "final_layer.adaLN_modulation.1"), 2)
    out = linear(norm(h) * (1 + scale) + shift, "final_layer.linear")
    squares = out.reshape(grid, grid, patch, patch, -1)
    return squares.transpose(4, 0, 2, 1, 3).reshape(-1, *x.shape[1:])
