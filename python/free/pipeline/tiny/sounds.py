"""Tiny pipelines of sounds."""

import warnings

from free.pipeline.tiny.record import (
    WIDTH,
    Tiny,
    absent,
    embeddings,
    guided,
    masks,
    network,
    part,
    seeded,
    tiny,
)


def audioldm_2(prompts: int = 2) -> Tiny:
    """AudioLDM 2, of spectrograms' latents."""
    unet = network(
        "AudioLDM2UNet2DConditionModel",
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=(WIDTH, WIDTH),
    )
    scheduler = part(
        "DDIMScheduler",
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        SpeechT5HifiGan,
        SpeechT5HifiGanConfig,
        T5Config,
        T5EncoderModel,
    )

    # Never run: the pipeline asks them for dtypes and configurations.
    text_encoder = T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    language_model = GPT2Config(vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    vocoder = SpeechT5HifiGanConfig(
        model_in_dim=64,
        upsample_initial_channel=8,
        upsample_rates=[2, 2],
        upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
    )
    with seeded():
        others = {
            "text_encoder_2": T5EncoderModel(text_encoder),
            "language_model": GPT2LMHeadModel(language_model),
            "vocoder": SpeechT5HifiGan(vocoder),
        }
    pipe = part(
        "AudioLDM2Pipeline",
        unet=unet,
        scheduler=scheduler,
        **others,
        **absent("vae", "text_encoder", "tokenizer", "tokenizer_2"),
        **absent("projection_model", "feature_extractor"),
    )
    return tiny(
        pipe,
        "t a scalar; two embeddings, one with a mask; .prev_sample",
        **guided(prompts),
        generated_prompt_embeds=embeddings(prompts, seed=6),
        negative_generated_prompt_embeds=embeddings(prompts, seed=7),
        attention_mask=masks(prompts),
        negative_attention_mask=masks(prompts),
        audio_length_in_s=64 * 4 / 16000,  # 8 x 8 latents
        guidance_scale=3.5,
    )


def stable_audio(prompts: int = 2) -> Tiny:
    """Stable Audio, of waveforms' latents."""
    transformer = network(
        "StableAudioDiTModel",
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        num_key_value_attention_heads=2,
        cross_attention_dim=WIDTH,
        cross_attention_input_dim=WIDTH,
        time_proj_dim=WIDTH,
        global_states_input_dim=2 * WIDTH,
    )
    scheduler = part(
        "EDMDPMSolverMultistepScheduler",
        sigma_min=0.3,
        sigma_max=500,
        sigma_data=1.0,
        sigma_schedule="exponential",
        prediction_type="v_prediction",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, of weight_norm
        vae = network(
            "AutoencoderOobleck",
            encoder_hidden_size=4,
            decoder_channels=4,
            decoder_input_channels=4,
            downsampling_ratios=[2, 2],
            channel_multiples=[1, 2],
        )
    durations = network(
        "StableAudioProjectionModel",
        text_encoder_dim=WIDTH,
        conditioning_dim=WIDTH,
        min_value=0,
        max_value=32,
    )
    pipe = part(
        "StableAudioPipeline",
        transformer=transformer,
        scheduler=scheduler,
        vae=vae,
        projection_model=durations,
        **absent("text_encoder", "tokenizer"),
    )
    return tiny(
        pipe,
        "one t of shape [1] for all rows; EDM's preconditioning in the scheduler; .prev_sample",
        **guided(prompts),
        attention_mask=masks(prompts),
        negative_attention_mask=masks(prompts),
        guidance_scale=7.0,
    )
