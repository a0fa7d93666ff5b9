"""Training: it learns, it is reproducible, and its settings are checked."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from free import DiTConfig, DrafterNet
from free.training.parallel import Ranks
from free.training.randomness import RowRandom
from free.training.trainer import TrainConfig, train
from tests.training.runs import SIZE, images, loss, losses, network, run


def _same(one: nn.Module, other: nn.Module, tolerance: float = 0.0) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def test_it_learns_and_returns_the_average(tmp_path: Path) -> None:
    average, record = run(tmp_path, 400)
    assert not average.training
    assert record["steps"] == 400
    lines = losses(tmp_path)
    assert lines[0] == "step,epoch,learning_rate,loss,noise,feature"
    assert [line.split(",")[0] for line in lines[1:]] == ["100", "200", "300", "400"]
    first, last = (float(lines[i].split(",")[3]) for i in (1, 4))
    assert last < first / 5
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
    whole, record = run(tmp_path / "whole", 20)
    split, other = run(tmp_path / "split", 20, micro_batch=2)
    _same(split, whole, 1e-5)
    assert other["loss"] == pytest.approx(record["loss"], rel=1e-4)


def test_micro_batches_would_be_caught_drawing_alike(tmp_path: Path) -> None:
    """What each row draws must depend on its place: with the same numbers in every micro-batch the
    result is another.
    """

    def alike(model, x0, labels, random):
        return loss(model, x0, labels, RowRandom(0, random.step, range(len(x0))))

    whole, _ = run(tmp_path / "whole", 20)
    split, _ = train(
        network(), alike, images(), TrainConfig(20, 8, 1e-2, ema_decay=0.9, micro_batch=2),
        tmp_path / "split", progress=False,
    )  # fmt: skip
    with pytest.raises(AssertionError):
        _same(split, whole, 1e-5)


def test_bfloat16_is_of_the_forward_pass_alone(tmp_path: Path) -> None:
    seen = set()

    def spy(model, x0, labels, random):
        parts = loss(model, x0, labels, random)
        seen.add(model(torch.zeros(1, 5)).dtype)
        return parts

    settings = TrainConfig(3, 8, precision="bf16")
    average, _ = train(network(), spy, images(), settings, tmp_path, progress=False)
    assert seen == {torch.bfloat16}
    assert {weight.dtype for weight in average.parameters()} == {torch.float32}

    def evaluate(model, ranks):
        seen.add(torch.is_autocast_enabled("cpu"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "evaluated", 3, precision="bf16", evaluate_every=3, evaluate=evaluate)
    assert seen == {torch.bfloat16, False}
    with pytest.raises(ValueError, match="precision 'tf32' needs a GPU, got device cpu"):
        run(tmp_path / "tf32", 3, precision="tf32")


def test_recomputed_activations_change_nothing(tmp_path: Path) -> None:
    config = DiTConfig(2, 1, 1, 8, 1, 2, num_classes=3, learn_sigma=False)

    def drafter_loss(model, x0, labels, random):
        t, rows = torch.full((len(x0),), 5), torch.zeros(len(x0), 4, 8)
        change, _ = model(x0, random.normal(SIZE), t, torch.zeros(len(x0), 8), rows)
        return {"loss": (change - x0).square().mean()}

    results, calls = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        settings = TrainConfig(3, 8, 1e-2, ema_decay=0.5, gradient_checkpointing=checkpointing)
        drafter, folder = DrafterNet(config), tmp_path / str(checkpointing)
        drafter.blocks[0].attn.register_forward_hook(lambda *_: calls.append(1))
        results.append(train(drafter, drafter_loss, images(), settings, folder, progress=False)[0])
        assert "forward" not in vars(drafter.blocks[0])
        assert len(calls) == (3 + 6 if checkpointing else 3)
    _same(*results)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    def broken(model, x0, labels, random):
        parts = loss(model, x0, labels, random)
        return {"loss": parts["loss"] * (torch.nan if random.step == 12 else 1.0)}

    settings = TrainConfig(30, 8, save_every=10)
    with pytest.raises(FloatingPointError, match="the loss is nan at batch 12"):
        train(network(), broken, images(), settings, tmp_path, progress=False)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 10
    assert all(value.isfinite().all() for value in state["weights"]["model"].values())


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_gradient_that_is_not_finite_leaves_the_checkpoint_before(
    tmp_path: Path, evaluated: bool
) -> None:
    """The loss of the last step before a checkpoint is finite, the weights after it are not."""

    def broken(model, x0, labels, random):
        parts = loss(model, x0, labels, random)
        if random.step == 9:  # its square root is 0, the root's slope infinite
            zero = 0.0 * model[0].weight.sum()
            parts["loss"] = parts["loss"] + (zero * zero).sqrt()
        return parts

    def evaluate(model, ranks):
        raise AssertionError("a network of NaN was evaluated")

    settings = TrainConfig(
        20, 8, 1e-2, ema_decay=0.9, save_every=5, evaluate_every=10 if evaluated else None
    )
    with pytest.raises(FloatingPointError, match="the gradients' length is nan at batch 9, where"):
        train(network(), broken, images(), settings, tmp_path, evaluate=evaluate, progress=False)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 5
    assert all(value.isfinite().all() for value in state["weights"]["model"].values())
    resumed, _ = run(tmp_path, 20, save_every=5)
    whole, _ = run(tmp_path / "whole", 20, save_every=5)
    _same(resumed, whole)


def test_the_folder_says_what_made_it(tmp_path: Path) -> None:
    run(tmp_path, 4, extra={"teacher": "abc"})
    run(tmp_path, 6, extra={"teacher": "abc"})
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["teacher"], config["data"], config["steps"]) == ("abc", {"source": "sines"}, 6)
    assert [start["step"] for start in config["starts"]] == [0, 4]
    for name in ("command", "free", "commit", "torch", "processes"):
        assert name in config["starts"][0]
    assert config["skipped"] == 0
    assert json.loads((tmp_path / "skipped.json").read_text()) == []
    assert config["result"]["loss"] > 0


def test_unreadable_images_are_listed_once(tmp_path: Path) -> None:
    class Skipping:
        def __init__(self, *files: str) -> None:
            self.own, self.record, self.num_classes = images(), {}, 3
            self.skipped = [{"file": file, "reason": "no image"} for file in files]

        def __len__(self) -> int:
            return 50

        def batch(self, *arguments):
            return self.own.batch(*arguments)

    for steps, files in ((2, ["a", "b"]), (4, ["b", "c"])):
        train(network(), loss, Skipping(*files), TrainConfig(steps, 8), tmp_path, progress=False)
    listed = json.loads((tmp_path / "skipped.json").read_text())
    assert [one["file"] for one in listed] == ["a", "b", "c"]
    assert json.loads((tmp_path / "config.json").read_text())["skipped"] == 3


def test_the_progress_of_a_file_is_not_written_with_every_line_of_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(network(), loss, images(), TrainConfig(60, 8, log_every=1), tmp_path)
    shown = capsys.readouterr().err
    assert "60/60" in shown
    assert "images/s" in shown
    assert shown.count("batch/s") + shown.count("s/batch") < 5


def test_batches_that_do_not_divide(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="micro_batch must divide batch_size, 8, got 3"):
        run(tmp_path, 2, micro_batch=3)
    with pytest.raises(ValueError, match="multiple of the number of processes, 3, got 8"):
        run(tmp_path, 2, ranks=Ranks(0, 3))
    assert not (tmp_path / "config.json").exists()


def test_models_that_cannot_be_trained(tmp_path: Path) -> None:
    for model, came in ((network().half(), "float16"), (network().requires_grad_(False), "none")):
        with pytest.raises(ValueError, match=f"model must have trainable weights, .*{came}"):
            train(model, loss, images(), TrainConfig(1, 8), tmp_path, progress=False)


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
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive and finite, got nan"),
        ({"learning_rate": float("inf")}, "learning_rate must be positive and finite, got inf"),
        ({"steps": 10, "warmup": 10, "decay": "cosine"}, "warmup must be less than the 10 steps"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\)"),
        ({"decay": "linear"}, "decay must be 'constant' or 'cosine'"),
        ({"precision": "fp8"}, "precision must be 'fp32', 'tf32' or 'bf16', got 'fp8'"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
        ({"micro_batch": 0}, "micro_batch must be at least 1, got 0"),
        ({"evaluate_every": 0}, "evaluate_every must be at least 1, got 0"),
    ],
)
def test_settings_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{"steps": 1, **settings})
