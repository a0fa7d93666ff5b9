"""torch as an engine."""

import pytest
import torch
from torch import Tensor, nn

from free.engines.interface import Contract, Profile, TensorSpec
from free.engines.torch import TorchSession
from free.export.package import graphs_of, torch_engine
from tests.exports import close, small_model


class Scale(nn.Module):
    """The smallest graph."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.weight * x, t + 1


CONTRACT = Contract(
    "scale",
    (TensorSpec("x", "float32", ("rows",)), TensorSpec("t", "int64", ("rows",), 0, 5)),
    (TensorSpec("y", "float32", ("rows",)), TensorSpec("u", "int64", ("rows",))),
    {"rows": Profile(1, 2, 4)},
)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_outputs_by_name(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    # Compiling takes many seconds; what it makes of graphs is a slow test.
    monkeypatch.setattr(torch, "compile", lambda graph: compiled.append(graph) or graph)
    session = TorchSession(Scale(), CONTRACT, mode)
    assert len(compiled) == (mode == "compiled")
    for rows in (1, 3, 2):
        x, t = torch.randn(rows), torch.arange(rows)
        outputs = session.run({"t": t, "x": x})
        assert list(outputs) == ["y", "u"]
        close(outputs["y"], 3 * x)
        assert torch.equal(outputs["u"], t + 1)
        assert not outputs["y"].requires_grad
    assert session.device == torch.device("cpu")
    with pytest.raises(ValueError, match=r"rows of scale must be in 1..4, as it .* got 5: export"):
        session.run({"x": torch.zeros(5), "t": torch.zeros(5).long()})


def test_modes() -> None:
    with pytest.raises(ValueError, match="mode must be one of eager, compiled, graphed, got 'jit'"):
        TorchSession(Scale(), CONTRACT, "jit")
    with pytest.raises(ValueError, match="mode graphed must run on cuda, got cpu"):
        TorchSession(Scale(), CONTRACT, "graphed")
    teacher, drafter = small_model()
    with pytest.raises(ValueError, match="mode graphed must run on cuda, got cpu"):
        torch_engine(teacher, drafter, 2, mode="graphed")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_compiled_graphs() -> None:
    teacher, drafter = small_model()
    for graph, contract in graphs_of(teacher, drafter, 2, 1, 2, (True,)):
        eager, compiled = TorchSession(graph, contract), TorchSession(graph, contract, "compiled")
        for sizes in contract.corners():
            inputs = contract.sample_inputs(sizes)
            expected = eager.run(inputs)
            for name, value in compiled.run(inputs).items():
                close(value, expected[name], 1e-4)
