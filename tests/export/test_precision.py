"""Lower precision is where it was meant to be, and nowhere else."""

import pytest
import torch

from free.engines.networks import EngineDrafter
from free.export.package import torch_engine
from free.export.parity import TOLERANCE
from free.export.precision import lower
from free.models.guidance import Guidance
from free.models.layers import DiTBlock
from tests.exports import small_model

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.square().mean().sqrt())


@pytest.mark.parametrize(("precision", "modulation"), [("fp16", True), ("bf16", False)])
def test_only_the_blocks_products_are_lower(precision: str, modulation: bool) -> None:
    teacher, drafter = small_model()
    blocks = ("blocks.0", "blocks.1")
    for network in (teacher, drafter.network):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        assert lower(network, "fp32") is not network
        low = lower(network, precision, modulation)
        layers = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
        layers += ["adaLN_modulation.1"] if modulation else []
        parts = ("weight", "bias")
        expected = {f"{b}.{layer}.{part}" for b in blocks for layer in layers for part in parts}
        dtypes = {name: value.dtype for name, value in low.state_dict().items()}
        assert {n for n, d in dtypes.items() if d is not torch.float32} == expected
        assert {dtypes[name] for name in expected} == {DTYPES[precision]}
        # The original is untouched, and shares nothing with the copy.
        assert not any(p.dtype is not torch.float32 for p in network.parameters())
        for name, value in low.state_dict().items():
            value.zero_()
            torch.testing.assert_close(network.state_dict()[name], before[name], rtol=0, atol=0)


def test_the_state_between_blocks_stays_float32() -> None:
    teacher = lower(small_model()[0], "bf16")
    seen = []
    for block in teacher.modules():
        if isinstance(block, DiTBlock):
            for added in (block.attn, block.mlp):
                added.register_forward_hook(lambda _, given, out: seen.append(out))
            block.register_forward_hook(lambda _, given, out: seen.extend([*given, out]))
            for norm in (block.norm1, block.norm2):
                norm.register_forward_hook(lambda _, given, out: seen.extend([*given, out]))
    teacher(torch.randn(2, 2, 4, 4), torch.tensor([3, 700]), torch.tensor([1, 2]))
    assert [value.dtype for value in seen] == [torch.float32] * 9 * 2  # blocks


@pytest.mark.parametrize("precision", DTYPES)
def test_lowered_graphs_agree_with_float32(precision: str) -> None:
    """And give float32: every one of them, at the corners of its profile."""
    teacher, drafter = small_model()
    sessions = []
    for setting in ("fp32", precision):
        engine, drafts = torch_engine(teacher, drafter, 3, 1, max_batch=2, precision=setting)
        assert isinstance(drafts, EngineDrafter)
        sessions.append(engine.sessions | drafts.sessions)
    exact, low = sessions
    worst = 0.0
    for name, session in low.items():
        for sizes in session.contract.corners():
            inputs = session.contract.sample_inputs(sizes)
            outputs, expected = session.run(inputs), exact[name].run(inputs)
            for output, value in outputs.items():
                assert value.dtype is torch.float32
                worst = max(worst, relative(value, expected[output]))
    # Measured over seeds: fp16 up to 0.01, bf16 up to 0.06, both under guidance.
    assert TOLERANCE[precision] / 10 < worst < TOLERANCE[precision]


def test_a_drafter_of_its_own_precision_leaves_the_teacher_alone() -> None:
    teacher, drafter = small_model()
    exact, plain = torch_engine(teacher, drafter, 2, 1)
    mixed, low = torch_engine(teacher, drafter, 2, 1, drafter_precision="bf16")
    assert isinstance(low, EngineDrafter)
    assert isinstance(plain, EngineDrafter)
    x, t, y = torch.randn(2, 2, 4, 4), torch.tensor([3, 700]), torch.tensor([1, 2])
    torch.testing.assert_close(mixed(x, t, y).eps, exact(x, t, y).eps, rtol=0, atol=0)
    guided = Guidance(2.0, None, teacher.null_label)
    torch.testing.assert_close(
        mixed.guided(guided)(x, t, y).eps, exact.guided(guided)(x, t, y).eps, rtol=0, atol=0
    )
    inputs = low.sessions["drafter"].contract.sample_inputs({"rows": 2})
    change = low.sessions["drafter"].run(inputs)["change"]
    assert 1e-4 < relative(change, plain.sessions["drafter"].run(inputs)["change"]) < 1e-1
