"""Networks that are compiled, quantised or wrapped."""

from pathlib import Path

import pytest
import torch

from free import DiT, Schedule, SpeculativeSampler
from free.models.adopt import adopt_transformer
from free.models.checkpoints import FORMATS
from free.models.wrappers import plain_state, unwrap
from tests.models.checkpoints.files import CONFIG, same_weights
from tests.networks import randomized


def network() -> DiT:
    return randomized(DiT(CONFIG))


def compiled(module: torch.nn.Module) -> torch.nn.Module:
    return torch.compile(module, backend="eager")


def quantised() -> DiT:
    from torch.ao.quantization import quantize_dynamic

    return quantize_dynamic(network(), {torch.nn.Linear})


@pytest.mark.filterwarnings("ignore:.*quantiz")
def test_a_quantised_teacher_draws_and_cannot_be_saved(tmp_path: Path) -> None:
    teacher, plain = quantised(), network()
    inputs = torch.randn(2, 3, 8, 8), torch.tensor([3, 900]), torch.tensor([1, 5])
    eps, expected = teacher(*inputs).eps, plain(*inputs).eps
    assert not torch.equal(eps, expected)
    assert (eps - expected).norm() < 0.1 * expected.norm()
    sampler = SpeculativeSampler(teacher, "frozen", Schedule.ddpm(4), window=2, cfg_scale=1.5)
    assert sampler.sample([0, 1]).samples.isfinite().all()
    with pytest.raises(ValueError, match=r"network must have plain .* got t_embedder.mlp.0.zero_p"):
        teacher.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_compiled_network_is_saved_as_what_it_was(tmp_path: Path, form: str) -> None:
    teacher = network()
    teacher.blocks[1] = compiled(teacher.blocks[1])
    assert any("_orig_mod" in name for name in teacher.state_dict())
    compiled(teacher).save_pretrained(tmp_path, form)
    assert same_weights(DiT.from_pretrained(tmp_path, heads=4, constants="original"), network())


def test_wrappers_are_taken_off() -> None:
    plain = network()
    assert unwrap(compiled(torch.nn.DataParallel(compiled(plain)))) is plain
    assert unwrap(plain) is plain
    assert plain_state(torch.nn.DataParallel(plain)).keys() == plain.state_dict().keys()


def test_a_compiled_network_of_diffusers_is_adopted() -> None:
    diffusers = pytest.importorskip("diffusers")
    reference = diffusers.DiTTransformer2DModel(2, 8, 4, 4, 2, sample_size=4, num_embeds_ada_norm=5)
    adopted = adopt_transformer(reference)
    assert same_weights(adopt_transformer(compiled(reference)), adopted)
    reference.transformer_blocks[0] = compiled(reference.transformer_blocks[0])
    assert same_weights(adopt_transformer(reference), adopted)
    reference.requires_grad_(False).proj_out_1.weight.data = torch.zeros(32, 16, dtype=torch.int8)
    with pytest.raises(
        ValueError, match="transformer must have plain floating-point weights, got proj_out_1"
    ):
        adopt_transformer(reference)
