"""What is trained: the noising, the three parts of the drafter's loss, and that they can fall."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, norm
from torch import nn

from free import DiT, DiTConfig, DrafterNet, Schedule, TeacherOutput
from free.models.guidance import Guidance
from free.schedule.table import Table, eps_from_image
from free.training.losses import drafter_loss, first_transitions, noised, smoothness, teacher_loss
from free.training.randomness import RowRandom
from free.training.recipe import REJECTIONS, Recipe
from free.training.rollout import Rollout, in_turn, prediction_of
from tests.networks import randomized

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)
TABLE = Table.of(Schedule.ddpm(1000), "cpu")
ROWS = range(4)
X0, LABELS = torch.linspace(-1, 1, 4 * 64).view(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])


def test_noising_at_its_ends() -> None:
    x0, noise = torch.full((2, 1), 3.0), torch.full((2, 1), -1.0)
    noisy = noised(TABLE, torch.tensor([999, 0]), x0, noise)
    assert noisy[0] == pytest.approx(3 * math.sqrt(1 - 1e-4) - 1e-2, abs=1e-6)
    assert noisy[1] == pytest.approx(-1, abs=0.03)


class Zero(nn.Module):
    """A teacher that predicts no noise, and keeps what it was asked."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> TeacherOutput:
        self.asked = x, t, y
        return TeacherOutput(torch.zeros_like(x))


def test_teacher_loss_is_the_error_of_the_noise_and_drops_labels() -> None:
    x0, labels, teacher = X0.repeat(500, 1, 1, 1), LABELS.repeat(500), Zero()
    random = RowRandom(0, 0, range(2000))
    loss = teacher_loss(teacher, x0, labels, random, null_label=3)["loss"]
    assert loss == pytest.approx(1.0, abs=0.02)  # the mean square of the noise
    x, t, y = teacher.asked
    assert (y == 3).float().mean() == pytest.approx(0.1, abs=0.03)
    # Where t says that there is much signal, x is the image.
    clear = t < 20
    assert clear.any()
    assert (x - x0)[clear].square().mean() < 0.02


#: Every option, away from its default, and all of them.
OPTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "unit stride": {"stride": "unit", "objective": "delta"},
    "guided": {"guidance": 1.5, "times": "rejections", "objective": "delta_squared"},
    "teacher's states": {"rollout": 3},
    "own states": {"rollout": 3, "fed": "own", "gate": True},
    "one sweep": {"rollout": 3, "fed": "sweeps"},
    "all": {
        "rollout": 3, "fed": "sweeps", "sweeps": 2, "guidance": 1.5, "times": "rejections",
        "objective": "delta", "gate": True,
    },
}  # fmt: skip


def _networks() -> tuple[DiT, DrafterNet]:
    return randomized(DiT(CONFIG)), randomized(DrafterNet(CONFIG), 1)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_losses_are_sums_of_parts_and_means_of_rows(options: dict[str, Any]) -> None:
    """So neither the number of ranks nor micro-batches matter. Some rows reach the last steps,
    where there are fewer drafts. A step down the gradient helps.
    """
    recipe, step = Recipe(8, 0.3, 0.2, **options), 3
    teacher = randomized(DiT(CONFIG)).requires_grad_(True)
    drafter = randomized(DrafterNet(CONFIG, recipe.depth, recipe.gate), 1).requires_grad_(True)

    def loss(rows: range) -> dict[str, torch.Tensor]:
        random, part = RowRandom(0, step, rows), slice(rows.start, rows.stop)
        return drafter_loss(drafter, X0[part], LABELS[part], random, teacher=teacher, recipe=recipe)

    k = first_transitions(recipe, 8, RowRandom(0, step, ROWS))
    assert recipe.rollout == 1 or len((k + recipe.rollout).clamp(max=6).unique()) > 1
    whole, halves = loss(ROWS), (loss(range(2)), loss(range(2, 4)))
    total = whole["noise"] + 0.3 * whole["feature"] + 0.2 * whole["smooth"]
    torch.testing.assert_close(whole["loss"], total)
    for name, value in whole.items():
        assert value > 0 or name == "acceptance"
        mean = (halves[0][name] + halves[1][name]) / 2
        torch.testing.assert_close(mean, value, rtol=1e-5, atol=1e-6, msg=name)
    whole["loss"].backward()
    for weight in drafter.parameters():
        assert weight.grad.abs().sum() > 0
        weight.data -= 1e-4 * weight.grad / weight.grad.norm()
    assert loss(ROWS)["loss"] < whole["loss"]
    assert all(weight.grad is None for weight in teacher.parameters())


