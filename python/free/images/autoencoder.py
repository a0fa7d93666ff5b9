"""Between images and what the network sees: latents of a VAE, or the pixels themselves.

Both coders have ``encode``, ``decode``, ``image_shape``, ``require_fit`` and ``to``. diffusers
is imported when a VAE is loaded, not before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from free.arguments import as_integer
from free.files import cut, read_json, shown
from free.images.picture import check_drawable
from free.models.checkpoints import locate, only_variant
from free.models.checkpoints.hub import download, is_hub_id

#: Where a pipeline's folder says what it is made of.
MODEL_INDEX = "model_index.json"


class PixelCoder:
    """For models of pixels: images are their own latents."""

    def encode(
        self,
        images: Tensor,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """``images [R, C, H, W]`` as they are, in float32; nothing is drawn."""
        return images.float()

    def decode(self, latents: Tensor) -> Tensor:
        """``latents [R, C, H, W]`` as they are, in float32."""
        return latents.float()

    def image_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """(H, W, C) of the image of one sample."""
        channels, height, width = sample_shape
        return height, width, channels

    def require_fit(self, sample_shape: Sequence[int]) -> None:
        """Raise a ValueError unless samples of this shape are images."""
        try:
            check_drawable(sample_shape)
        except ValueError as error:
            raise ValueError(
                f"vae must be given for samples of shape {list(sample_shape)}, which are no images "
                "of 1 or 3 channels, got None"
            ) from error

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> PixelCoder:
        """Return the coder; there is nothing to move."""
        return self


class LatentCoder:
    """The latents of a VAE, scaled as its configuration says.

    Parameters
    ----------
    vae : diffusers.AutoencoderKL
        Its ``scaling_factor`` (0.18215 by default) and ``shift_factor`` (0) are applied:
        ``latent = (z - shift) * scale``. One in float16 whose configuration has ``force_upcast``
        is put in float32 when it is first used.
    slice_size : int
        How many images are coded at a time, >= 1; bounds the memory whatever the batch.

    Raises
    ------
    TypeError
        If ``vae`` is no autoencoder.
    ValueError
        If ``slice_size`` is out of range, or the VAE scales every channel by itself.
    """

    def __init__(self, vae: Any, slice_size: int = 1) -> None:
        config: Any = getattr(vae, "config", None)
        if not (hasattr(config, "latent_channels") and hasattr(vae, "decode")):
            raise TypeError(f"vae must be an AutoencoderKL, got {type(vae).__name__}")
        slice_size = as_integer(slice_size, "slice_size must be an integer >= 1", 1)
        if getattr(config, "latents_mean", None) or getattr(config, "latents_std", None):
            raise ValueError(
                "vae must scale its latents by scaling_factor and shift_factor alone, got one with "
                "latents_mean and latents_std"
            )
        self.vae = vae
        self.slice_size = slice_size
        self.scale = float(config.scaling_factor)
        self.shift = float(getattr(config, "shift_factor", None) or 0.0)
        #: Sides of an image over those of its latent.
        self.factor = 2 ** (len(config.block_out_channels) - 1)

    @torch.no_grad()
    def encode(
        self,
        images: Tensor,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Code images as latents.

        Parameters
        ----------
        images : Tensor, shape [R, C, H, W], float32
            In [-1, 1]; H and W multiples of ``factor``.
        generator : torch.Generator, optional
            Draws from the posterior, as DiT is trained; without one, and without ``noise``, its
            mean is returned.
        noise : Tensor, shape of the latents, float32, optional
            Standard normals for the draw, instead of the generator's.

        Returns
        -------
        Tensor, shape [R, latent channels, H / factor, W / factor], float32
            On the VAE's device.

        Raises
        ------
        ValueError
            If the images have another shape than the VAE takes, or the noise than the latents.
        """
        channels = self.vae.config.in_channels
        sides = images.shape[2:]
        if images.dim() != 4 or images.shape[1] != channels or any(s % self.factor for s in sides):
            raise ValueError(
                f"images must be [R, {channels}, H, W] with H and W multiples of {self.factor}, "
                f"got {list(images.shape)}"
            )
        posteriors = [
            self.vae.encode(part).latent_dist for part in self._ready(images).split(self.slice_size)
        ]
        latents = torch.cat([posterior.mean for posterior in posteriors]).float()
        if generator is not None and noise is None:
            # One draw for all: the noise does not depend on the slices.
            noise = torch.randn(
                latents.shape, generator=generator, dtype=torch.float32, device=generator.device
            )
        if noise is not None:
            if noise.shape != latents.shape:
                raise ValueError(
                    f"noise must have the latents' shape {list(latents.shape)}, "
                    f"got {list(noise.shape)}"
                )
            std = torch.cat([posterior.std for posterior in posteriors])
            latents += std * noise.to(latents.device)
        return (latents - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents [R, latent channels, H, W], float32, into images.

        They are [R, C, H * factor, W * factor], float32, about in [-1, 1], not clipped, and on the
        VAE's device.

        Raises
        ------
        ValueError
            If the latents have other channels than the VAE's.
        FloatingPointError
            If an image has NaN or inf; names it.
        """
        self.require_fit(tuple(latents.shape[1:]))
        z = self._ready(latents.float() / self.scale + self.shift)
        images = torch.cat(
            [self.vae.decode(part).sample.float() for part in z.split(self.slice_size)]
        )
        finite = images.flatten(1).isfinite().all(dim=1)
        if not finite.all():
            raise FloatingPointError(
                f"vae returned non-finite images for samples {(~finite).nonzero()[:, 0].tolist()}"
            )
        return images

    def digest(self) -> str:
        """SHA-256 of the encoder's weights in float32, in hexadecimal."""
        value = hashlib.sha256()
        for name, weight in sorted(self.vae.state_dict().items()):
            if name.startswith(("encoder.", "quant_conv.")):
                value.update(name.encode() + weight.float().cpu().contiguous().numpy().tobytes())
        return value.hexdigest()

    def image_shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        """(H, W, C) of the image of one sample."""
        _, height, width = sample_shape
        return height * self.factor, width * self.factor, self.vae.config.out_channels

    def require_fit(self, sample_shape: Sequence[int]) -> None:
        """Raise a ValueError unless samples of this shape are latents of this VAE."""
        channels = self.vae.config.latent_channels
        if len(sample_shape) != 3 or sample_shape[0] != channels:
            raise ValueError(
                f"vae must have the latent channels of the samples, {list(sample_shape)}, "
                f"got {channels}"
            )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> LatentCoder:
        """Move the VAE; float16 is not applied where ``force_upcast`` forbids it."""
        if device is not None:
            self.vae.to(device)
        if dtype is not None and not (dtype is torch.float16 and self.vae.config.force_upcast):
            self.vae.to(dtype)
        return self

    def _ready(self, x: Tensor) -> Tensor:
        """``x`` on the VAE's device and in its precision, which is made sufficient first."""
        if self.vae.config.force_upcast and self.vae.dtype is torch.float16:
            self.vae.float()
        return x.to(self.vae.device, self.vae.dtype)


def load_autoencoder(
    source: str | Path | None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    *,
    variant: str | None = None,
    use_safetensors: bool | None = None,
    access: Mapping[str, Any] | None = None,
) -> LatentCoder | PixelCoder:
    """Load a diffusers ``AutoencoderKL``.

    Parameters
    ----------
    source : str, Path or None
        Its folder or hub id (``stabilityai/sd-vae-ft-ema`` is DiT's), or one with ``vae/``; None
        for models of pixels.
    device : torch.device or str
    dtype : torch.dtype, optional
        float16 is not applied where the configuration has ``force_upcast``.
    variant, use_safetensors : optional
        As diffusers knows them; by default the only variant there is, where there are no others.
    access : mapping, optional
        Arguments of ``huggingface_hub.snapshot_download``, for a hub id.

    Returns
    -------
    LatentCoder or PixelCoder

    Raises
    ------
    ImportError
        If diffusers is not installed; says which extra has it.
    ValueError
        If there is no such VAE, or its weights are truncated or do not fit its configuration.
    """
    if source is None:
        return PixelCoder()
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise ImportError("a VAE needs diffusers: pip install 'free-dit[diffusers]'") from error

    folder = _folder(source, variant, access)
    variant = only_variant(folder) if variant is None else variant
    try:
        with torch.device("cpu"):  # and in float32, whatever the defaults are
            vae, info = AutoencoderKL.from_pretrained(
                folder,
                torch_dtype=torch.float32,
                output_loading_info=True,
                low_cpu_mem_usage=False,
                local_files_only=True,
                variant=variant or None,
                use_safetensors=use_safetensors,
            )
    except Exception as error:  # of the file, of its format, of the configuration
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(f"vae {folder} is missing, truncated or damaged: {reason}") from error
    problems = [
        f"{kind.removesuffix('_keys')} {', '.join(info[kind][:8])}"
        for kind in ("missing_keys", "unexpected_keys")
        if info[kind]
    ]
    if problems:  # diffusers would draw them at random, or leave them out
        raise ValueError(f"vae {folder} does not fit its config.json: {'; '.join(problems)}")
    return LatentCoder(vae.eval().requires_grad_(False)).to(device, dtype)


def _folder(source: str | Path, variant: str | None, access: Mapping[str, Any] | None) -> Path:
    """The folder of an ``AutoencoderKL``, fetched if it is not here."""
    path = Path(source)
    if not path.exists() and isinstance(source, str) and is_hub_id(source):
        path = download(source, "vae", ("", "vae/"), variant, access)
    folder = path / "vae" if (path / "vae").is_dir() else path
    try:
        name = read_json(folder / "config.json", "configuration")["_class_name"]
    except (ValueError, KeyError) as error:
        raise ValueError(
            "vae must be a diffusers folder with the config.json of an AutoencoderKL, or a hub id, "
            f"got {str(source)!r}: {shown(error)}"
        ) from error
    for file in folder.glob("diffusion_pytorch_model*"):
        if not file.is_file():  # diffusers would wait for what a pipe never gives
            raise ValueError(f"vae must have weights that are files, got {file}")
    if name != "AutoencoderKL":
        raise ValueError(f"vae must be an AutoencoderKL, got {cut(str(name))} in {folder}")
    return folder


def own_vae(source: str | Path, path: Path | None = None) -> str | Path | None:
    """Where a model's own VAE is: a source for :func:`load_autoencoder`, or None without one.

    ``path`` is where the model was found, if that is known.
    """
    path = locate(source) if path is None else path
    index = path / MODEL_INDEX
    parts = read_json(index, "pipeline") if index.is_file() else {}
    here = (path / "vae").is_dir()
    # A folder that was written before may hold a VAE that the last pipeline has not.
    if not (parts["vae"] != [None, None] if "vae" in parts else here):
        return None
    return path if here else source  # a hub's, not fetched yet
