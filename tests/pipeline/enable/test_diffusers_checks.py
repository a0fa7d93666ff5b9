"""What diffusers checks of its own pipelines, while they are enabled.

Three pipelines: a U-Net with both branches in one batch, a transformer, and one that asks its
network twice a step. An enabled pipeline has a law of its own, so what is compared are two of its
own calls with the same generators.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers

import free
from free.pipeline.tiny import REFUSED, TINY
from tests.pipeline.enable.pipelines import SD, SD3, denoiser, enabled, law_for, seeded, tiny

FLUX = "FluxPipeline, true guidance"
THREE = pytest.mark.parametrize("name", [SD, SD3, FLUX])


def _draw(pipe: Any, arguments: dict[str, Any], *seeds: int) -> Tensor:
    return torch.as_tensor(pipe(**arguments, generator=seeded(*(seeds or (0,))))[0], device="cpu")


def _close(one: Tensor, other: Tensor) -> bool:
    scale = float(other.float().abs().max())
    return torch.allclose(one.float(), other.float(), atol=1e-3 * scale, rtol=0)


#: So many prompts that arguments without a batch axis seem to have one.
MANY = {FLUX: 6, "FluxPipeline": 6, "HunyuanDiTPipeline": 8}


@pytest.mark.parametrize("name", sorted(TINY.keys() - REFUSED - {"DDPMPipeline"}))
def test_a_batch_is_its_prompts_one_by_one(name: str) -> None:
    prompts = MANY.get(name, 3)
    pipe, arguments = enabled(name, prompts, steps=8)
    together = _draw(pipe, arguments, *range(prompts))
    last = {key: _one(value, prompts - 1, prompts) for key, value in arguments.items()}
    alone = _draw(pipe, last, prompts - 1)
    assert len(alone) == 1
    assert _close(alone, together[-1:])
    assert not _close(alone, together[:1])


def _one(value: Any, place: int, prompts: int) -> Any:
    several = isinstance(value, (Tensor, list)) and len(value) == prompts
    return value[place : place + 1] if several else value


@pytest.mark.parametrize("name", [SD, "PixArtSigmaPipeline", "Flux2Pipeline"])
def test_images_of_a_prompt_are_so_many_prompts(name: str) -> None:
    pipe, arguments = enabled(name, 2)
    several = _draw(pipe, arguments | {"num_images_per_prompt": 2}, 1, 2, 3, 4)
    repeated = {
        key: value.repeat_interleave(2, 0) if isinstance(value, Tensor) else value
        for key, value in arguments.items()
    }
    assert several.shape[0] == 4
    assert _close(several, _draw(pipe, repeated, 1, 2, 3, 4))


@THREE
def test_without_guidance(name: str) -> None:
    pipe, arguments = enabled(name)
    scale = "true_cfg_scale" if name == FLUX else "guidance_scale"
    drawn = _draw(pipe, arguments | {scale: 1.0})
    assert free.summary(pipe).rounds < 12
    assert not _close(drawn, _draw(pipe, arguments))


@THREE
def test_guidance_that_a_callback_raises_is_refused(name: str) -> None:
    """diffusers does so for dynamic guidance; here it would be another law."""
    pipe, arguments = enabled(name)

    def callback(pipe: Any, step: int, timestep: Tensor, given: dict[str, Tensor]) -> Any:
        if name == FLUX:  # which keeps its scale in a variable
            given["prompt_embeds"] = given["prompt_embeds"] + 0.1
        else:
            pipe._guidance_scale += 1.0
        return given

    inputs = ["latents", "prompt_embeds"]
    with pytest.raises(ValueError, match="must not change|must make its prediction"):
        pipe(
            **arguments,
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=inputs,
        )


@THREE
def test_calls_of_other_shapes(name: str) -> None:
    pipe, arguments = enabled(name)
    first = _draw(pipe, arguments)
    small = _draw(pipe, arguments | {"height": 32, "width": 48, "num_inference_steps": 7})
    assert free.summary(pipe).steps == 7
    assert small.shape != first.shape
    single = {key: _one(value, 0, 2) for key, value in arguments.items()}
    assert len(_draw(pipe, single)) == 1
    assert torch.equal(_draw(pipe, arguments), first)


@THREE
def test_half_precision(name: str) -> None:
    dtype = torch.float16
    pipe, arguments = enabled(name, steps=8)
    whole = _draw(pipe, arguments)
    denoiser(pipe).to(dtype)
    half = {key: _cast(value, dtype) for key, value in arguments.items()}
    drawn = _draw(pipe, half)
    assert drawn.dtype == dtype
    assert (drawn.float() - whole).norm() < 0.05 * whole.norm()
    assert free.summary(pipe).rounds < 8


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


@THREE
def test_saved_while_enabled(name: str, tmp_path: Path) -> None:
    pipe, arguments = enabled(name)
    pipe.save_pretrained(tmp_path)
    absent = [key for key, part in pipe.components.items() if part is None]
    loaded = type(pipe).from_pretrained(tmp_path, **dict.fromkeys(absent))
    loaded.set_progress_bar_config(disable=True)
    plain, _ = tiny(name)
    assert type(loaded.scheduler) is type(plain.scheduler)
    assert torch.equal(_draw(loaded, arguments), _draw(plain, arguments))
    free.enable(loaded, 4, law=law_for(loaded))
    assert torch.equal(_draw(loaded, arguments), _draw(pipe, arguments))


def _offload_model(pipe: Any) -> None:
    pytest.importorskip("accelerate")
    pipe.enable_model_cpu_offload(device="cpu")


def _offload_groups(pipe: Any) -> None:
    cpu = torch.device("cpu")
    pipe.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")


def _slice_attention(pipe: Any) -> None:
    pipe.enable_attention_slicing()


def _fuse_projections(pipe: Any) -> None:
    denoiser(pipe).fuse_qkv_projections()


def _move(pipe: Any) -> None:
    pipe.to("cpu")
    denoiser(pipe).to(memory_format=torch.channels_last)
    pipe.remove_all_hooks()  # accelerate's


def _lora(pipe: Any) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    denoiser(pipe).add_adapter(
        peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )


def _lora_fused(pipe: Any) -> None:
    _lora(pipe)
    denoiser(pipe).fuse_lora()


CHANGES = (
    _offload_model,
    _offload_groups,
    _slice_attention,
    _fuse_projections,
    _move,
    _lora,
    _lora_fused,
)


@THREE
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_done_to_an_enabled_pipeline(change: Any, name: str) -> None:
    """It has the effect that it has on a pipeline that is enabled afterwards."""
    pipe, arguments = enabled(name, 1, steps=8)
    before = _draw(pipe, arguments)
    change(pipe)
    drawn = _draw(pipe, arguments)
    assert _close(drawn, before) == (change not in (_lora, _lora_fused))
    other, _ = tiny(name, 1, steps=8)
    change(other)
    free.enable(other, 4, law=law_for(other))
    assert _close(drawn, _draw(other, arguments))


@THREE
def test_in_inference_mode(name: str) -> None:
    pipe, arguments = enabled(name)
    drawn = _draw(pipe, arguments)
    with torch.inference_mode():
        assert torch.equal(_draw(pipe, arguments), drawn)


def test_noise_levels_that_a_call_brings() -> None:
    levels = [1.0, 0.9, 0.7, 0.4, 0.2]
    pipe, arguments = enabled(SD3)
    arguments |= {"num_inference_steps": len(levels), "sigmas": levels}
    drawn = _draw(pipe, arguments)
    summary = free.summary(pipe)
    assert summary.steps == len(levels)
    shift = pipe.scheduler.config.shift
    table = free.Schedule.flow("renoise", sigmas=levels, shift=shift)
    free.enable(pipe, 4, law=table)
    assert _close(_draw(pipe, arguments), drawn)


def _first_block(network: nn.Module) -> None:
    diffusers.hooks.apply_first_block_cache(network, diffusers.FirstBlockCacheConfig(0.1))


def _broadcast(network: nn.Module) -> None:
    config = diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(0, 1000),
        current_timestep_callback=lambda: 500,
    )
    diffusers.hooks.apply_pyramid_attention_broadcast(network, config)


def _taylor(network: nn.Module) -> None:
    diffusers.hooks.apply_taylorseer_cache(network, diffusers.TaylorSeerCacheConfig())


@pytest.mark.parametrize(
    ("cache", "hook"),
    [
        (_first_block, "FBCHeadBlockHook"),
        (_broadcast, "PyramidAttentionBroadcastHook"),
        (_taylor, "TaylorSeerCacheHook"),
    ],
)
def test_hooks_that_keep_something_from_call_to_call_are_refused(cache: Any, hook: str) -> None:
    """Also those that were not put in by the network's ``enable_cache``."""
    pipe, arguments = enabled(FLUX)
    cache(pipe.transformer)
    with pytest.raises(ValueError, match=f"FluxTransformer2DModel must not cache.*got {hook}"):
        pipe(**arguments)


@pytest.mark.parametrize(
    ("name", "argument", "alike", "value"),
    [
        ("Lumina2Pipeline", "cfg_trunc_ratio", 1.0, 0.5),
        ("ZImagePipeline", "cfg_truncation", 1.0, 0.95),
        (SD3, "skip_guidance_layers", None, [0]),
        ("CogVideoXPipeline", "use_dynamic_cfg", False, True),
        ("StableDiffusionXLPipeline", "denoising_end", None, 0.5),
    ],
)
def test_guidance_on_a_part_of_the_steps_is_refused_by_name(
    name: str, argument: str, alike: Any, value: Any
) -> None:
    """The count of rounds may never come to where it is switched: nothing else would tell."""
    pipe, arguments = enabled(name)
    drawn = _draw(pipe, arguments)
    assert torch.equal(_draw(pipe, arguments | {argument: alike}), drawn)
    with pytest.raises(
        ValueError, match=rf"^{argument} must be {alike} for an enabled {name}.*free\.disable"
    ):
        pipe(**arguments | {argument: value})
