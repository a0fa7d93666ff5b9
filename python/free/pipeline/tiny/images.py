"""Tiny pipelines of images whose network is a transformer."""

from free.pipeline.tiny.record import (
    TOKENS,
    WIDTH,
    Tiny,
    absent,
    embeddings,
    guided,
    masked,
    masks,
    network,
    part,
    pooled,
    tiny,
)

#: Heads and their width; the network is ``WIDTH`` wide.
_HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}
#: A picture of 8 x 8 latents, as eight pixels make one.
_SIZE = {"height": 64, "width": 64}
_ONE_ENCODER = absent("vae", "text_encoder", "tokenizer")
_TWO_ENCODERS = _ONE_ENCODER | absent("text_encoder_2", "tokenizer_2")


def dit(prompts: int = 2) -> Tiny:
    """DiT, of ImageNet's classes."""
    pipe = part(
        "DiTPipeline",
        transformer=network(
            "DiTTransformer2DModel", **_HEADS, num_layers=1, sample_size=8, out_channels=8
        ),
        vae=network("AutoencoderKL", block_out_channels=(8,), norm_num_groups=4),
        scheduler=part("DDIMScheduler", clip_sample=False),
    )
    note = "doubled latents go through step(); .prev_sample; no latents returned: decodes; class"
    return tiny(
        pipe,
        note,
        class_labels=[7 * prompt + 1 for prompt in range(prompts)],
        guidance_scale=4.0,
        output_type="pt",
    )


def _pixart(name: str, sample_size: int, note: str, prompts: int) -> Tiny:
    transformer = network(
        "PixArtTransformer2DModel",
        num_attention_heads=3,  # the micro-conditions share the width in thirds
        attention_head_dim=8,
        num_layers=1,
        cross_attention_dim=24,
        caption_channels=WIDTH,
        sample_size=sample_size,
    )
    scheduler = part("DPMSolverMultistepScheduler", beta_schedule="linear")
    pipe = part(name, transformer=transformer, scheduler=scheduler, **_ONE_ENCODER)
    return tiny(
        pipe,
        note,
        **masked(prompts),
        **_SIZE,
        guidance_scale=4.5,
        negative_prompt=None,
        use_resolution_binning=False,
    )


def pixart_alpha(prompts: int = 2) -> Tiny:
    """PixArt-alpha, with the micro-conditions of its large pictures."""
    note = "learned sigma dropped after guidance; added_cond_kwargs is a dict of rows"
    return _pixart("PixArtAlphaPipeline", 128, note, prompts)


def pixart_sigma(prompts: int = 2) -> Tiny:
    """PixArt-Sigma."""
    note = "learned sigma dropped after guidance; added_cond_kwargs is a dict of None"
    return _pixart("PixArtSigmaPipeline", 8, note, prompts)


def stable_diffusion_3(prompts: int = 2) -> Tiny:
    """Stable Diffusion 3."""
    transformer = network(
        "SD3Transformer2DModel",
        **_HEADS,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        pos_embed_max_size=8,
    )
    pipe = part(
        "StableDiffusion3Pipeline",
        transformer=transformer,
        scheduler=part("FlowMatchEulerDiscreteScheduler", shift=3.0),
        **_TWO_ENCODERS,
        **absent("text_encoder_3", "tokenizer_3"),
    )
    note = "negative and positive rows in one batch"
    return tiny(pipe, note, **guided(prompts), **pooled(prompts), **_SIZE, guidance_scale=7.0)


def flux(prompts: int = 2) -> Tiny:
    """FLUX.1-dev, guided by an embedding."""
    transformer = network(
        "FluxTransformer2DModel",
        **_HEADS,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )
    scheduler = part("FlowMatchEulerDiscreteScheduler", shift=3.0, use_dynamic_shifting=True)
    pipe = part("FluxPipeline", transformer=transformer, scheduler=scheduler, **_TWO_ENCODERS)
    return tiny(
        pipe,
        "packed latents; ids without a batch axis; t / 1000; guidance is an argument",
        prompt_embeds=embeddings(prompts),
        pooled_prompt_embeds=pooled(prompts)["pooled_prompt_embeds"],
        **_SIZE,
        guidance_scale=3.5,
    )


def flux_true_guidance(prompts: int = 2) -> Tiny:
    """FLUX.1-dev with negative prompts: true guidance beside the embedded one."""
    pipe, arguments, note = flux(prompts)
    return tiny(
        pipe,
        f"{note}; two calls a step",
        **arguments | guided(prompts) | pooled(prompts),
        true_cfg_scale=4.0,
    )


def flux_2(prompts: int = 2) -> Tiny:
    """FLUX.2-dev, guided by an embedding."""
    transformer = network(
        "Flux2Transformer2DModel",
        gain=1.5,
        **_HEADS,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        joint_attention_dim=WIDTH,
        timestep_guidance_channels=WIDTH,
        axes_dims_rope=(2, 2, 2, 2),
    )
    scheduler = part("FlowMatchEulerDiscreteScheduler", shift=3.0, use_dynamic_shifting=True)
    pipe = part("Flux2Pipeline", transformer=transformer, scheduler=scheduler, **_ONE_ENCODER)
    return tiny(
        pipe,
        "packed latents; ids with a batch axis; t / 1000; guidance is an argument",
        prompt_embeds=embeddings(prompts),
        **_SIZE,
        guidance_scale=4.0,
    )


