"""The parts of a pipeline: checked when they are set, and moved together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from free.devices import find_device
from free.drafters import Drafter, FeatureDrafter, FrozenDrafter
from free.drafters.protocol import what_came
from free.images.autoencoder import LatentCoder, PixelCoder
from free.models.adopt import adopt_transformer, is_transformer
from free.pipeline.scheduler import as_scheduler
from free.sampling.speculative import SpeculativeSampler

if TYPE_CHECKING:
    from typing_extensions import Self


class Parts:
    """What a :class:`free.FreePipeline` is made of; parameters are the constructor's there."""

    def __init__(self, transformer: Any, vae: Any, scheduler: Any, drafter: Any) -> None:
        self.transformer = transformer
        self.vae = vae
        self._scheduler = as_scheduler(scheduler)
        self.drafter = drafter
        #: The last sampler that was made of them, and what it was to do.
        self._latest: tuple[object, SpeculativeSampler] | None = None

    @property
    def transformer(self) -> Any:
        """The teacher; may be set to all that the constructor takes."""
        return self._transformer

    @transformer.setter
    def transformer(self, transformer: Any) -> None:
        if is_transformer(transformer):
            transformer = adopt_transformer(transformer)
        if not (callable(transformer) and hasattr(transformer, "sample_shape")):
            raise TypeError(
                "transformer must be a DiT, a DiTTransformer2DModel, or a teacher with "
                f"sample_shape, got {type(transformer).__name__}"
            )
        self._transformer = transformer

    @property
    def drafter(self) -> Any:
        """The drafter; may be set to all that the constructor takes."""
        return self._drafter

    @drafter.setter
    def drafter(self, drafter: Any) -> None:
        if drafter is None or (isinstance(drafter, str) and drafter == "frozen"):
            drafter = FrozenDrafter()
        elif isinstance(drafter, (str, Path)):
            drafter = FeatureDrafter.from_pretrained(
                drafter, self.transformer, dtype=self.dtype, device=self.device
            )
        if isinstance(drafter, type) or not isinstance(drafter, Drafter):
            raise TypeError(
                "drafter must be 'frozen', where one is saved, or an object that is a "
                f"free.drafters.Drafter, got {what_came(drafter)}"
            )
        self._drafter: Drafter = drafter

    @property
    def vae(self) -> Any:
        """The VAE, or None; may be set."""
        return self.coder.vae if isinstance(self.coder, LatentCoder) else None

    @vae.setter
    def vae(self, vae: Any) -> None:
        coder: LatentCoder | PixelCoder = PixelCoder()
        if vae is not None:
            coder = LatentCoder(vae)
            coder.require_fit(self.transformer.sample_shape)
        self.coder = coder

    @property
    def scheduler(self) -> Any:
        """Where the steps come from; may be set to all that the constructor takes."""
        return self._scheduler

    @scheduler.setter
    def scheduler(self, scheduler: Any) -> None:
        self._scheduler = as_scheduler(scheduler, self._scheduler)

    @property
    def device(self) -> torch.device:
        """Where the teacher is."""
        return self._weight().device

    @property
    def dtype(self) -> torch.dtype:
        """The teacher's precision; the sampler's states are float32 always."""
        return self._weight().dtype

    @property
    def components(self) -> dict[str, Any]:
        """The parts that a pipeline is made of."""
        names = ("transformer", "vae", "scheduler", "drafter")
        return {name: getattr(self, name) for name in names}

    def to(
        self,
        device: torch.device | str | torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        *,
        torch_dtype: torch.dtype | None = None,
        **words: Any,
    ) -> Self:
        """Move all networks; ``to(dtype)`` will do too, and ``torch_dtype`` is ``dtype``.

        The other word of diffusers, ``silence_dtype_warnings``, changes nothing: there are none.

        A VAE whose configuration has ``force_upcast`` is not put in float16, nor is a schedule's
        variance network. A device that this machine does not have is a ValueError.
        """
        words.pop("silence_dtype_warnings", None)
        if words:
            raise TypeError(f"FreePipeline.to got unexpected arguments {', '.join(words)}")
        if torch_dtype is not None:
            if dtype is not None:
                raise ValueError(f"dtype must be given once, got {dtype} and {torch_dtype}")
            dtype = torch_dtype
        if isinstance(device, torch.dtype):
            if dtype is not None:
                raise ValueError(f"device must come before dtype, got {device} and {dtype}")
            device, dtype = None, device
        if device is not None:
            device = find_device(device)
        for network in (self.transformer, getattr(self.drafter, "network", None)):
            if isinstance(network, nn.Module):
                network.to(device=device, dtype=dtype)
        variance = getattr(self.scheduler, "mixture", None)
        if isinstance(variance, nn.Module):
            variance.to(device=device)  # in float32, as the states that it looks at
        self.coder.to(device, dtype)
        self._latest = None
        return self

    def enable_vae_slicing(self) -> None:
        """Decode one image at a time, as is the default; see ``coder.slice_size``."""
        if isinstance(self.coder, LatentCoder):
            self.coder.slice_size = 1

    def _weight(self) -> Tensor:
        weight = None
        if isinstance(self.transformer, nn.Module):
            weight = next(self.transformer.parameters(), None)
        return torch.empty(0, dtype=torch.float32, device="cpu") if weight is None else weight
