"""Graphs are as their contracts describe them; what they compute, tests/engines compares."""

import dataclasses

import pytest
import torch

from free import DiT
from free.engines.torch import TorchSession
from free.export.package import graphs_of
from tests.exports import small_model


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


def test_times_of_a_velocity_are_fractions() -> None:
    """The second half of the channels is no output."""
    model = small_model(prediction="velocity", reversed_time=True)
    for graph, contract in graphs_of(*model, 3, 2, max_batch=2):
        session, sizes = TorchSession(graph, contract), contract.corners()[-1]
        inputs = contract.sample_inputs(sizes)
        assert inputs["t"].is_floating_point()
        assert 0 < inputs["t"].min() < inputs["t"].max() < 1
        outputs = session.run(inputs)
        assert "variance" not in outputs
        assert all(value.isfinite().all() and value.std() > 0.01 for value in outputs.values())
        with pytest.raises(ValueError, match=f"t of {contract.graph} must be float32 .* got int64"):
            session.run(inputs | {"t": inputs["t"].long()})


def test_profiles_cover_what_the_sampler_calls() -> None:
    """B samples of W rows."""
    axes = {c.graph: c.axes for _, c in graphs_of(*small_model(), 4, 2, max_batch=3)}
    assert axes["teacher"]["rows"].maximum == 12
    assert axes["drafter"]["rows"].maximum >= 2 * 3 * 3
    draft = {axis: (p.minimum, p.optimum, p.maximum) for axis, p in axes["draft"].items()}
    assert draft == {"batch": (1, 1, 3), "rows": (1, 4, 12), "asked": (1, 3, 9)}


def test_no_guided_graphs_without_a_null_class() -> None:
    teacher = DiT(dataclasses.replace(small_model()[0].config, null_class=False))
    graphs = graphs_of(teacher, None, 2, None, 1)
    assert [contract.graph for _, contract in graphs] == ["teacher"]
    labels = next(spec for spec in graphs[0][1].inputs if spec.name == "y")
    assert labels.high == teacher.num_classes
