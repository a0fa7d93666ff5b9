"""Pipelines of diffusers with tiny random networks, built in memory.

Nothing is downloaded. What ``free.enable`` makes of the diffusers that is installed is tried on
these: see :mod:`free.pipeline.compatibility`.
"""

from free.pipeline.tiny.images import (
    aura_flow,
    dit,
    flux,
    flux_2,
    flux_true_guidance,
    hunyuan_dit,
    lumina_2,
    pixart_alpha,
    pixart_sigma,
    qwen_image,
    sana,
    stable_diffusion_3,
    z_image,
)
from free.pipeline.tiny.record import STEPS, Builder, Tiny
from free.pipeline.tiny.sounds import audioldm_2, stable_audio
from free.pipeline.tiny.unets import (
    control_net,
    ddpm,
    inpainting,
    stable_diffusion,
    stable_diffusion_xl,
)
from free.pipeline.tiny.videos import cogvideox, ltx, wan, wan_experts, wan_token_timesteps

__all__ = ["REFUSED", "STEPS", "TINY", "Builder", "Tiny"]

#: Builders of all of them, by the class's name and what sets a variant apart.
TINY: dict[str, Builder] = {
    "DiTPipeline": dit,
    "PixArtAlphaPipeline": pixart_alpha,
    "PixArtSigmaPipeline": pixart_sigma,
    "StableDiffusionPipeline": stable_diffusion,
    "StableDiffusionXLPipeline": stable_diffusion_xl,
    "StableDiffusion3Pipeline": stable_diffusion_3,
    "FluxPipeline": flux,
    "FluxPipeline, true guidance": flux_true_guidance,
    "Flux2Pipeline": flux_2,
    "SanaPipeline": sana,
    "QwenImagePipeline": qwen_image,
    "ZImagePipeline": z_image,
    "Lumina2Pipeline": lumina_2,
    "AuraFlowPipeline": aura_flow,
    "HunyuanDiTPipeline": hunyuan_dit,
    "WanPipeline": wan,
    "WanPipeline, a timestep per token": wan_token_timesteps,
    "LTXPipeline": ltx,
    "CogVideoXPipeline": cogvideox,
    "AudioLDM2Pipeline": audioldm_2,
    "StableAudioPipeline": stable_audio,
    "DDPMPipeline": ddpm,
    "StableDiffusionControlNetPipeline": control_net,
    "StableDiffusionInpaintPipeline": inpainting,
    "WanPipeline, two experts": wan_experts,
}

#: Those that ``free.enable`` must refuse: three for their loops, one whose EDM scheduler has no law
#: that is known here.
REFUSED = frozenset(
    {
        "StableAudioPipeline",
        "StableDiffusionControlNetPipeline",
        "StableDiffusionInpaintPipeline",
        "WanPipeline, two experts",
    }
)
