"""Graphs compute what the networks do, and their contracts describe them."""

from __future__ import annotations

import pytest
import torch

from free import Schedule
from free.drafters import DraftingBatch
from free.engines.torch import TorchSession
from free.export.graphs import DrafterStep, Teacher
from free.export.package import graphs_of
from free.models.guidance import Guidance, GuidedTeacher
from free.schedule.table import Table
from tests.exports import close, small_model

SCALE = torch.tensor([3.0, 1.0])  # one channel of two is guided


def guidance(null_label: int) -> Guidance:
    return Guidance(3.0, 1, null_label)


def rows(count: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States, timesteps, and labels up to the null class."""
    return torch.randn(count, 2, 4, 4), torch.arange(count) * 249, torch.arange(16 - count, 16)


@pytest.mark.parametrize("learn_sigma", [False, True])
@torch.no_grad()
def test_teachers(learn_sigma: bool) -> None:
    network, _ = small_model(learn_sigma)
    states = rows()
    guided_teacher = GuidedTeacher(network, guidance(network.null_label))
    for args, expected in (((), network(*states)), ((SCALE,), guided_teacher(*states))):
        out = Teacher(network)(*states, *args)
        assert len(out) == (3 if learn_sigma else 2)
        for got, wanted in zip(out, expected, strict=False):
            assert got.dtype is torch.float32
            assert got.abs().max() > 0.1
            close(got, wanted)
        assert expected.variance is None or out[2].shape == (5, 2, 4, 4)


@pytest.mark.parametrize("guided", [False, True])
@torch.no_grad()
def test_a_step_is_the_drafters(guided: bool) -> None:
    network, drafter = small_model()
    drafter.begin(DraftingBatch(Table.of(Schedule.ddpm(10), "cpu"), None))
    x, t, y = rows()
    pair = (2,) if guided else ()
    feature = torch.randn(5, *pair, 4, 16)
    step = DrafterStep(drafter.network, network)
    out = step(x, x.flip(0), t, y, feature, *([SCALE] if guided else []))
    setting = guidance(network.null_label) if guided else None
    for got, wanted in zip(out, drafter.step(x, x.flip(0), t, y, feature, setting), strict=True):
        assert got.abs().max() > 0.01
        close(got, wanted)
    assert step.labels is network.y_embedder  # the table is the teacher's own


@pytest.mark.parametrize(
    ("window", "sweeps", "learn_sigma"),
    [(1, None, True), (2, None, False), (4, None, True), (2, 1, True), (4, 3, False)],
)
def test_contracts_fit_their_graphs(window: int, sweeps: int | None, learn_sigma: bool) -> None:
    graphs = graphs_of(*small_model(learn_sigma), window, sweeps, max_batch=2)
    names = [contract.graph for _, contract in graphs]
    kinds = ["teacher", "drafter", "draft"][: 3 if window > 1 else 2]
    assert names == kinds + [f"{kind}_guided" for kind in kinds]
    for graph, contract in graphs:
        session = TorchSession(graph, contract)
        for sizes in contract.corners():
            outputs = session.run(contract.sample_inputs(sizes))
            expected = contract.empty_outputs(sizes, torch.device("cpu"))
            assert outputs.keys() == expected.keys()
            for name, value in outputs.items():
                assert value.shape == expected[name].shape
                assert value.dtype is expected[name].dtype
                assert value.isfinite().all()
                assert value.std() > 0.01


def test_profiles_cover_what_the_sampler_calls() -> None:
    """B samples of W rows."""
    axes = {c.graph: c.axes for _, c in graphs_of(*small_model(), 4, 2, max_batch=3)}
    assert axes["teacher"]["rows"].maximum == 12
    assert axes["drafter"]["rows"].maximum >= 2 * 3 * 3
    draft = {axis: (p.minimum, p.optimum, p.maximum) for axis, p in axes["draft"].items()}
    assert draft == {"batch": (1, 1, 3), "rows": (1, 4, 12), "asked": (1, 3, 9)}


def test_guided_or_not_or_no_drafter() -> None:
    teacher, drafter = small_model()
    for guided, ending in ((False, ""), (True, "_guided")):
        names = [c.graph for _, c in graphs_of(teacher, drafter, 2, None, 1, (guided,))]
        assert names == [f"teacher{ending}", f"drafter{ending}", f"draft{ending}"]
        names = [c.graph for _, c in graphs_of(teacher, None, 2, None, 1, (guided,))]
        assert names == [f"teacher{ending}"]
