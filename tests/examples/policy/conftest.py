"""A policy that is small, and trained for a moment: its chunks follow the observations."""

from pathlib import Path

import pytest
import torch

from examples.policy.networks import Denoiser, PolicyConfig, save

SMALL = {
    "mlp": PolicyConfig("mlp", width=32, depth=2, horizon=4, execute=3, steps=12),
    "transformer": PolicyConfig(
        "transformer", width=16, depth=1, heads=2, horizon=4, execute=3, steps=12
    ),
}


@pytest.fixture(scope="session")
def trained() -> dict[str, Denoiser]:
    pytest.importorskip("Box2D")
    from examples.policy.demonstrations import record
    from examples.policy.train import train

    demonstrations = record(2, history=2, horizon=4)
    updates = {"mlp": 250, "transformer": 5}  # the law of the first is looked at
    with torch.random.fork_rng():
        return {
            name: train(config, demonstrations, updates[name], batch=64, rate=5e-3)
            for name, config in SMALL.items()
        }


@pytest.fixture
def folder(trained: dict[str, Denoiser], tmp_path: Path) -> Path:
    """The folder that training leaves."""
    for name, network in trained.items():
        save(network, tmp_path / f"{name}.safetensors")
    return tmp_path
