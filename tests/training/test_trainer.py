"""Training: it learns, it is reproducible, and its settings are checked."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from free import DrafterNet
from free.training.randomness import RowRandom
from tests.training.runs import (
    SHAPE,
    drafter_loss,
    images,
    loss,
    losses,
    network,
    run,
    skipping,
    state,
)


def _same(one: nn.Module, other: nn.Module, tolerance: float = 0.0) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def test_it_learns_and_returns_the_average(tmp_path: Path) -> None:
    average, record = run(tmp_path, 160, log_every=40)
    assert not average.training
    assert record["steps"] == 160
    lines = losses(tmp_path)
    assert [*lines[0]] == ["step", "epoch", "learning_rate", "loss", "noise", "feature"]
    assert [line["step"] for line in lines] == ["40", "80", "120", "160"]
    last = float(lines[3]["loss"])
    assert last < float(lines[0]["loss"]) / 5
    assert record["loss"] == pytest.approx(last)


def test_the_record_has_the_settings_and_not_what_became_of_them(tmp_path: Path) -> None:
    """The rate of the last batch, a hundredth with cosine decay, is not the run's."""
    for _ in range(2):  # a finished run says the same
        _, record = run(tmp_path, 20, decay="cosine", log_every=5)
        assert record["learning_rate"] == 1e-2
        assert record.keys() >= {"loss", "noise", "feature", "seconds"}
        assert not record.keys() & {"step", "epoch", "images_per_second"}
        stored = json.loads((tmp_path / "config.json").read_text())
        assert stored["result"]["learning_rate"] == stored["learning_rate"] == 1e-2


def test_it_is_adamw_with_an_average_from_the_first_weights(tmp_path: Path) -> None:
    """By hand: the same steps, one after the other."""
    model, data = network(), images()
    average = [weight.detach().clone() for weight in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.0)
    for step in range(7):
        x0, labels = data.batch(0, step, range(8), 8)
        optimizer.zero_grad()
        loss(model, x0, labels, RowRandom(0, step, range(8)))["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for old, new in zip(average, model.parameters(), strict=True):
            old.copy_(0.9 * old + 0.1 * new.detach())
    result, _ = run(tmp_path, 7)
    for expected, got in zip(average, result.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_micro_batches_change_nothing_but_rounding(tmp_path: Path) -> None:
    """Of gradients about 1 long: some are clipped, and a step shows their length."""

    def gentle(*arguments):
        return {"loss": 0.3 * loss(*arguments)["loss"]}

    whole, record = run(tmp_path / "whole", 20, loss=gentle)
    split, other = run(tmp_path / "split", 20, loss=gentle, micro_batch=2)
    _same(split, whole, 1e-5)
    assert other["loss"] == pytest.approx(record["loss"], rel=1e-4)


def test_recomputed_activations_change_nothing(tmp_path: Path) -> None:
    results, calls = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        drafter, folder = DrafterNet(SHAPE), tmp_path / str(checkpointing)
        drafter.blocks[0].attn.register_forward_hook(lambda *_: calls.append(1))
        average, _ = run(folder, 3, drafter, drafter_loss, gradient_checkpointing=checkpointing)
        results.append(average)
        assert "forward" not in vars(drafter.blocks[0])
        assert len(calls) == (3 + 6 if checkpointing else 3)
    _same(*results)


@pytest.mark.parametrize(
    ("broken", "evaluate_every", "message"),
    [
        ("loss", None, "the loss is nan at batch 8"),
        ("gradient", None, "the gradients' length is nan at batch 9, where"),
        ("gradient", 10, "the gradients' length is nan at batch 9, where"),
    ],
)
def test_what_is_not_finite_leaves_the_checkpoint_before(
    tmp_path: Path, broken: str, evaluate_every: int | None, message: str
) -> None:
    """Also where the loss before a checkpoint is finite, and the weights after it are not."""

    def loss_that_breaks(model, x0, labels, random):
        parts = loss(model, x0, labels, random)
        if broken == "loss" and random.step == 8:
            parts["loss"] = parts["loss"] * torch.nan
        if broken == "gradient" and random.step == 9:  # a square root of 0, its slope infinite
            zero = 0.0 * model[0].weight.sum()
            parts["loss"] = parts["loss"] + (zero * zero).sqrt()
        return parts

    def evaluate(model, ranks):
        raise AssertionError("a network of NaN was evaluated")

    with pytest.raises(FloatingPointError, match=message):
        run(tmp_path, 20, loss=loss_that_breaks, save_every=5, evaluate=evaluate,
            evaluate_every=evaluate_every)  # fmt: skip
    checkpoint = state(tmp_path)
    assert checkpoint["step"] == 5
    assert all(value.isfinite().all() for value in checkpoint["weights"]["model"].values())
    resumed, _ = run(tmp_path, 20, save_every=5)
    whole, _ = run(tmp_path / "whole", 20, save_every=5)
    _same(resumed, whole)


def test_the_folder_says_what_went_into_it(tmp_path: Path) -> None:
    for steps, files in ((4, ["a", "b"]), (6, ["b", "c"])):
        run(tmp_path, steps, data=skipping(*files), extra={"teacher": "abc"})
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["teacher"], config["data"], config["steps"]) == ("abc", {"source": "sines"}, 6)
    assert [start["step"] for start in config["starts"]] == [0, 4]
    for name in ("command", "free", "commit", "torch", "processes"):
        assert name in config["starts"][0]
    assert config["starts"][0]["precision"] == "fp32: as asked for"
    assert config["result"]["loss"] > 0
    assert config["skipped"] == 3
    skipped = json.loads((tmp_path / "skipped.json").read_text())
    assert [entry["file"] for entry in skipped] == ["a", "b", "c"]


def test_the_progress_of_a_file_is_not_written_with_every_line_of_the_log(tmp_path, capsys) -> None:
    run(tmp_path, 60, log_every=1, progress=True)
    shown = capsys.readouterr().err
    assert all(part in shown for part in ("60/60", "images/s"))
    assert shown.count("batch/s") + shown.count("s/batch") < 5


def test_what_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="micro_batch must divide batch_size, 8, got 3"):
        run(tmp_path, 2, micro_batch=3)
    for model, came in ((network().half(), "float16"), (network().requires_grad_(False), "none")):
        with pytest.raises(ValueError, match=f"model must have trainable weights, .*{came}"):
            run(tmp_path, 1, model)
    assert not (tmp_path / "config.json").exists()
