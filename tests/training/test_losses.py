"""What is trained: the noising, the three parts of the drafter's loss, and that they can fall."""

import math

import pytest
import torch
from scipy.stats import norm
from torch import nn

from free import DiT, DiTConfig, DrafterNet, Schedule, TeacherOutput
from free.prediction import eps_from_image
from free.training.losses import ForwardProcess, drafter_loss, smoothness, teacher_loss
from free.training.randomness import RowRandom
from free.training.recipe import Recipe
from tests.networks import randomized

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)
PROCESS = ForwardProcess()
ROWS = range(4)
X0, LABELS = torch.linspace(-1, 1, 4 * 64).view(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])


def test_forward_process_ends() -> None:
    x0, noise = torch.full((2, 1), 3.0), torch.full((2, 1), -1.0)
    noisy = PROCESS(x0, torch.tensor([0, 999]), noise)
    assert noisy[0] == pytest.approx(3 * math.sqrt(1 - 1e-4) - 1e-2, abs=1e-6)
    assert noisy[1] == pytest.approx(-1, abs=0.03)


def test_teacher_loss_is_the_error_of_the_noise_and_drops_labels() -> None:
    seen = []

    class Recorder(nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> TeacherOutput:
            seen.append(y)
            return TeacherOutput(torch.zeros_like(x))

    x0, labels = X0.repeat(500, 1, 1, 1), LABELS.repeat(500)
    loss = teacher_loss(Recorder(), PROCESS, x0, labels, 3, RowRandom(0, 0, range(2000)))["loss"]
    assert loss == pytest.approx(1.0, abs=0.02)  # the mean square of the noise
    dropped = (seen[0] == 3).float().mean()
    assert dropped == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("rollout", [1, 3])
@pytest.mark.parametrize("objective", ["mse", "delta"])
def test_drafter_loss_is_the_sum_of_its_parts(objective: str, rollout: int) -> None:
    teacher, drafter = randomized(DiT(CONFIG)), randomized(DrafterNet(CONFIG), 1)
    parts = drafter_loss(
        drafter, teacher, PROCESS, X0, LABELS, RowRandom(0, 0, ROWS),
        Recipe(50, 0.3, 0.2, objective=objective, rollout=rollout),
    )  # fmt: skip
    total = parts["noise"] + 0.3 * parts["feature"] + 0.2 * parts["smooth"]
    torch.testing.assert_close(parts["loss"], total)
    assert all(value > 0 for name, value in parts.items() if name != "acceptance")


def test_acceptance_is_the_closed_form() -> None:
    """A drafter with a known error has the acceptance of Eq. 40 at its transition."""
    schedule = Schedule.ddpm(3)  # one transition is trained: k + 1 = 1
    signal, later = schedule.signal[:2]
    wrong = 0.001  # in x0

    class OneImage(nn.Module):
        """Predicts one and the same image, whatever it is shown."""

        null_label = 3

        def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> TeacherOutput:
            sqrt_abar = torch.where(t == schedule.timesteps[0], signal, later).float()
            image = torch.full_like(x, 0.3)
            return TeacherOutput(eps_from_image(x, image, sqrt_abar), torch.ones(len(x), 4, 16))

        def label_embedding(self, y: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(y), 16)

    class Off(nn.Module):
        def forward(self, x, z, t, embedding, feature):
            return torch.full_like(x, wrong), feature

    random = RowRandom(0, 0, ROWS)
    recipe = Recipe(3, objective="delta")
    parts = drafter_loss(Off(), OneImage(), PROCESS, X0, LABELS, random, recipe)
    error = wrong * later / math.sqrt(1 - later**2)  # in eps
    delta = abs(schedule.b[1]) / schedule.sigma[1] * error * math.sqrt(64)
    assert 0.1 < parts["acceptance"] < 0.99
    assert parts["acceptance"] == pytest.approx(2 * norm.cdf(-delta / 2), abs=1e-3)
    assert parts["noise"] == pytest.approx(math.log1p(delta), abs=1e-3)
    assert parts["feature"] == parts["smooth"] == 0


def test_rollout_feeds_the_drafter_its_own_output() -> None:
    teacher = randomized(DiT(CONFIG))
    fed, returned = [], []

    class Spy(nn.Module):
        def forward(self, x, z, t, embedding, feature):
            fed.append((t, feature))
            returned.append(feature + 1)
            return torch.zeros_like(x), feature + 1

    schedule = Schedule.ddpm(6)
    random = RowRandom(0, 0, ROWS)
    drafter_loss(Spy(), teacher, PROCESS, X0, LABELS, random, Recipe(6, rollout=3))
    assert len(fed) == 3
    for step in (1, 2):
        torch.testing.assert_close(fed[step][1], returned[step - 1], rtol=0, atol=0)
        assert (fed[step][0] < fed[step - 1][0]).all()
    assert (fed[2][0] >= schedule.timesteps[-2]).all()  # the last transition is never drafted


def test_smoothness_is_relative() -> None:
    a, b = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    torch.testing.assert_close(
        smoothness(a, b, torch.full((2,), 2.0)), smoothness(3 * a, 3 * b, torch.full((2,), 18.0))
    )


def test_training_improves_a_drafter() -> None:
    teacher, drafter = randomized(DiT(CONFIG)), DrafterNet(CONFIG)
    drafter.initialize_from(teacher)
    optimizer = torch.optim.Adam(drafter.parameters(), 3e-3)

    def loss(step: int) -> dict[str, torch.Tensor]:
        random = RowRandom(0, step, ROWS)
        return drafter_loss(drafter, teacher, PROCESS, X0, LABELS, random, Recipe(50))

    def held_out(part: str) -> float:
        return sum(loss(1000 + i)[part].item() for i in range(20))

    before = held_out("noise"), held_out("feature")
    for step in range(200):
        optimizer.zero_grad()
        loss(step)["loss"].backward()
        optimizer.step()
    # A teacher of random weights is rough: its feature can be learned, its noise a little.
    assert held_out("noise") < 0.9 * before[0]
    assert held_out("feature") < 0.6 * before[1]
