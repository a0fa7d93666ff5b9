"""Evaluation while training: figures, sharing among ranks, and the best that is kept."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from free import DiT, DiTConfig, DrafterNet, FeatureDrafter, Schedule, SpeculativeSampler
from free.training import trainer
from free.training.drafter_score import DrafterEvaluation
from free.training.evaluations import publish_best, stage_best
from free.training.parallel import Ranks
from free.training.trainer import TrainConfig, train
from tests.networks import randomized
from tests.training.runs import images

CONFIG = DiTConfig(2, 1, 1, 8, 1, 2, num_classes=3, learn_sigma=False)


@pytest.fixture(scope="module")
def networks() -> tuple[DiT, DrafterNet]:
    return randomized(DiT(CONFIG)).eval(), randomized(DrafterNet(CONFIG), 1).eval()


def test_it_is_what_the_sampler_reports(networks: tuple[DiT, DrafterNet]) -> None:
    teacher, drafter = networks
    evaluation = DrafterEvaluation(
        teacher, 12, images=5, window=4, batch_size=2, seed=7,
        recommended={"window": 6, "sweeps": 1, "recycle": True},
    )  # fmt: skip
    found = evaluation(drafter, Ranks())
    sampler = SpeculativeSampler(
        teacher, FeatureDrafter(drafter, teacher), Schedule.ddpm(12), 4, cfg_scale=1.5
    )
    report = sampler.sample([0, 1, 2, 0, 1], seed=7).report
    assert found["parallel_efficiency"] == pytest.approx(report.parallel_efficiency)
    assert found["acceptance"] == pytest.approx(
        sum(report.accepted_by_step) / sum(report.examined_by_step)
    )
    for got, expected in zip(found["acceptance_by_step"], report.acceptance_by_step, strict=True):
        assert (got is None and math.isnan(expected)) or got == pytest.approx(expected)
    assert len(found["delta_by_position"]) == len(found["acceptance_by_position"]) == 3
    assert found["recommended_efficiency"] > 1
    assert (found["images"], found["window"], found["cfg_scale"]) == (5, 4, 1.5)


class _Shared(Ranks):
    """One of two ranks that run one after the other: sums wait for the other's."""

    def __init__(self, rank: int, sums: list[torch.Tensor]) -> None:
        super().__init__(rank, 2)
        object.__setattr__(self, "sums", sums)

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        self.sums.append(value.clone())
        return value


def test_ranks_share_the_images(networks: tuple[DiT, DrafterNet]) -> None:
    """What two ranks add up is what one counts."""
    teacher, drafter = networks
    evaluation = DrafterEvaluation(teacher, 8, images=5, window=3)
    each: list[list[torch.Tensor]] = [[], [], []]
    for rank, sums in enumerate(each[:2]):
        evaluation(drafter, _Shared(rank, sums))
    one = _Shared(0, each[2])
    object.__setattr__(one, "world", 1)
    evaluation(drafter, one)
    for first, second, whole in zip(*each, strict=True):
        torch.testing.assert_close(first + second, whole)
    assert each[0][0].sum() > 0
    assert each[1][0].sum() > 0


