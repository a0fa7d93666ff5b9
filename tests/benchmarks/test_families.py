"""The exact denoiser of images, and the families that are compared with it."""

import pytest
import torch
from torch import Tensor

from free import SequentialSampler


def _images() -> Tensor:
    return torch.randn(5, 12, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


@pytest.mark.parametrize("velocity", [False, True])
def test_the_denoiser_is_the_score_of_its_mixture(load, velocity: bool) -> None:
    """``score = -eps / noise``; in the middle of two timesteps too."""
    images, t = _images(), torch.tensor([20.0, 400.5, 700.0])
    network = load("kernel_density").KernelDensity(images, 0.2, velocity=velocity)
    x = torch.randn(3, 12, generator=torch.Generator().manual_seed(1)).requires_grad_()
    signal, noise = network._relation(t)
    variance = (signal * 0.2) ** 2 + noise**2
    centres = torch.distributions.Independent(
        torch.distributions.Normal(signal[:, None] * images, variance.sqrt()[:, None]), 1
    )
    law = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=torch.zeros(3, 5)), centres
    )
    (score,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    eps = -noise * score
    expected = eps - (x - noise * eps) / signal if velocity else eps
    with torch.no_grad():
        found = network(x, t, torch.zeros(3)).eps
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    if velocity:
        torch.testing.assert_close(signal + noise, torch.ones(3, 1))
    else:
        torch.testing.assert_close(signal**2 + noise**2, torch.ones(3, 1))


def test_every_family_is_sampled(load) -> None:
    families = load("families")
    network = families.Network(
        "12",
        192,
        lambda family: families.KernelDensity(
            _images(), 0.15, velocity=family.velocity, largest=family.largest
        ),
        1.0,
    )
    for family in families.FAMILIES.values():
        schedule = family.schedule(25)
        assert len(schedule) == 25
        teacher = network.teacher(family)
        samples = SequentialSampler(teacher, schedule).sample([0] * 4).samples
        # Whatever the sampler, little more noise is left around an image than there should be.
        assert teacher.off(samples).max() < 2.5, family.label
    chosen = [families.FAMILIES[name] for name in ("dpm-2-karras", "repa")]
    rows = [families.measure(network, family, 25, 8) for family in chosen]
    rows[0] |= families.quality(network.teacher(chosen[0]), chosen[0], 25, 200)
    assert rows[0]["energy"] < 0.2
    lines = families.table(rows, 8).splitlines()
    assert f"{rows[0]['energy']:.3f} ± " in lines[-1]
    for row, line in zip(rows, lines[5:7], strict=True):
        assert row["steps_a_round"] > 1.2
        assert line.startswith(f"| {row['label']} | {row['steps_a_round']:.1f} (")
