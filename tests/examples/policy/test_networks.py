from pathlib import Path

import pytest
import torch

from examples.policy.networks import Denoiser, PolicyConfig, build, load, save
from tests.examples.policy.conftest import SMALL


def inputs(config: PolicyConfig, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, config.horizon, config.actions, generator=generator)
    t = torch.randint(config.steps, (rows,), generator=generator)
    return x, t, torch.randn(rows, config.history, config.numbers, generator=generator)


@pytest.mark.parametrize("kind", SMALL)
def test_rows_are_independent_and_all_of_a_row_counts(kind: str) -> None:
    torch.manual_seed(0)
    network = build(SMALL[kind]).eval()
    given = inputs(SMALL[kind], 5)
    together = network(*given)
    alone = torch.cat([network(*(value[i : i + 1] for value in given)) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    for which in range(3):
        changed = [value.clone() for value in given]
        changed[which][2] = changed[which][2] + 1
        moved = (network(*changed) - together).abs().amax((1, 2)) > 1e-5
        assert moved.tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("kind", SMALL)
def test_a_file_holds_all_of_a_network(
    kind: str, trained: dict[str, Denoiser], tmp_path: Path
) -> None:
    save(trained[kind], tmp_path / "network.safetensors", updates=120)
    read = load(tmp_path / "network.safetensors")
    assert read.config == SMALL[kind]
    given = inputs(SMALL[kind], 3)
    torch.testing.assert_close(read(*given), trained[kind](*given), rtol=0, atol=0)


def test_onnxruntime_computes_the_same(trained: dict[str, Denoiser], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from examples.policy.engine import on_onnxruntime

    network = trained["transformer"]
    denoise = on_onnxruntime(network, tmp_path, threads=1)
    for rows in (1, 7):
        given = inputs(network.config, rows)
        torch.testing.assert_close(denoise(*given), network(*given), rtol=1e-4, atol=1e-5)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kind must be one of mlp, transformer, got 'unet'"):
        PolicyConfig("unet", 8, 1)
    with pytest.raises(ValueError, match=r"execute must be in 1\.\.16, the horizon, got 17"):
        PolicyConfig("mlp", 8, 1, execute=17)
    with pytest.raises(ValueError, match=r"network must be a file, got .*examples\.policy\.train"):
        load(tmp_path / "missing.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="network must be a policy's file with its config"):
        load(tmp_path / "other.safetensors")