def sana(prompts: int = 2) -> Tiny:
    """SANA."""
    transformer = network(
        "SanaTransformer2DModel",
        **_HEADS,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
        sample_size=8,
    )
    scheduler = part(
        "DPMSolverMultistepScheduler",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=3.0,
    )
    pipe = part("SanaPipeline", transformer=transformer, scheduler=scheduler, **_ONE_ENCODER)
    return tiny(
        pipe,
        "one batch; t times the configuration's timestep_scale",
        **masked(prompts),
        height=256,
        width=256,
        guidance_scale=4.5,
        negative_prompt=None,
        use_resolution_binning=False,
    )


def qwen_image(prompts: int = 2) -> Tiny:
    """Qwen-Image."""
    transformer = network(
        "QwenImageTransformer2DModel",
        **_HEADS,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(2, 2, 4),
    )
    scheduler = part(
        "FlowMatchEulerDiscreteScheduler",
        use_dynamic_shifting=True,
        time_shift_type="exponential",
        max_shift=0.9,
        max_image_seq_len=8192,
        shift_terminal=0.02,
    )
    pipe = part("QwenImagePipeline", transformer=transformer, scheduler=scheduler, **_ONE_ENCODER)
    return tiny(
        pipe,
        "packed latents; two calls a step; img_shapes is a list of rows; norm-rescaled guidance",
        **guided(prompts),
        prompt_embeds_mask=masks(prompts),
        negative_prompt_embeds_mask=masks(prompts),
        **_SIZE,
        true_cfg_scale=4.0,
    )


def z_image(prompts: int = 2) -> Tiny:
    """Z-Image."""
    transformer = network(
        "ZImageTransformer2DModel",
        in_channels=4,
        dim=WIDTH,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[2, 2, 4],
        axes_lens=[256, 16, 16],
    )
    pipe = part(
        "ZImagePipeline",
        transformer=transformer,
        scheduler=part("FlowMatchEulerDiscreteScheduler", shift=3.0),
        **_ONE_ENCODER,
    )
    positive, negative = guided(prompts).values()
    lengths = [TOKENS - prompt % 2 for prompt in range(prompts)]
    return tiny(
        pipe,
        "lists of rows in and out, positive first; (1000 - t) / 1000; output negated",
        prompt_embeds=[row[:length] for row, length in zip(positive, lengths, strict=True)],
        negative_prompt_embeds=list(negative),
        **_SIZE,
        guidance_scale=5.0,
    )


def lumina_2(prompts: int = 2) -> Tiny:
    """Lumina-Image 2."""
    transformer = network(
        "Lumina2Transformer2DModel",
        gain=1.5,
        sample_size=8,
        in_channels=4,
        hidden_size=WIDTH,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(2, 2, 4),
        axes_lens=(64, 16, 16),
        cap_feat_dim=WIDTH,
    )
    pipe = part(
        "Lumina2Pipeline",
        transformer=transformer,
        scheduler=part("FlowMatchEulerDiscreteScheduler", shift=6.0),
        **_ONE_ENCODER,
    )
    note = "two calls a step; 1 - t / 1000; output negated; norm-rescaled guidance"
    return tiny(pipe, note, **masked(prompts), **_SIZE, guidance_scale=4.0)


def aura_flow(prompts: int = 2) -> Tiny:
    """AuraFlow."""
    transformer = network(
        "AuraFlowTransformer2DModel",
        gain=2.0,
        **_HEADS,
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        joint_attention_dim=WIDTH,
        caption_projection_dim=WIDTH,
        pos_embed_max_size=16,
    )
    pipe = part(
        "AuraFlowPipeline",
        transformer=transformer,
        scheduler=part("FlowMatchEulerDiscreteScheduler", shift=1.73),
        **_ONE_ENCODER,
    )
    note = "one batch; t / 1000 through torch.tensor([...])"
    return tiny(pipe, note, **masked(prompts), **_SIZE, guidance_scale=3.5)


def hunyuan_dit(prompts: int = 2) -> Tiny:
    """HunyuanDiT."""
    transformer = network(
        "HunyuanDiT2DModel",
        **_HEADS,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=WIDTH,
        num_layers=2,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=WIDTH,
        pooled_projection_dim=WIDTH,
        text_len=TOKENS,
        text_len_t5=TOKENS,
    )
    scheduler = part(
        "DDPMScheduler",
        beta_start=0.00085,
        beta_end=0.018,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        steps_offset=1,
    )
    pipe = part(
        "HunyuanDiTPipeline",
        transformer=transformer,
        scheduler=scheduler,
        **_TWO_ENCODERS,
        **absent("safety_checker", "feature_extractor"),
        requires_safety_checker=False,
    )
    second = {f"{name}_2": value for name, value in masked(prompts).items()}
    note = "learned sigma dropped before guidance; rotary embedding without a batch axis"
    return tiny(
        pipe,
        note,
        **masked(prompts),
        **second,
        **_SIZE,
        guidance_scale=5.0,
        use_resolution_binning=False,
    )
