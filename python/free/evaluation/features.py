"""Networks that images are compared by, behind one small protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from free.files import check_regular
from free.models.checkpoints.tensors import load_plain
from free.models.classifier import Classifier


class Features(NamedTuple):
    """What a network sees in R images, all float32: ``pooled`` features are [R, D].

    ``spatial`` [R, S] are values that still know where in the image they come from;
    ``probabilities`` [R, C] are of the classes that the network knows.
    """

    pooled: Tensor
    spatial: Tensor | None = None
    probabilities: Tensor | None = None


class FeatureNetwork(Protocol):
    """Anything with these names serves.

    Attributes
    ----------
    name : str
        As in "Frechet distance, NAME features".
    dims : int
        D, of the pooled features.
    is_inception : bool
        Whether it is Inception v3 with the weights that FID is defined by. Only then are the
        figures called FID, sFID and Inception Score.
    classes : int or None
        How many classes it names in the order of the images' labels; None if the order is another.
    """

    name: str
    dims: int
    is_inception: bool
    classes: int | None

    def __call__(self, images: NDArray[np.uint8]) -> Features:
        """Look at images ``[R, H, W, 1 or 3] uint8``."""
        ...


def check_images(images: NDArray[Any], name: str, shape: tuple[int, ...] | None = None) -> None:
    """Raise a ValueError unless ``images`` are ``[R, H, W, 1 or 3] uint8``, or ``[R, *shape]``."""
    good = images.dtype == np.uint8 and images.ndim == 4 and images.shape[-1] in (1, 3)
    if not good or (shape is not None and images.shape[1:] != shape):
        wanted = ("H", "W", "1 or 3") if shape is None else shape
        raise ValueError(
            f"{name} must be uint8 of shape [R, {', '.join(map(str, wanted))}], "
            f"got {images.dtype} of shape {list(images.shape)}"
        )


#: Feature networks that the package carries: of which model, and what figures call them.
EMBEDDED = {"digits": ("mnist", "digit-classifier"), "emoji": ("emoji", "emoji-classifier")}


class ClassifierFeatures:
    """The classifier of an embedded model, for images of the model's shape.

    Pooled: the 128 values that its last layer reads. Spatial: its maps, each half of the channels
    averaged.
    """

    dims, is_inception = 128, False
    classes: int | None

    def __init__(self, features: str, device: torch.device | str = "cpu") -> None:
        model, self.name = EMBEDDED[features]
        self.network = Classifier.embedded(model).to(device)
        self.classes = self.network.classes
        self._device = device

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Features:
        """Look at images ``[R, *network.shape] uint8``."""
        check_images(images, f"images for the {self.name}", self.network.shape)
        pixels = torch.tensor(images, dtype=torch.uint8, device=self._device).permute(0, 3, 1, 2)
        with _float32(self._device):
            hidden, maps = self.network.features(pixels.float() / 127.5 - 1)
            spatial = maps.unflatten(1, (2, -1)).mean(2).flatten(1)
            return Features(hidden, spatial, self.network.output(hidden).softmax(1))


class ColourFeatures:
    """Features of a classifier of colour images; grey ones become three equal channels.

    ``make()(x [R, 3, H, W])`` is pooled [R, D], spatial [R, ...], scores [R, C]; its weights are
    read from the path by :func:`load_weights`.
    """

    def __init__(
        self, make: Callable[[], nn.Module], path: Path, device: torch.device | str
    ) -> None:
        with torch.device("cpu"):  # whatever the default is
            network = make()
        load_weights(network, path)
        self.network = network.to(device).eval().requires_grad_(False)
        self._device = device

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Features:
        """Look at images ``[R, H, W, 1 or 3] uint8``."""
        check_images(images, f"images for {type(self.network).__name__}")
        x = torch.tensor(images, dtype=torch.uint8, device=self._device).permute(0, 3, 1, 2)
        with _float32(self._device):
            pooled, spatial, scores = self.network(self.prepare(x.float().expand(-1, 3, -1, -1)))
            return Features(pooled, spatial.flatten(1), scores.softmax(1))

    def prepare(self, x: Tensor) -> Tensor:
        """Resize bytes ``[R, 3, H, W] float32`` and bring them into the network's range."""
        raise NotImplementedError


def _float32(device: torch.device | str) -> torch.autocast:
    """Whatever a caller's autocast says: figures are comparable in one precision alone."""
    return torch.autocast(torch.device(device).type, enabled=False)


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a file of weights, safetensors or torch's, without running anything in it.

    A ValueError if the file is missing, damaged, would run code, or is of another network.
    """
    try:
        if path.suffix == ".safetensors":
            check_regular(path)
            stored: Any = load_file(path)
        else:
            stored = load_plain(path, "features")
    except (OSError, SafetensorError) as error:
        raise ValueError(f"features must have a file that can be read, got {path}: {error}") from (
            error
        )
    except ValueError as error:
        raise ValueError(
            f"features must have a file of weights alone, got {path}, which is damaged or holds "
            "other things; nothing in it was run"
        ) from error
    if not isinstance(stored, dict) or not all(isinstance(v, Tensor) for v in stored.values()):
        raise ValueError(f"features must have a file of tensors, got {path}")
    weights = {k: value for k, value in stored.items() if not k.endswith("_tracked")}
    own = {k: value for k, value in network.state_dict().items() if not k.endswith("_tracked")}
    for name in sorted(own.keys() | weights.keys()):
        wanted, got = (_shape(tensors.get(name)) for tensors in (own, weights))
        if wanted != got:
            raise ValueError(
                f"features must have weights of this network, got {path}, where {name} is {got} "
                f"instead of {wanted}"
            )
    network.load_state_dict(weights, strict=False)  # which batches were counted matters to none


def _shape(value: Tensor | None) -> str:
    return "missing" if value is None else str(list(value.shape))
