"""Tiny pipelines of videos."""

from typing import Any

from free.pipeline.tiny.record import (
    TOKENS,
    WIDTH,
    Tiny,
    absent,
    guided,
    masked,
    network,
    part,
    tiny,
)

_PARTS = absent("vae", "text_encoder", "tokenizer")


def _wan_network(seed: int = 0) -> Any:
    return network(
        "WanTransformer3DModel",
        seed,
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=WIDTH,
        freq_dim=WIDTH,
        ffn_dim=32,
        num_layers=1,
    )


def _wan(note: str, prompts: int, **parts: Any) -> Tiny:
    scheduler = part(
        "UniPCMultistepScheduler",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=3.0,
    )
    pipe = part("WanPipeline", transformer=_wan_network(), scheduler=scheduler, **_PARTS, **parts)
    return tiny(
        pipe, note, **guided(prompts), height=32, width=32, num_frames=5, guidance_scale=5.0
    )


def wan(prompts: int = 2) -> Tiny:
    """Wan 2.1."""
    return _wan("two calls a step; reads scheduler.sigmas[i]; latents [B, C, F, H, W]", prompts)


def wan_token_timesteps(prompts: int = 2) -> Tiny:
    """Wan 2.2, the small model of pictures and videos: a timestep for each token."""
    note = "two calls a step; reads scheduler.sigmas[i]; timesteps [B, tokens]"
    return _wan(note, prompts, expand_timesteps=True)


def wan_experts(prompts: int = 2) -> Tiny:
    """Wan 2.2 with two networks, one for noisy steps and one for the others: to be refused."""
    note = "refuse: transformer_2 takes over at boundary_ratio"
    second = _wan_network(seed=1)
    return _wan(note, prompts, transformer_2=second, boundary_ratio=0.875)


def ltx(prompts: int = 2) -> Tiny:
    """LTX-Video."""
    transformer = network(
        "LTXVideoTransformer3DModel",
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
        num_layers=1,
    )
    scheduler = part(
        "FlowMatchEulerDiscreteScheduler",
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        shift_terminal=0.1,
    )
    pipe = part("LTXPipeline", transformer=transformer, scheduler=scheduler, **_PARTS)
    return tiny(
        pipe,
        "packed latents; sizes as numbers; one batch under cache_context",
        **masked(prompts),
        height=96,
        width=96,
        num_frames=9,
        guidance_scale=3.0,
    )


def cogvideox(prompts: int = 2) -> Tiny:
    """CogVideoX."""
    transformer = network(
        "CogVideoXTransformer3DModel",
        gain=1.5,
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=WIDTH,
        text_embed_dim=WIDTH,
        num_layers=1,
        sample_width=8,
        sample_height=8,
        sample_frames=5,
        max_text_seq_length=TOKENS,
    )
    scheduler = part(
        "CogVideoXDDIMScheduler",
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0,
        timestep_spacing="trailing",
    )
    pipe = part("CogVideoXPipeline", transformer=transformer, scheduler=scheduler, **_PARTS)
    note = "latents [B, F, C, H, W], cast after each step; no signal in the first state"
    return tiny(
        pipe, note, **guided(prompts), height=64, width=64, num_frames=5, guidance_scale=6.0
    )