def test_few_images_are_spread_over_many_classes() -> None:
    teacher = DiT(DiTConfig(2, 1, 1, 8, 1, 2, num_classes=100, learn_sigma=False))
    assert [DrafterEvaluation(teacher, images=4)._label(i) for i in range(4)] == [0, 25, 50, 75]
    assert [DrafterEvaluation(teacher, images=200)._label(i) for i in (0, 99, 100)] == [0, 99, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": 0}, "images must be at least 1, got 0"),
        ({"window": 1}, "window must be at least 2, got 1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"steps": 2}, "steps must be at least 3, got 2"),
        ({"cfg_scale": math.nan}, "cfg_scale must be finite and >= 0, got nan"),
        ({"cfg_scale": math.inf}, "cfg_scale must be finite and >= 0, got inf"),
        ({"cfg_channels": 0}, "cfg_channels must be an integer >= 1 or None, got 0"),
        ({"cfg_channels": 2}, "cfg_channels must be at most the 1 of a state, got 2"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DrafterEvaluation(DiT(CONFIG), **settings)


def _drafter_loss(model, x0, labels, random) -> dict[str, torch.Tensor]:
    t, rows = torch.full((len(x0),), 5), torch.zeros(len(x0), 4, 8)
    change, _ = model(x0, random.normal((1, 2, 2)), t, torch.zeros(len(x0), 8), rows)
    return {"loss": (change - x0).square().mean()}


def _train(folder: Path, steps: int, figures: dict[int, float], stop: int = 0) -> dict[str, Any]:
    """Figures by the number of the evaluation; None stops the run there."""
    calls = len(list_found(folder))

    def evaluate(model, ranks) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise KeyboardInterrupt
        return {"parallel_efficiency": figures[calls], "delta_by_position": [0.5, None]}

    torch.manual_seed(0)
    config = TrainConfig(steps, 8, 1e-2, ema_decay=0.5, save_every=100, evaluate_every=2)
    return train(DrafterNet(CONFIG), _drafter_loss, images(), config, folder, evaluate=evaluate,
                 progress=False)[1]  # fmt: skip


def list_found(folder: Path) -> list[dict[str, Any]]:
    path = folder / "evaluations.json"
    return json.loads(path.read_text()) if path.exists() else []


def test_the_best_is_kept(tmp_path: Path) -> None:
    record = _train(tmp_path, 7, {1: 1.5, 2: 2.5, 3: 2.5, 4: 2.0})
    assert [one["step"] for one in list_found(tmp_path)] == [2, 4, 6, 7]
    assert (record["best"]["step"], record["best"]["parallel_efficiency"]) == (4, 2.5)
    best = json.loads((tmp_path / "best" / "config.json").read_text())
    assert best["training"]["evaluation"]["step"] == 4
    network = DrafterNet.from_pretrained(tmp_path / "best")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    kept = network.state_dict()
    assert any(
        not torch.equal(kept[name], value) for name, value in state["weights"]["average"].items()
        if name in kept
    )  # fmt: skip
    with (tmp_path / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["parallel_efficiency"] for row in rows] == ["1.5", "2.5", "2.5", "2.0"]
    assert rows[0]["delta_by_position_1"] == "0.5"


def test_evaluations_survive_being_stopped(tmp_path: Path) -> None:
    """An evaluation makes a checkpoint: none is made twice, and the best so far is known."""
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, 6, {1: 2.0, 2: 9.0}, stop=2)
    record = _train(tmp_path, 6, {2: 1.0, 3: 1.5})
    assert [one["step"] for one in list_found(tmp_path)] == [2, 4, 6]
    assert record["best"]["step"] == 2
    best = json.loads((tmp_path / "best" / "config.json").read_text())
    assert best["training"]["evaluation"]["step"] == 2


def test_only_evaluations_of_the_last_settings_are_compared(tmp_path: Path) -> None:
    """A wider window is not a better drafter; nor is an older one of settings given up since."""

    def evaluate(window: int, figure: float):
        return lambda model, ranks: {"parallel_efficiency": figure, "window": window}

    def best() -> int:
        return json.loads((tmp_path / "best" / "config.json").read_text())["training"][
            "evaluation"]["step"]  # fmt: skip

    for step, window, figure in ((1, 16, 5.0), (2, 4, 1.5), (3, 16, 4.0), (4, 16, 3.0)):
        torch.manual_seed(0)
        config = TrainConfig(step, 8, 1e-2, ema_decay=0.5, evaluate_every=1)
        _, record = train(DrafterNet(CONFIG), _drafter_loss, images(), config, tmp_path,
                          evaluate=evaluate(window, figure), progress=False)  # fmt: skip
        expected = min(step, 3)
        assert (record["best"]["step"], best()) == (expected, expected)


def test_an_evaluation_that_fails_costs_no_steps(tmp_path: Path) -> None:
    """There is a checkpoint of the step; the same command evaluates there and then goes on."""
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, 6, {}, stop=1)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 2
    _train(tmp_path, 6, {1: 2.0, 2: 1.0, 3: 1.5})
    assert [one["step"] for one in list_found(tmp_path)] == [2, 4, 6]


@pytest.mark.parametrize("written", [False, True])
def test_the_best_is_one_that_the_checkpoint_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    """Killed between the evaluation and the end of its checkpoint, or just after it; then the run
    goes on without evaluations.
    """
    real, calls = trainer.write_checkpoint, 0

    def killed(folder: Path, state: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls == 4 and not written:  # before and after each evaluation: this is the second's
            raise KeyboardInterrupt
        real(folder, state)
        if calls == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "write_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, 6, {1: 1.0, 2: 2.0, 3: 1.5})
    monkeypatch.undo()
    torch.manual_seed(0)
    config = TrainConfig(5, 8, 1e-2, ema_decay=0.5)
    _, record = train(DrafterNet(CONFIG), _drafter_loss, images(), config, tmp_path, progress=False)
    best = json.loads((tmp_path / "best" / "config.json").read_text())
    expected = 4 if written else 2
    assert record["best"]["step"] == best["training"]["evaluation"]["step"] == expected
    assert [one["step"] for one in list_found(tmp_path)] == [2, 4][: 1 + written]
    assert not list(tmp_path.glob(".best*"))


def test_the_best_is_whole_whenever_it_is_killed(tmp_path: Path) -> None:
    def write(text: str, then: type[BaseException] | None = None) -> Callable[[Path], None]:
        def save(path: Path) -> None:
            path.mkdir()
            (path / "x").write_text(text)
            if then is not None:
                raise then

        return save

    def best() -> str:
        assert [path.name for path in tmp_path.iterdir()] == ["best"]
        return (tmp_path / "best" / "x").read_text()

    stage_best(tmp_path, 1, write("first"))
    publish_best(tmp_path, 1)
    assert best() == "first"
    with pytest.raises(KeyboardInterrupt):
        stage_best(tmp_path, 2, write("half", KeyboardInterrupt))
    publish_best(tmp_path, 1)
    assert best() == "first"
    stage_best(tmp_path, 2, write("second"))
    (tmp_path / "best").rename(tmp_path / ".best-old")  # between the two renames
    publish_best(tmp_path, 2)
    assert best() == "second"
