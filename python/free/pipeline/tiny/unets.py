"""Tiny pipelines of images whose network is a U-Net, two of them to be refused."""

from typing import Any

from free.pipeline.tiny.record import (
    STEPS,
    WIDTH,
    Tiny,
    absent,
    guided,
    network,
    normal,
    part,
    pooled,
    tiny,
)

#: A U-Net's way down: two levels, with cross-attention in the lower one.
_DOWN: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "attention_head_dim": 2,
    "cross_attention_dim": WIDTH,
}
_UNET: dict[str, Any] = _DOWN | {
    "sample_size": 8,
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}
#: Noise of Stable Diffusion's training.
_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_ENCODER = absent("text_encoder", "tokenizer")
_CHECKER = absent("safety_checker", "feature_extractor") | {"requires_safety_checker": False}


def _pndm() -> Any:
    return part("PNDMScheduler", **_NOISE, skip_prk_steps=True, steps_offset=1)


def _vae() -> Any:
    return network(
        "AutoencoderKL",
        block_out_channels=(4, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )


def ddpm(prompts: int = 2) -> Tiny:
    """Unconditional DDPM, of pixels; as many pictures as there were prompts."""
    unet = network(
        "UNet2DModel",
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    pipe = part("DDPMPipeline", unet=unet, scheduler=part("DDPMScheduler"))
    note = "no guidance; t a scalar; step(generator=...).prev_sample; clamps: pictures, no latents"
    return tiny(pipe, note, batch_size=prompts, output_type="pt")


def stable_diffusion(prompts: int = 2) -> Tiny:
    """Stable Diffusion 1.5."""
    pipe = part(
        "StableDiffusionPipeline",
        unet=network("UNet2DConditionModel", **_UNET),
        scheduler=_pndm(),
        vae=None,
        **_ENCODER,
        **_CHECKER,
    )
    note = f"t a scalar; PNDM has a timestep twice: {STEPS + 1} calls"
    return tiny(pipe, note, **guided(prompts), height=64, width=64, guidance_scale=7.5)


def stable_diffusion_xl(prompts: int = 2) -> Tiny:
    """Stable Diffusion XL."""
    unet = network(
        "UNet2DConditionModel",
        **_UNET,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=WIDTH + 6 * 8,
    )
    scheduler = part("EulerDiscreteScheduler", **_NOISE, timestep_spacing="leading", steps_offset=1)
    pipe = part(
        "StableDiffusionXLPipeline",
        unet=unet,
        scheduler=scheduler,
        vae=None,
        **_ENCODER,
        **absent("text_encoder_2", "tokenizer_2"),
        add_watermarker=False,
    )
    note = "t a scalar; input scaled by sigma; latents start at init_noise_sigma; a dict of rows"
    sizes = {"height": 64, "width": 64}
    return tiny(pipe, note, **guided(prompts), **pooled(prompts), **sizes, guidance_scale=5.0)


def control_net(prompts: int = 2) -> Tiny:
    """Stable Diffusion with a ControlNet for the first half of the steps: to be refused."""
    control = network(
        "ControlNetModel",
        **_DOWN,
        conditioning_embedding_out_channels=(4, 4, 4, 4),
    )
    # Its last layers are zero before training: it would add nothing.
    for block in (*control.controlnet_down_blocks, control.controlnet_mid_block):
        block.weight.copy_(normal(*block.weight.shape))
    pipe = part(
        "StableDiffusionControlNetPipeline",
        unet=network("UNet2DConditionModel", **_UNET),
        controlnet=control,
        scheduler=_pndm(),
        vae=None,
        **_ENCODER,
        **_CHECKER,
    )
    return tiny(
        pipe,
        "refuse: the residuals of a second network, on for the first half of the steps only",
        **guided(prompts),
        image=normal(prompts, 3, 64, 64, seed=5).sigmoid(),
        guidance_scale=7.5,
        control_guidance_start=0.0,
        control_guidance_end=0.5,
    )


def inpainting(prompts: int = 2) -> Tiny:
    """Inpainting with the U-Net of Stable Diffusion 1.5, which blends latents: to be refused."""
    pipe = part(
        "StableDiffusionInpaintPipeline",
        unet=network("UNet2DConditionModel", **_UNET),
        scheduler=_pndm(),
        vae=_vae(),
        **_ENCODER,
        **_CHECKER,
    )
    mask = normal(prompts, 1, 16, 16).new_zeros(prompts, 1, 16, 16)
    mask[..., 8:] = 1
    return tiny(
        pipe,
        "refuse: known latents are blended in after each step; add_noise; timesteps sliced",
        **guided(prompts),
        image=normal(prompts, 3, 16, 16, seed=5).sigmoid(),
        mask_image=mask,
        height=16,
        width=16,
        guidance_scale=7.5,
        strength=1.0,
    )
