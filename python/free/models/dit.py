"""The Diffusion Transformer: the teacher.

Parameter names and shapes are those of the released checkpoints, so a state dict loads
without conversion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from free.models.layers import (
    DiTBlock,
    FinalLayer,
    LabelEmbedder,
    PatchEmbedder,
    TimestepEmbedder,
    initialize_linear,
    sincos_position_embedding,
    unpatchify,
)
from free.models.output import TeacherOutput

__all__ = ["DIT_SIZES", "DiT", "DiTConfig"]

#: Published sizes: hidden width, depth, heads.
DIT_SIZES = {
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1152, 28, 16),
}


@dataclass(frozen=True)
class DiTConfig:
    """Architecture of a DiT.

    Parameters
    ----------
    image_size : int
        Height and width of the input (latent or pixels), a multiple of ``patch_size``.
    patch_size : int
        Side of the square each token covers.
    channels : int
        Channels of the input.
    hidden_size, depth, heads : int
        Width, number of blocks, attention heads; ``hidden_size`` is a multiple of
        ``heads`` and of 4.
    mlp_ratio : float
        Inner width of the MLP over ``hidden_size``.
    num_classes : int
        Labels are ``0 .. num_classes - 1``; ``num_classes`` is the null class.
    learn_sigma : bool
        Whether the network has a second set of output channels, for the variance.
    timestep_divisor : {128, 127}
        Frequencies of the timestep's embedding are ``10000 ** (-i / timestep_divisor)``: 128 in
        the original code, 127 in diffusers.
    norm_eps : float
        Epsilon of the norm before each MLP: 1e-6 in the original code, 1e-5 by default in
        diffusers. The other norms have 1e-6 in both.

    Raises
    ------
    ValueError
        If a size is not positive or does not divide as it must, or a constant is out of range.
    """

    image_size: int
    patch_size: int
    channels: int
    hidden_size: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    learn_sigma: bool = True
    timestep_divisor: int = 128
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        sizes = ("image_size", "patch_size", "channels", "hidden_size", "depth", "heads")
        for name in (*sizes, "num_classes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if not self.mlp_ratio > 0:
            raise ValueError(f"mlp_ratio must be positive, got {self.mlp_ratio}")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size must be a multiple of patch_size ({self.patch_size}), "
                f"got {self.image_size}"
            )
        if self.hidden_size % self.heads or self.hidden_size % 4:
            raise ValueError(
                f"hidden_size must be a multiple of heads ({self.heads}) and of 4, "
                f"got {self.hidden_size}"
            )
        if self.timestep_divisor not in (127, 128):
            raise ValueError(f"timestep_divisor must be 128 or 127, got {self.timestep_divisor!r}")
        if not 0 < self.norm_eps < math.inf:
            raise ValueError(f"norm_eps must be positive and finite, got {self.norm_eps}")

    def misfit(self, other: DiTConfig) -> str:
        """How another network's shape differs, such as ``"depth 12, not 28"``; "" if it does not.

        Constants may differ: a drafter keeps those it was trained with, and its teacher's follow
        from the teacher's file.
        """
        names = [f.name for f in fields(self) if f.name not in ("timestep_divisor", "norm_eps")]
        pairs = ((name, getattr(other, name), getattr(self, name)) for name in names)
        return ", ".join(f"{name} {got}, not {own}" for name, got, own in pairs if got != own)

    @classmethod
    def named(cls, name: str, image_size: int = 32, **overrides: object) -> DiTConfig:
        """Configuration of a published size.

        Parameters
        ----------
        name : str
            ``"DiT-{S,B,L,XL}/{2,4,8}"``.
        image_size : int
            Latent side: 32 for 256x256 images, 64 for 512x512.
        **overrides
            Other fields of the configuration.

        Raises
        ------
        ValueError
            If the name is not a published one.
        """
        size, _, patch = name.removeprefix("DiT-").partition("/")
        if not name.startswith("DiT-") or size not in DIT_SIZES or patch not in ("2", "4", "8"):
            raise ValueError(
                f"name must be DiT-S, -B, -L or -XL with patch /2, /4 or /8, got {name!r}"
            )
        hidden, depth, heads = DIT_SIZES[size]
        others: dict[str, object] = {"channels": 4, **overrides}
        return cls(
            image_size=image_size,
            patch_size=int(patch),
            hidden_size=hidden,
            depth=depth,
            heads=heads,
            **others,  # type: ignore[arg-type]
        )


class DiT(nn.Module):
    """Diffusion Transformer with adaLN-Zero conditioning, predicting eps.

    Attributes
    ----------
    config : DiTConfig
    null_label : int
        The class that stands for "no label".
    num_classes : int
    sample_shape : tuple of int
        Shape of one state, ``(channels, image_size, image_size)``.
    """

    pos_embed: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.null_label = config.num_classes
        self.sample_shape = (config.channels, config.image_size, config.image_size)
        hidden = config.hidden_size
        out_channels = config.channels * (2 if config.learn_sigma else 1)

        self.x_embedder = PatchEmbedder(config.patch_size, config.channels, hidden)
        self.t_embedder = TimestepEmbedder(hidden, config.timestep_divisor)
        self.y_embedder = LabelEmbedder(config.num_classes, hidden)
        grid = config.image_size // config.patch_size
        self.register_buffer("pos_embed", sincos_position_embedding(grid, hidden))
        self.blocks = nn.ModuleList(
            DiTBlock(hidden, config.heads, config.mlp_ratio, config.norm_eps)
            for _ in range(config.depth)
        )
        self.final_layer = FinalLayer(hidden, config.patch_size, out_channels)
        self._initialize()

    def _initialize(self) -> None:
        if self.pos_embed.is_meta:
            return
        self.apply(initialize_linear)
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for name, weight in self.named_parameters():
            if name.startswith("t_embedder") and weight.dim() == 2:
                nn.init.normal_(weight, std=0.02)
            # adaLN-Zero: every block starts as the identity and the output as zero.
            elif "adaLN_modulation" in name or name.startswith("final_layer"):
                nn.init.zeros_(weight)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        """Predict the noise.

        Parameters
        ----------
        x : Tensor, shape [R, C, H, W]
            States.
        t : Tensor, shape [R], int64
            Timesteps, 0 .. 999.
        y : Tensor, shape [R], int64
            Labels, 0 .. ``num_classes``; ``null_label`` for none.

        Returns
        -------
        TeacherOutput
            ``eps [R, C, H, W]``, ``feature [R, T, E]`` and, with learned sigma,
            ``variance [R, C, H, W]``.

        Raises
        ------
        ValueError
            If ``x`` has another shape than the network was made for.
        """
        if x.dim() != 4 or x.shape[1:] != self.sample_shape:
            raise ValueError(
                f"x must have shape [R, {', '.join(map(str, self.sample_shape))}], "
                f"got {list(x.shape)}"
            )
        h = self.x_embedder(x.to(self.pos_embed.dtype)) + self.pos_embed  # [R, T, E]
        c = self.t_embedder(t) + self.y_embedder(y)  # [R, E]
        for block in self.blocks:
            h = block(h, c)
        out = unpatchify(
            self.final_layer(h, c),
            self.config.patch_size,
            self.final_layer.linear.out_features // self.config.patch_size**2,
        )
        if not self.config.learn_sigma:
            return TeacherOutput(out, h)
        eps, variance = out.chunk(2, dim=1)
        return TeacherOutput(eps, h, variance)

    @torch.no_grad()
    def label_embedding(self, y: Tensor) -> Tensor:
        """The conditioning vectors of labels, [R] int64 -> [R, E]; what drafters are given."""
        return self.y_embedder(y)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        constants: str | None = None,
        heads: int | None = None,
        image_size: int | None = None,
    ) -> DiT:
        """Load a checkpoint of any format, told from its content; see ``docs/checkpoints.md``.

        Parameters
        ----------
        source : str or Path
            A file (safetensors or ``torch.save``): the original state dict, or a training
            checkpoint, of which the averaged weights are taken. A diffusers folder, or the one
            with its ``transformer/``. A folder of :meth:`save_pretrained`, or the one with its
            ``teacher/``. ``"mnist"``. A hub id, if there is nothing of that name here.
        dtype : torch.dtype, optional
            Floating-point type of the weights; float32 by default, whatever the file holds. The
            frequencies of the timestep's embedding are float32 always.
        device : torch.device or str
        constants : {"original", "diffusers"}, optional
            Whose timestep divisor and norm epsilon to compute with. By default those of the
            format, or of its configuration where that says.
        heads : int, optional
            Attention heads, where neither a configuration nor a published size tells.
        image_size : int, optional
            Side of the input, where neither a configuration nor ``pos_embed`` tells.

        Returns
        -------
        DiT
            In evaluation mode, without gradients.

        Raises
        ------
        ValueError
            If the source is missing, damaged, would run code, is of another model, or its weights
            are missing, unexpected, of another shape, or copies that do not agree.
        ImportError
            If it can only be a hub id and ``huggingface_hub`` is not installed.
        """
        from free.models.checkpoints import read_teacher

        return read_teacher(
            source,
            dtype=dtype,
            device=device,
            constants=constants,
            heads=heads,
            image_size=image_size,
        )

    def save_pretrained(
        self,
        folder: str | Path,
        format: str = "free",  # noqa: A002
        dtype: torch.dtype | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint, each file atomically; :meth:`from_pretrained` reads it back.

        Parameters
        ----------
        folder : str or Path
            Made where needed. For ``"original"`` also a file, ending in .pt or .pth.
        format : {"free", "original", "diffusers"}
            ``"free"`` is safetensors with ``config.json`` and a model card. ``"original"`` is the
            state dict that the original code loads, ``model.pt`` in a folder; it has no place for
            constants or a training record. ``"diffusers"`` is the folder that
            ``diffusers.DiTTransformer2DModel`` loads.
        dtype : torch.dtype, optional
            Precision to store the weights in; as they are by default.
        training : dict, optional
            How it was trained, as JSON values; kept where the format has a place.

        Raises
        ------
        ValueError
            If the format is none of these, or cannot hold this network.
        """
        from free.models.checkpoints import write_network

        write_network(self, folder, form=format, dtype=dtype, training=training)
