"""The Diffusion Transformer: the teacher.

Parameter names and shapes are those of the released checkpoints, so a state dict loads
without conversion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from free.models.checkpoints import Description, read_teacher, write_network
from free.models.config import DiTConfig
from free.models.layers import (
    Conditioning,
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


class DiT(nn.Module):
    """Diffusion Transformer with adaLN-Zero conditioning, predicting eps or a velocity.

    Attributes
    ----------
    config : DiTConfig
    num_classes : int
    null_label : int or None
        The class that stands for "no label"; None for a network that was trained without one.
    sample_shape : tuple of int
        Shape of one state, ``(channels, image_size, image_size)``.
    """

    pos_embed: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = config.num_classes
        self.null_label = config.null_label
        self.sample_shape = config.sample_shape
        hidden = config.hidden_size
        out_channels = config.channels * (2 if config.learn_sigma else 1)

        self.x_embedder = PatchEmbedder(config.patch_size, config.channels, hidden)
        self.t_embedder = TimestepEmbedder(hidden, config.timestep_divisor, config.reversed_time)
        self.y_embedder = LabelEmbedder(config.labels, hidden)
        grid = config.image_size // config.patch_size
        self.register_buffer(
            "pos_embed", sincos_position_embedding(grid, hidden, torch.get_default_device())
        )
        self.blocks = nn.ModuleList(
            DiTBlock(hidden, config.heads, config.mlp_ratio, config.norm_eps, config.qk_norm)
            for _ in range(config.depth)
        )
        # The first block and the final layer have those above.
        self.block_embedders = nn.ModuleList(
            Conditioning(config.labels, hidden, config.timestep_divisor, config.reversed_time)
            for _ in range(config.depth - 1 if config.block_embedders else 0)
        )
        self.final_layer = FinalLayer(hidden, config.patch_size, out_channels)
        self._initialize()

    def _initialize(self) -> None:
        if self.pos_embed.is_meta:
            return
        self.apply(initialize_linear)
        for module in self.modules():
            if isinstance(module, LabelEmbedder):
                nn.init.normal_(module.embedding_table.weight, std=0.02)
        for name, weight in self.named_parameters():
            if "t_embedder" in name and weight.dim() == 2:
                nn.init.normal_(weight, std=0.02)
            # adaLN-Zero: every block starts as the identity and the output as zero.
            elif "adaLN_modulation" in name or name.startswith("final_layer"):
                nn.init.zeros_(weight)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        """Predict the noise, or the velocity.

        Parameters
        ----------
        x : Tensor, shape [R, C, H, W]
            States; ValueError if they have another shape than the network was made for.
        t : Tensor, shape [R], int64 or floating-point
            Timesteps, 0 .. 999, whole or between; of a network that predicts a velocity, times in
            [0, 1] with the noise at 1, and a ValueError for integers.
        y : Tensor, shape [R], int64
            Labels, 0 .. ``num_classes - 1``; ``null_label`` for none.

        Returns
        -------
        TeacherOutput
            ``eps [R, C, H, W]``, which is the velocity of a network that predicts one,
            ``feature [R, T, E]`` and, with a learned variance, ``variance [R, C, H, W]``.
        """
        if x.dim() != 4 or x.shape[1:] != self.sample_shape:
            raise ValueError(
                f"x must have shape [R, {', '.join(map(str, self.sample_shape))}], "
                f"got {list(x.shape)}"
            )
        if self.config.prediction == "velocity" and not t.is_floating_point():
            # Whole timesteps would be taken for times far beyond 1.
            dtype = str(t.dtype).removeprefix("torch.")
            raise ValueError(
                "t must be floating-point times in 0..1 for a network that predicts a velocity, "
                f"got {dtype}: its schedule must have such times"
            )
        h = self.x_embedder(x.to(self.pos_embed.dtype)) + self.pos_embed  # [R, T, E]
        c = self.t_embedder(t) + self.y_embedder(y)  # [R, E]
        for index, block in enumerate(self.blocks):
            own = index and self.config.block_embedders
            h = block(h, self.block_embedders[index - 1](t, y) if own else c)
        out = unpatchify(
            self.final_layer(h, c),
            self.config.patch_size,
            self.final_layer.linear.out_features // self.config.patch_size**2,
        )
        if self.config.learn_sigma:
            out, variance = out.chunk(2, dim=1)
        eps = -out if self.config.reversed_time else out
        return TeacherOutput(eps, h, variance if self.config.learned_variance else None)

    @torch.no_grad()
    def label_embedding(self, y: Tensor) -> Tensor:
        """The conditioning vectors of labels, [R] int64 -> [R, E]; what drafters are given.

        Where each block embeds labels by itself they are those of the first block, which condition
        the final layer too.
        """
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
        num_classes: int | None = None,
        family: str | None = None,
        variant: str | None = None,
    ) -> DiT:
        """Load a checkpoint of any format, told from its content; see ``docs/checkpoints.md``.

        The network is in evaluation mode, without gradients.

        Parameters
        ----------
        source : str or Path
            A file (safetensors or ``torch.save``): the original state dict, or a training
            checkpoint, whose averaged weights are taken if it has them. A diffusers folder, or the
            one above its ``transformer/``. A folder of :meth:`save_pretrained`, or the one above
            its ``teacher/``. ``"mnist"``. A hub id, if there is nothing of that name here.
        dtype : torch.dtype, optional
            Floating-point type of the weights; float32 by default, whatever the file holds. The
            frequencies of the timestep's embedding are float32 always.
        device : torch.device or str
        constants : {"original", "diffusers"}, optional
            Whose timestep divisor and norm epsilon to compute with. By default those of the
            format, or of its configuration where that says.
        heads, image_size : int, optional
            Attention heads, where neither a configuration nor a published size tells; side of the
            input, where neither a configuration nor ``pos_embed`` does.
        num_classes : int, optional
            Classes, where neither a configuration nor a training checkpoint tells. By default one
            fewer than the label table has rows, whose last is then the null class; as many as it
            has rows means that there is no null class.
        family : {"dit", "sit", "repa"}, optional
            Whose network it is, where neither a configuration, a training checkpoint nor REPA's
            projectors tell: a bare state dict of SiT has the names and shapes of DiT's. By default
            DiT's, which predicts eps; the others predict a velocity.
        variant : str, optional
            What diffusers calls so, such as ``"fp16"``: which weights of its folder are meant.

        Raises
        ------
        ValueError
            If the source is missing, damaged, would run code, is of another model, holds several
            networks, or its weights are missing, unexpected, or of another shape.
        ImportError
            If it can only be a hub id and ``huggingface_hub`` is not installed.
        """
        return read_teacher(
            cls,
            source,
            dtype=dtype,
            device=device,
            constants=constants,
            heads=heads,
            image_size=image_size,
            num_classes=num_classes,
            family=family,
            variant=variant,
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
            constants, a training record, the family, or whether there is a null class.
            ``"diffusers"`` is the folder that ``diffusers.DiTTransformer2DModel`` loads.
        dtype : torch.dtype, optional
            Precision to store the weights in; as they are by default.
        training : dict, optional
            How it was trained, as JSON values; kept where the format has a place.

        Raises
        ------
        ValueError
            If the format is none of these, or cannot hold this network.
        """
        about = Description(format=format, kind="teacher", config=self.config, training=training)
        write_network(self, folder, about, dtype)