class OneImage(nn.Module):
    """A teacher that predicts one and the same image, whatever it is shown."""

    null_label = 3

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.signal = torch.zeros(1000)
        self.signal[torch.tensor(schedule.timesteps)] = torch.tensor(schedule.signal).float()

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> TeacherOutput:
        eps = eps_from_image(x, torch.full_like(x, 0.3), self.signal[t])
        return TeacherOutput(eps, torch.ones(len(x), 4, 16))

    def label_embedding(self, y: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(y), 16)


class Off(nn.Module):
    """A drafter that is wrong by a constant in x0."""

    error = 0.001

    def forward(self, x, z, t, embedding, feature):
        return torch.full_like(x, self.error), feature


@pytest.mark.parametrize(
    ("objective", "guidance"), [("mse", 1.0), ("mse", 1.5), ("delta", 1.5), ("delta_squared", 1.0)]
)
def test_objectives_in_closed_form(objective: str, guidance: float) -> None:
    """A drafter with a known error has the acceptance of Eq. 40 at its transition."""
    schedule = Schedule.ddpm(3)  # one transition is trained: k + 1 = 1
    recipe, random = Recipe(3, objective=objective, guidance=guidance), RowRandom(0, 0, ROWS)
    teacher = OneImage(schedule)
    parts = drafter_loss(Off(), X0, LABELS, random, teacher=teacher, recipe=recipe)
    later = schedule.signal[1]
    error = Off.error * later / math.sqrt(1 - later**2)  # in eps
    delta = abs(schedule.b[1]) / schedule.sigma[1] * error * math.sqrt(64)
    assert 0.1 < parts["acceptance"] < 0.99
    assert parts["acceptance"] == pytest.approx(2 * norm.cdf(-delta / 2), abs=1e-3)
    expected = {"mse": error**2, "delta": math.log1p(delta), "delta_squared": delta**2}
    assert parts["noise"] == pytest.approx(expected[objective], rel=2e-3)
    assert parts["feature"] == parts["smooth"] == 0


def test_windows_end_with_the_schedule() -> None:
    """Two of four transitions are drafted. Errors add up along a window, so what a row's loss is
    the mean of can be told from it.
    """
    schedule = Schedule.ddpm(4)
    recipe = Recipe(4, objective="delta_squared", rollout=2, fed="sweeps")
    n = np.sqrt(1 - schedule.signal**2)
    unit = np.square(schedule.b * schedule.signal / n / schedule.sigma.clip(1e-9)) * 64 * 1e-6
    for row in range(20):
        random = RowRandom(0, row, range(1))
        k = first_transitions(recipe, 4, RowRandom(0, row, range(1))).item()
        teacher = OneImage(schedule)
        parts = drafter_loss(Off(), X0[:1], LABELS[:1], random, teacher=teacher, recipe=recipe)
        expected = [(unit[1] + 4 * unit[2]) / 2, unit[2]][k]
        assert parts["noise"].item() == pytest.approx(expected, rel=5e-3)


