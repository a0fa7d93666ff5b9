"""The drafter's network: a DiT block or a few, autoregressing the teacher's top-block feature.

Supplement, section A: the input is the teacher's feature at the previous step, the current
latent (not normalised), its timestep and the teacher's label embedding; the output is the
noise and the feature at the current step.

Where we go past it: the noise is predicted relative to an *anchor*. Between neighbouring steps
the image x0 that the teacher predicts hardly moves, while its eps must follow the fresh noise of
the state. So the anchor is the eps that the current state would have if x0 had not changed, and
the network only predicts the change of x0, whose size is nearly the same at all timesteps. An
untrained drafter (no change) is already a good one. The network also gets the *innovation*, the
noise that took the previous state to this one: it is what moves x0, and the state and the feature
alone do not tell it. To first order x0 moves by the teacher's Jacobian times that noise. Where
little noise is left the Jacobian is nearly diagonal: a value follows its own noise, or it does
not. So a *gated* drafter also predicts by how much each value follows, which a network narrower
than a patch has values could not pass on otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from free.models.checkpoints import Description, read_drafter, write_network
from free.models.config import DiTConfig, check_flag, check_size
from free.models.dit import DiT
from free.models.layers import (
    DiTBlock,
    FinalLayer,
    PatchEmbedder,
    TimestepEmbedder,
    initialize_linear,
    sincos_position_embedding,
    unpatchify,
)


class DrafterNet(nn.Module):
    """Predicts how x0 and the top-block feature change from ``x_k`` to ``x_{k+1}``.

    Fuse (2E -> E), DiT blocks, then a final layer for the change of x0 and a residual head
    for the feature. At DiT-XL/2, with one block: 32.2 M trainable values.

    Parameters
    ----------
    config : DiTConfig
        The *teacher's* configuration; the drafter shares its width, heads and patches.
    depth : int
        Its own number of blocks; the paper's is 1.
    gate : bool
        Whether the change of x0 has a part ``gate * innovation``, value by value; twice the
        outputs of the final layer.

    Raises
    ------
    ValueError
        If ``depth`` is not in ``1 .. config.depth``, or ``gate`` is no bool.
    """

    pos_embed: Tensor

    def __init__(self, config: DiTConfig, depth: int = 1, gate: bool = False) -> None:
        super().__init__()
        self.config = config
        self.depth, self.gate = check_size("depth", depth, config.depth), check_flag("gate", gate)
        hidden = config.hidden_size
        self.x_embedder = PatchEmbedder(config.patch_size, 2 * config.channels, hidden)
        self.t_embedder = TimestepEmbedder(hidden, config.timestep_divisor, config.reversed_time)
        grid = config.image_size // config.patch_size
        pos_embed = sincos_position_embedding(grid, hidden, torch.get_default_device())
        self.register_buffer("pos_embed", pos_embed, persistent=False)
        self.fuse = nn.Linear(2 * hidden, hidden, dtype=torch.float32)
        self.blocks = nn.ModuleList(
            DiTBlock(hidden, config.heads, config.mlp_ratio, config.norm_eps, config.qk_norm)
            for _ in range(self.depth)
        )
        self.feature_head = nn.Linear(hidden, hidden, dtype=torch.float32)
        outputs = (2 if gate else 1) * config.channels
        self.final_layer = FinalLayer(hidden, config.patch_size, outputs)
        self.apply(initialize_linear)
        # The untrained drafter changes nothing: x0 and the feature stay what they were.
        nn.init.zeros_(self.feature_head.weight)
        nn.init.zeros_(self.final_layer.linear.weight)

    @property
    def options(self) -> dict[str, Any]:
        """What makes the network besides its teacher's configuration."""
        return {"depth": self.depth, "gate": self.gate}

    @torch.no_grad()
    def initialize_from(self, teacher: DiT) -> None:
        """Start from the teacher's embedders, top blocks and final modulation."""
        own, source = self.x_embedder.proj, teacher.x_embedder.proj
        own.weight[:, : self.config.channels] = source.weight
        self.x_embedder.proj.bias.data.copy_(teacher.x_embedder.proj.bias.data)  # type: ignore[union-attr]
        self.t_embedder.load_state_dict(teacher.t_embedder.state_dict())
        for block, top in zip(self.blocks, teacher.blocks[-self.depth :], strict=True):
            block.load_state_dict(top.state_dict())
        self.final_layer.adaLN_modulation.load_state_dict(
            teacher.final_layer.adaLN_modulation.state_dict()
        )
        # Feature straight through, plus the embedded latent.
        eye = torch.eye(
            self.config.hidden_size, dtype=self.fuse.weight.dtype, device=self.fuse.weight.device
        )
        self.fuse.weight.copy_(torch.cat([eye, eye], dim=1))

    def forward(
        self, x: Tensor, innovation: Tensor, t: Tensor, label_embedding: Tensor, feature: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One step of the autoregression.

        Parameters
        ----------
        x, innovation : Tensor, shape [R, C, H, W]
            Latents at the current step, not normalised, and ``(x - mean) / sigma`` of the
            transition that led to them.
        t : Tensor, shape [R]
            Their timesteps, as the teacher takes them.
        label_embedding : Tensor, shape [R, E]
            ``DiT.label_embedding`` of the labels.
        feature : Tensor, shape [R, T, E]
            Top-block feature at the previous (noisier) step.

        Returns
        -------
        change : Tensor, shape [R, C, H, W]
            Of the predicted image x0 since the previous step.
        feature : Tensor, shape [R, T, E]
            At the current step.
        """
        dtype = self.pos_embed.dtype
        inputs = torch.cat([x, innovation], dim=1).to(dtype)
        latent = self.x_embedder(inputs) + self.pos_embed  # [R, T, E]
        c = self.t_embedder(t) + label_embedding.to(dtype)  # [R, E]
        h = self.fuse(torch.cat([feature.to(dtype), latent], dim=2))
        for block in self.blocks:
            h = block(h, c)
        out = self.final_layer(h, c)
        if self.gate:
            both = unpatchify(out, self.config.patch_size, 2 * self.config.channels)
            change, gate = both.chunk(2, dim=1)
            change = torch.addcmul(change, gate, innovation.to(dtype))
        else:
            change = unpatchify(out, self.config.patch_size, self.config.channels)
        return change, feature + self.feature_head(h)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> DrafterNet:
        """Load a drafter's network.

        The source is a folder of :meth:`save_pretrained`, the one above its ``drafter/``,
        ``"mnist"`` or a hub id; for the other parameters, the result and what is raised see
        :meth:`free.DiT.from_pretrained`. :meth:`free.FeatureDrafter.from_pretrained` makes it
        draft, with the settings it was saved with.
        """
        return read_drafter(cls, source, dtype=dtype, device=device)[0]

    def save_pretrained(
        self,
        folder: str | Path,
        dtype: torch.dtype | None = None,
        training: dict[str, Any] | None = None,
        sampling: dict[str, Any] | None = None,
    ) -> None:
        """Write safetensors, ``config.json`` and a model card, each atomically.

        Parameters
        ----------
        folder, dtype, training
            See :meth:`free.DiT.save_pretrained`.
        sampling : dict, optional
            ``window``, ``sweeps`` and ``recycle`` of :class:`free.SpeculativeSampler` that it
            serves best with, and ``acceptance``, the record that ``free tune`` makes.
        """
        about = Description(
            format="free",
            kind="drafter",
            config=self.config,
            training=training,
            sampling=sampling or {},
            options=self.options,
        )
        write_network(self, folder, about, dtype)
