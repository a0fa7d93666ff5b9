"""Training on a GPU is training on the CPU, to the rounding of its precision."""

from functools import partial
from pathlib import Path

import pytest
import torch

from free import DiT, DiTConfig, DrafterNet
from free.training.dataset.sets import ImageSet
from free.training.drafter_score import DrafterEvaluation
from free.training.losses import drafter_loss
from free.training.parallel import Ranks
from free.training.recipe import RECIPES
from free.training.trainer import TrainConfig, train
from tests.networks import randomized
from tests.training.runs import run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CONFIG = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("tf32", 2e-2)])
def test_the_same_weights(tmp_path: Path, precision: str, tolerance: float) -> None:
    ranks = Ranks(device=torch.device("cuda"))
    there, _ = run(tmp_path / "gpu", 12, ranks=ranks, precision=precision, micro_batch=4)
    here, _ = run(tmp_path / "cpu", 12)
    for one, two in zip(there.parameters(), here.parameters(), strict=True):
        torch.testing.assert_close(one.cpu(), two, rtol=0, atol=tolerance)
    run(tmp_path / "gpu", 16, ranks=ranks, precision=precision)  # goes on


@pytest.mark.parametrize("recipe", ["paper", "free"])
def test_a_drafter_with_everything_on(tmp_path: Path, recipe: str) -> None:
    """bfloat16, compiled teacher, recomputed blocks, evaluation."""
    device = torch.device("cuda")
    teacher = randomized(DiT(CONFIG)).eval().requires_grad_(False)
    drafter = DrafterNet(CONFIG, 1)
    drafter.initialize_from(teacher)
    teacher.to(device, torch.bfloat16).compile()
    data = ImageSet(torch.randn(20, 1, 8, 8), torch.arange(20) % 3, 3)
    config = TrainConfig(
        4, 8, precision="bf16", gradient_checkpointing=True, micro_batch=4, evaluate_every=2
    )
    loss = partial(drafter_loss, teacher=teacher, recipe=RECIPES[recipe])
    _, record = train(
        drafter, loss, data, config, tmp_path, ranks=Ranks(device=device), progress=False,
        evaluate=DrafterEvaluation(teacher, 20, images=3, window=4),
    )  # fmt: skip
    assert record["loss"] > 0
    assert record["best"]["parallel_efficiency"] >= 1
