"""What is trained: the noising, the three parts of the drafter's loss, and that they can fall.

And that a drafter is shown the same when it is trained as when it drafts.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, norm
from torch import nn

from free import DiT, DiTConfig, DrafterNet, FeatureDrafter, Schedule, TeacherOutput
from free.drafters import DraftingBatch
from free.models.output import TeacherRows
from free.rounds.draft import draft_window
from free.rounds.draft_source import DRAFTER
from free.rounds.state import Samples
from free.schedule.table import Table, eps_from_image, image_from_eps
from free.training.losses import drafter_loss, noised, table_of, teacher_loss
from free.training.randomness import RowRandom
from free.training.recipe import RECIPES, Recipe
from tests.networks import OneImage, randomized
from tests.rows import recalled

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)
TABLE = Table.of(Schedule.ddpm(1000), "cpu")
ROWS = range(4)
X0, LABELS = torch.linspace(-1, 1, 4 * 64).view(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])


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
    teacher_loss(teacher, x0, labels, random, null_label=None)
    assert torch.equal(teacher.asked[2], labels)  # a network without a null class
    # Where t says that there is much signal, x is the image.
    clear = t < 20
    assert clear.any()
    assert (x - x0)[clear].square().mean() < 0.02


def _networks(recipe: Recipe) -> tuple[DiT, DrafterNet]:
    drafter = DrafterNet(CONFIG, recipe.depth, recipe.gate)
    return randomized(DiT(CONFIG)), randomized(drafter, 1)


@pytest.mark.parametrize("name", RECIPES)
def test_losses_are_sums_of_parts_and_means_of_rows(name: str) -> None:
    """So neither the number of ranks nor micro-batches matter. A step down the gradient helps."""
    recipe = dataclasses.replace(
        RECIPES[name], sampling_steps=8, feature_weight=0.3, smooth_weight=0.2
    )
    teacher, drafter = (network.requires_grad_(True) for network in _networks(recipe))

    def loss(rows: range) -> dict[str, torch.Tensor]:
        random, part = RowRandom(0, 3, rows), slice(rows.start, rows.stop)
        return drafter_loss(drafter, X0[part], LABELS[part], random, teacher=teacher, recipe=recipe)

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


class Off(nn.Module):
    """A drafter that is wrong by a constant in x0."""

    error = 0.001

    def forward(self, x, z, t, embedding, feature):
        return torch.full_like(x, self.error), feature


@pytest.mark.parametrize("objective", ["mse", "delta"])
def test_objectives_in_closed_form(objective: str) -> None:
    """A drafter with a known error has the acceptance of Eq. 40 at its transition."""
    schedule = Schedule.ddpm(3)  # one transition is trained: k + 1 = 1
    recipe, random = Recipe(3, objective=objective), RowRandom(0, 0, ROWS)
    teacher = OneImage(schedule)
    parts = drafter_loss(Off(), X0, LABELS, random, teacher=teacher, recipe=recipe)
    later = schedule.signal[1]
    error = Off.error * later / math.sqrt(1 - later**2)  # in eps
    delta = abs(schedule.b[1]) / schedule.sigma[1] * error * math.sqrt(64)
    assert 0.1 < parts["acceptance"] < 0.99
    assert parts["acceptance"] == pytest.approx(2 * norm.cdf(-delta / 2), abs=1e-3)
    expected = {"mse": error**2, "delta": math.log1p(delta)}
    assert parts["noise"] == pytest.approx(expected[objective], rel=5e-3)
    assert parts["feature"] == parts["smooth"] == 0


def test_the_loss_compares_with_the_teacher_at_the_drafted_state() -> None:
    recipe = Recipe(50, label_dropout=0.0)
    teacher, drafter = _networks(recipe)
    random, table = RowRandom(0, 0, ROWS), Table.of(Schedule.ddpm(50), "cpu")
    parts = drafter_loss(drafter, X0, LABELS, RowRandom(0, 0, ROWS), teacher=teacher, recipe=recipe)

    k = random.integers(48)
    random.uniform()  # no label is dropped
    x = noised(table, k, X0, random.normal((1, 8, 8)))
    z = random.normal((1, 8, 8))
    first = teacher(x, table.timesteps[k], LABELS)
    x1 = table.mean(k, x, table.guess(k, x, first.eps)) + table.sigma[k].view(-1, 1, 1, 1) * z
    t = table.timesteps[k + 1]
    second = teacher(x1, t, LABELS)
    change, feature = drafter(x1, z, t, teacher.label_embedding(LABELS), first.feature)
    image = image_from_eps(x, first.eps, table.signal[k]) + change
    error = eps_from_image(x1, image, table.signal[k + 1]) - second.eps
    size = second.feature.square().flatten(1).sum(1)
    wrong, moved = (
        (feature - other).square().flatten(1).sum(1) / size
        for other in (second.feature, first.feature)
    )
    expected = {"noise": error.square(), "feature": wrong, "smooth": moved}
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value.mean(), rtol=1e-4, atol=1e-6, msg=name)


STEPS = 30  # of the schedule that the drafter is trained and drafts by
K = RowRandom(0, 0, ROWS).integers(STEPS - 2)


def _shown_in_training() -> list[torch.Tensor]:
    """What the drafter is given by the loss."""
    inputs: list[torch.Tensor] = []

    def drafter(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs.extend(arguments)
        return torch.zeros_like(arguments[0]), arguments[4]

    random, recipe = RowRandom(0, 0, ROWS), Recipe(STEPS, label_dropout=0.0)
    drafter_loss(drafter, X0, LABELS, random, teacher=_networks(recipe)[0], recipe=recipe)
    return inputs


def _shown_by_the_sampler(sweeps: int | None) -> list[torch.Tensor]:
    """What it is given for the first draft of a window, after a plain transition."""
    (teacher, network), rows, k = _networks(Recipe()), len(ROWS), K
    table = table_of(STEPS, torch.device("cpu"))
    random = RowRandom(0, 0, ROWS)
    random.integers(STEPS - 2), random.uniform()
    x = noised(table, k, X0, random.normal((1, 8, 8)))
    z = random.normal((1, 8, 8))
    out = teacher(x, table.timesteps[k], LABELS)
    following = table.mean(k, x, table.guess(k, x, out.eps)) + table.sigma[k].view(-1, 1, 1, 1) * z
    guess, one = table.guess(k, x, out.eps), torch.ones(rows, dtype=torch.int32)
    past = recalled(TeacherRows(*out, x, k), guess, one, one, 2)
    samples = Samples.begin(LABELS, torch.arange(rows), following, 2)._replace(k=k + 1, past=past)
    drafter = FeatureDrafter(network, teacher)
    drafter = drafter.begin(DraftingBatch(table, None)) or drafter
    inputs: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _, arguments: inputs.extend(arguments))
    own = random.normal((1, 8, 8))[:, None]  # the draft's, which it must not be shown
    how = {"table": table, "sweeps": sweeps, "source": DRAFTER}
    draft_window(drafter, samples, own, one.long(), **how)
    return inputs


@pytest.mark.parametrize("sweeps", [None, 1])
def test_it_is_shown_what_it_is_shown_when_it_drafts(sweeps: int | None) -> None:
    shown, asked = _shown_in_training(), _shown_by_the_sampler(sweeps)
    assert len(asked) == 5
    torch.testing.assert_close(shown, asked, rtol=2e-3, atol=2e-3)


def test_transitions_are_drawn_uniformly() -> None:
    """The last is not drafted, hence neither of the last two is begun at."""
    rows, steps = 20000, 18
    timesteps = torch.tensor(Schedule.ddpm(steps).timesteps)
    teacher, times = OneImage(Schedule.ddpm(steps)), []
    teacher.register_forward_pre_hook(lambda _, arguments: times.append(arguments[1]))
    x0, labels = torch.zeros(rows, 1, 1, 1), torch.zeros(rows, dtype=torch.int64)
    random = RowRandom(0, 0, range(rows))
    drafter_loss(Off(), x0, labels, random, teacher=teacher, recipe=Recipe(steps))
    k, following = ((time[:, None] == timesteps).int().argmax(1) for time in times)
    assert torch.equal(following, k + 1)
    assert (k.min(), k.max()) == (0, steps - 3)
    assert chisquare(np.bincount(k, minlength=steps - 2)).pvalue > 1e-4
