"""Tiny pipelines: each runs, repeats itself, calls its network as often as it says, and heeds its
prompts; what is to be refused does what it is refused for."""

import subprocess
import sys
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from free.pipeline.tiny import STEPS, TINY, Tiny
from free.pipeline.tiny.record import network, part

#: Calls of the network in a run, where they are not one a step.
CALLS = {
    "StableDiffusionPipeline": STEPS + 1,
    "StableDiffusionControlNetPipeline": STEPS + 1,
    "StableDiffusionInpaintPipeline": STEPS + 1,
    "FluxPipeline, true guidance": 2 * STEPS,
    "QwenImagePipeline": 2 * STEPS,
    "Lumina2Pipeline": 2 * STEPS,
    "WanPipeline": 2 * STEPS,
    "WanPipeline, a timestep per token": 2 * STEPS,
    "WanPipeline, two experts": 2 * STEPS,
}


def _samples(tiny: Tiny, *seeds: int, **changed: Any) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    samples: torch.Tensor = tiny.pipe(**tiny.arguments | changed, generator=generators)[0]
    return samples


def _count_calls(pipe: Any) -> dict[str, int]:
    """Calls of each denoiser from now on."""
    calls = {}
    for name in ("transformer", "transformer_2", "unet"):
        if (denoiser := getattr(pipe, name, None)) is not None:
            calls[name] = 0

            def count(*_: Any, name: str = name) -> None:
                calls[name] += 1

            denoiser.register_forward_hook(count)
    return calls


@pytest.mark.parametrize("name", TINY)
def test_it_runs_and_repeats_itself(name: str) -> None:
    state = torch.get_rng_state()
    tiny = TINY[name](2)
    assert torch.equal(state, torch.get_rng_state())
    assert type(tiny.pipe).__name__ == name.partition(",")[0]
    assert tiny.note
    calls = _count_calls(tiny.pipe)
    first = _samples(tiny, 1, 2)
    assert sum(calls.values()) == CALLS.get(name, STEPS)
    assert len(first) == 2
    assert first.isfinite().all()
    assert torch.equal(_samples(tiny, 1, 2), first)
    torch.rand(1)  # weights are not drawn from torch's own generator
    assert torch.equal(_samples(TINY[name](2), 1, 2), first)


@pytest.mark.parametrize("name", [name for name in TINY if name != "DDPMPipeline"])
def test_samples_follow_their_prompts(name: str) -> None:
    tiny = TINY[name](3)
    first, second, third = _samples(tiny, 1, 1, 1)
    spread = first.std()
    assert (first - second).std() > 0.005 * spread
    assert (second - third).std() > 0.005 * spread


def test_control_stops_half_way() -> None:
    tiny = TINY["StableDiffusionControlNetPipeline"](2)
    assert not torch.equal(_samples(tiny, 1, 2), _samples(tiny, 1, 2, control_guidance_end=1.0))


def test_what_is_inpainted_keeps_the_rest() -> None:
    tiny = TINY["StableDiffusionInpaintPipeline"](2)
    samples, others = _samples(tiny, 1, 2), _samples(tiny, 3, 4)
    # The picture's latents are drawn, too: what is known differs by the encoder's noise only.
    known, new = (samples - others).abs().split(4, dim=-1)
    assert known.mean() < 0.5 * new.mean()


def test_both_experts_work() -> None:
    tiny = TINY["WanPipeline, two experts"](2)
    calls = _count_calls(tiny.pipe)
    _samples(tiny, 1, 2)
    assert all(calls.values())
    first, second = (getattr(tiny.pipe, name).proj_out.weight for name in calls)
    assert not torch.equal(first, second)


def test_seeds_and_gains_of_networks() -> None:
    size = {"block_out_channels": (8,), "norm_num_groups": 4}
    weights = [
        network("AutoencoderKL", seed, gain, **size).quant_conv.weight
        for seed, gain in ((0, 1.0), (0, 2.0), (1, 1.0))
    ]
    torch.testing.assert_close(weights[1], 2 * weights[0])
    assert not torch.equal(weights[2], weights[0])


def test_a_missing_library_is_named() -> None:
    code = """
import sys
sys.modules |= dict.fromkeys(("transformers", "peft"))  # peft needs transformers
from free.pipeline.tiny import TINY
TINY["DDPMPipeline"](2)
try:
    TINY["SanaPipeline"](2)
except ImportError as error:
    assert "SanaPipeline: pip install 'free-dit[diffusers]' transformers" in str(error), error
else:
    raise AssertionError("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_class_is_named() -> None:
    with pytest.raises(ImportError, match=r"NoPipeline, which \S+ lacks: pip install -U"):
        part("NoPipeline")
