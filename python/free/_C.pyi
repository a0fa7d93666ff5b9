"""Compiled core. Tensors are DLPack capsules; :mod:`free.ops` is the checked door to it."""

from typing import Any

def verify_window(
    verifier: str,
    states: Any,
    draft_means: Any,
    target_means: Any,
    sigma: Any,
    length: Any,
    uniforms: Any,
    noise: Any,
    state: Any,
    advance: Any,
    accepted: Any,
    log_ratio: Any,
) -> None: ...
def verify_window_relaxed(
    rule: str,
    strength: float,
    budget: float,
    states: Any,
    draft_means: Any,
    target_means: Any,
    sigma: Any,
    length: Any,
    uniforms: Any,
    noise: Any,
    uncertainty: Any,
    spent: Any,
    state: Any,
    advance: Any,
    accepted: Any,
    log_ratio: Any,
    bound: Any,
    log_likelihood: Any,
) -> None: ...
def roll_window(
    x: Any, guess: Any, noise: Any, a: Any, b: Any, sigma: Any, states: Any, means: Any
) -> None: ...
def philox_normal(seeds: Any, transition: Any, round: Any, purpose: int, out: Any) -> None: ...
def philox_uniform(seeds: Any, transition: Any, round: Any, purpose: int, out: Any) -> None: ...
def build_info() -> dict[str, Any]: ...
def cuda_devices() -> dict[str, Any]: ...
def cuda_verify_workspace(batch: int, width: int, size: int) -> int: ...
def cuda_verify_window(
    verifier: str,
    states: Any,
    draft_means: Any,
    target_means: Any,
    sigma: Any,
    length: Any,
    uniforms: Any,
    noise: Any,
    state: Any,
    advance: Any,
    accepted: Any,
    log_ratio: Any,
    workspace: Any,
    *,
    stream: int,
) -> None: ...
def cuda_verify_window_relaxed(
    rule: str,
    strength: float,
    budget: float,
    states: Any,
    draft_means: Any,
    target_means: Any,
    sigma: Any,
    length: Any,
    uniforms: Any,
    noise: Any,
    uncertainty: Any,
    spent: Any,
    state: Any,
    advance: Any,
    accepted: Any,
    log_ratio: Any,
    bound: Any,
    log_likelihood: Any,
    workspace: Any,
    *,
    stream: int,
) -> None: ...
def cuda_roll_window(
    x: Any,
    guess: Any,
    noise: Any,
    a: Any,
    b: Any,
    sigma: Any,
    states: Any,
    means: Any,
    *,
    stream: int,
) -> None: ...
def cuda_target_means(
    cfg_scale: float | None,
    cfg_channels: int | None,
    x: Any,
    eps: Any,
    a: Any,
    b: Any,
    combined: Any,
    means: Any,
    *,
    stream: int,
) -> None: ...
def cuda_philox_normal(
    seeds: Any, transition: Any, round: Any, purpose: int, out: Any, *, stream: int
) -> None: ...
def cuda_philox_uniform(
    seeds: Any, transition: Any, round: Any, purpose: int, out: Any, *, stream: int
) -> None: ...
def cuda_recycled_rows(
    discarded: bool,
    stride: int,
    length: Any,
    advance: Any,
    row: Any,
    known: Any,
    *,
    stream: int,
) -> None: ...
