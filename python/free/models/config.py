"""What a DiT is made of: its sizes, and the constants of the format it came from."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from free.arguments import as_integer, as_number, shortened

#: Published sizes: hidden width, depth, heads.
DIT_SIZES = {
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1152, 28, 16),
}
#: Heads of the published sizes, by width.
PUBLISHED_HEADS = {hidden: heads for hidden, _, heads in DIT_SIZES.values()}
#: Labels that a network can tell apart at most.
MOST_CLASSES = 2**24
#: Largest sizes, far beyond any network's, so that no file asks for more than it is worth.
_LARGEST = {
    "image_size": 2**14,
    "patch_size": 2**14,
    "channels": 2**12,
    "hidden_size": 2**16,
    "depth": 1000,
    "heads": 2**12,
    "num_classes": MOST_CLASSES,
}
#: Largest values of the MLP's ratio and of the position table, which is computed.
_LARGEST_RATIO, _LARGEST_TABLE = 64, 2**26
#: Whose conventions a network is in: what it predicts, and whether its own time is reversed.
FAMILIES = {"dit": ("epsilon", False), "sit": ("velocity", True), "repa": ("velocity", False)}
#: What a drafter need not have in common with its teacher.
_OWN = ("timestep_divisor", "norm_eps", "block_embedders")


def check_size(name: str, value: object, largest: int) -> int:
    """A size of a network; a ValueError names it unless it is an integer in ``1 .. largest``."""
    return as_integer(value, f"{name} must be an integer in 1..{largest}", 1, largest)


def check_flag(name: str, value: object) -> bool:
    """A flag of a network; a ValueError names it unless it is a bool."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {shortened(value)}")
    return value


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
        Inner width of the MLP over ``hidden_size``, at most 64.
    num_classes : int
        Labels are ``0 .. num_classes - 1``.
    learn_sigma : bool
        Whether the network has a second set of output channels, for the variance. One that
        predicts a velocity has no use for them: they are ignored.
    timestep_divisor : {128, 127}
        Frequencies of the timestep's embedding are ``10000 ** (-i / timestep_divisor)``: 128 in
        the original code, 127 in diffusers.
    norm_eps : float
        Epsilon of the norm before each MLP: 1e-6 in the original code, 1e-5 by default in
        diffusers. The other norms have 1e-6 in both.
    null_class : bool
        Whether ``num_classes`` is a label too, of the null class. Networks that were trained
        without dropping labels have none, and cannot be guided.
    block_embedders : bool
        Whether each block embeds timestep and label by itself, as in DiTs that were trained with
        diffusers, or all blocks share what one embedder of each says.
    prediction : {"epsilon", "velocity"}
        What the network returns: the noise n of a state, or the velocity ``n - x0`` of
        ``x = (1 - t) x0 + t n``, for which ``t`` is a floating-point time in [0, 1].
    reversed_time : bool
        Whether the weights are of a time that runs the other way, from noise at 0 to the image at
        1, and of the opposite velocity, as SiT's: they are evaluated at ``1 - t``, and the result
        is negated. Of networks that predict a velocity alone.
    qk_norm : bool
        Whether each head norms its queries and keys, with weights, as timm's attention can.

    Raises
    ------
    ValueError
        If a size is not positive, is beyond all reason or does not divide as it must, or another
        value is out of its range.
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
    null_class: bool = True
    block_embedders: bool = False
    prediction: str = "epsilon"
    reversed_time: bool = False
    qk_norm: bool = False

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            object.__setattr__(self, name, check_size(name, getattr(self, name), largest))
        for name, highest in (("mlp_ratio", _LARGEST_RATIO), ("norm_eps", 1)):
            expected = f"{name} must be a number in (0, {highest}]"
            value = as_number(getattr(self, name), expected, math.ulp(0.0), highest)
            object.__setattr__(self, name, value)
        for name in ("learn_sigma", "null_class", "block_embedders", "reversed_time", "qk_norm"):
            check_flag(name, getattr(self, name))
        if self.prediction not in ("epsilon", "velocity"):
            raise ValueError(
                f"prediction must be 'epsilon' or 'velocity', got {shortened(self.prediction)}"
            )
        if self.reversed_time and self.prediction != "velocity":
            raise ValueError(
                "reversed_time must be false unless prediction is 'velocity', got true with "
                f"{self.prediction!r}"
            )
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
        if round(self.hidden_size * self.mlp_ratio) < 1:
            raise ValueError(
                f"mlp_ratio must leave the MLP a width, got {self.mlp_ratio} of {self.hidden_size}"
            )
        if (self.image_size // self.patch_size) ** 2 * self.hidden_size > _LARGEST_TABLE:
            raise ValueError(
                f"image_size must leave at most {_LARGEST_TABLE} values of hidden_size "
                f"({self.hidden_size}) and patches of {self.patch_size}, got {self.image_size}"
            )
        if self.timestep_divisor not in (127, 128):
            raise ValueError(
                f"timestep_divisor must be 128 or 127, got {shortened(self.timestep_divisor)}"
            )

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """Shape of one state: channels, height, width."""
        return self.channels, self.image_size, self.image_size

    @property
    def null_label(self) -> int | None:
        """The label of the null class, or None."""
        return self.num_classes if self.null_class else None

    @property
    def labels(self) -> int:
        """How many labels there are, the null class among them."""
        return self.num_classes + self.null_class

    @property
    def acronym(self) -> str:
        """What networks of its prediction are called: DiT, or SiT of a velocity."""
        return "DiT" if self.prediction == "epsilon" else "SiT"

    @property
    def family(self) -> str:
        """Whose conventions the weights are in, a key of :data:`FAMILIES`."""
        own = (self.prediction, self.reversed_time)
        return next(name for name, conventions in FAMILIES.items() if conventions == own)

    @property
    def learned_variance(self) -> bool:
        """Whether the network returns a variance."""
        return self.learn_sigma and self.prediction == "epsilon"

    def misfit(self, other: DiTConfig) -> str:
        """How another shape differs, such as ``"depth 12, not 28"``; "" if it does not.

        Constants may differ: a drafter keeps those it was trained with, and its teacher's follow
        from the teacher's file. So may ``block_embedders``, which a drafter has no part in.
        """
        names = [f.name for f in fields(self) if f.name not in _OWN]
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
