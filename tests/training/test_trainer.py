"""Training: it learns, it survives being killed, and it refuses to mix runs."""

from pathlib import Path

import pytest
import torch
from torch import nn

from free.training.randomness import RowRandom
from free.training.trainer import TrainConfig, train


def _loss(model: nn.Module, random: RowRandom) -> dict[str, torch.Tensor]:
    x = random.normal((3,))
    return {"loss": (model(x) - x.sum(1, keepdim=True)).square().mean()}


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def test_it_learns_and_returns_the_average(tmp_path: Path) -> None:
    model = _model()
    config = TrainConfig(600, learning_rate=1e-2, ema_decay=0.9)
    average, record = train(model, _loss, config, tmp_path, progress=False)
    torch.testing.assert_close(average.weight, torch.ones(1, 3), rtol=0, atol=1e-2)
    assert not average.training
    assert record["steps"] == 600
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 6


class KilledError(Exception):
    pass


@pytest.mark.parametrize("decay", ["constant", "cosine"])
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path: Path, decay: str) -> None:
    config = TrainConfig(20, learning_rate=1e-2, warmup=3, decay=decay, save_every=5)
    whole, _ = train(_model(), _loss, config, tmp_path / "whole", progress=False)
    calls = 0

    def fragile(model: nn.Module, random: RowRandom) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 13:
            raise KilledError
        return _loss(model, random)

    with pytest.raises(KilledError):
        train(_model(), fragile, config, tmp_path / "killed", progress=False)
    resumed, _ = train(_model(), fragile, config, tmp_path / "killed", progress=False)
    assert calls == 13 + 10  # batches 11 and 12 were lost, nothing else
    torch.testing.assert_close(resumed.weight, whole.weight, rtol=0, atol=0)


def test_other_settings_do_not_continue_a_run(tmp_path: Path) -> None:
    train(_model(), _loss, TrainConfig(2), tmp_path, progress=False)
    with pytest.raises(ValueError, match="folder must be empty or hold a run of the same settings"):
        train(_model(), _loss, TrainConfig(3), tmp_path, progress=False)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    def loss(model: nn.Module, random: RowRandom) -> dict[str, torch.Tensor]:
        return {"loss": model(torch.full((1, 3), torch.nan)).sum()}

    with pytest.raises(FloatingPointError, match="the loss is nan at batch 0"):
        train(_model(), loss, TrainConfig(2), tmp_path, progress=False)


def test_rates() -> None:
    config = TrainConfig(110, learning_rate=1.0, warmup=10, decay="cosine")
    assert config.rate(0) == pytest.approx(0.1)
    assert config.rate(9) == 1.0
    assert config.rate(60) == pytest.approx(0.505)
    assert config.rate(110) == pytest.approx(0.01)
    assert TrainConfig(10).rate(9) == 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\)"),
        ({"decay": "linear"}, "decay must be 'constant' or 'cosine'"),
        ({"precision": "fp8"}, "precision must be 'fp32' or 'bf16'"),
    ],
)
def test_settings_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{"steps": 1, **settings})
