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
