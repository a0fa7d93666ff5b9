"""What a DiT is made of: its sizes, and the constants of the format it came from."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from free.arguments import as_integer

#: Published sizes: hidden width, depth, heads.
DIT_SIZES = {
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1152, 28, 16),
}
#: Heads of the published sizes, by width.
PUBLISHED_HEADS = {hidden: heads for hidden, _, heads in DIT_SIZES.values()}


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
            value = as_integer(getattr(self, name), f"{name} must be a positive integer", 1)
            object.__setattr__(self, name, value)  # Python's, which can be written as JSON
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
        """How another shape differs, such as ``"depth 12, not 28"``; "" if it does not.

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
            ``"DiT-{S,B,L,XL}/{2,4,8}"``; ValueError for others.
        image_size : int
            Latent side: 32 for 256x256 images, 64 for 512x512.
        **overrides
            Other fields of the configuration.
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