def test_guided_loss_is_the_error_of_the_combination() -> None:
    """No label is dropped; features of both halves, relative to the size of both together."""
    teacher, drafter = _networks()
    recipe, random = Recipe(50, guidance=2.5), RowRandom(0, 0, ROWS)
    parts = drafter_loss(drafter, X0, LABELS, RowRandom(0, 0, ROWS), teacher=teacher, recipe=recipe)
    prediction = prediction_of(50, torch.device("cpu"))
    table = prediction.table
    k = random.integers(48)
    random.uniform()
    x = noised(table, k, X0, random.normal((1, 8, 8)))
    z, guidance = random.normal((1, 8, 8))[:, None], Guidance(2.5, None, 3)
    rollout = Rollout(drafter, teacher, prediction, guidance, x=x, k=k, y=LABELS, noise=z)
    x1, image, feature, _, eps, taught = (part[:, 0] for part in in_turn(rollout))
    error = eps_from_image(x1, image, table.signal[k + 1]) - eps
    torch.testing.assert_close(parts["noise"], error.square().mean(), rtol=1e-4, atol=1e-6)
    wrong, size = (part.square().flatten(1).sum(1) for part in (feature - taught, taught))
    torch.testing.assert_close(parts["feature"], (wrong / size).mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("stride", "steps"), [("sampling", {20, 21}), ("unit", {1})])
def test_the_stride(stride: str, steps: set[int]) -> None:
    """Between the two passes lies one of 50 transitions of the schedule, or one timestep."""
    teacher, drafter = _networks()
    times: list[torch.Tensor] = []
    teacher.register_forward_pre_hook(lambda _, arguments: times.append(arguments[1]))
    recipe = Recipe(50, stride=stride)
    drafter_loss(drafter, X0, LABELS, RowRandom(0, 0, ROWS), teacher=teacher, recipe=recipe)
    assert set((times[0] - times[1]).tolist()) <= steps


def test_times() -> None:
    """Half of the rows are uniform, the others are where drafts are rejected."""
    rows, steps = 40000, 66  # 64 transitions are drafted: 4 in most sixteenths of the run
    uniform = first_transitions(Recipe(steps), steps, RowRandom(0, 0, range(rows)))
    recipe = Recipe(steps, times="rejections")
    often = first_transitions(recipe, steps, RowRandom(0, 0, range(rows)))
    part = [(k + 1) * 16 // steps for k in range(64)]
    weight = np.array([REJECTIONS[p] for p in part])
    density = 0.5 / 64 + 0.5 * weight / weight.sum()
    for drawn, expected in ((uniform, np.full(64, 1 / 64)), (often, density)):
        assert (drawn.min(), drawn.max()) == (0, 63)
        counts = np.bincount(drawn, minlength=64)
        assert chisquare(counts, rows * expected).pvalue > 1e-4
    # What is asked for is told from what is not.
    assert chisquare(np.bincount(often, minlength=64), np.full(64, rows / 64)).pvalue < 1e-12


def test_smoothness_is_relative() -> None:
    a, b = torch.randn(2, 1, 4, 3), torch.randn(2, 1, 4, 3)
    torch.testing.assert_close(
        smoothness(a, b, torch.full((2, 1), 2.0)),
        smoothness(3 * a, 3 * b, torch.full((2, 1), 18.0)),
    )


def test_training_improves_a_drafter() -> None:
    teacher, drafter = randomized(DiT(CONFIG)), DrafterNet(CONFIG)
    drafter.initialize_from(teacher)
    optimizer = torch.optim.Adam(drafter.parameters(), 3e-3)

    def loss(step: int) -> dict[str, torch.Tensor]:
        random = RowRandom(0, step, ROWS)
        return drafter_loss(drafter, X0, LABELS, random, teacher=teacher, recipe=Recipe(50))

    @torch.no_grad()
    def held_out() -> tuple[float, float]:
        results = [loss(1000 + i) for i in range(10)]
        noise, feature = (sum(one[part].item() for one in results) for part in ("noise", "feature"))
        return noise, feature

    before = held_out()
    for step in range(100):
        optimizer.zero_grad()
        loss(step)["loss"].backward()
        optimizer.step()
    # A teacher of random weights is rough: its feature can be learned, its noise a little.
    after = held_out()
    assert after[0] < 0.9 * before[0]
    assert after[1] < 0.6 * before[1]
