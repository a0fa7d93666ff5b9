"""A network that is known exactly: the denoiser of images, each the centre of a Gaussian.

The law is a mixture of Gaussians of one bandwidth around every image, so the posterior mean of x0
is a softmax over images, whatever the noise; networks that predict the noise or a velocity follow
from it, in any dimension, without training. What such a network cannot show is how one behaves that
has learnt what images have in common.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from free import TeacherOutput


class KernelDensity:
    """The exact prediction for a mixture of Gaussians around images.

    Parameters
    ----------
    images : Tensor, shape [M, D], float32
    bandwidth : float
        Standard deviation around each.
    velocity : bool
        Predict flow matching's ``n - x0`` of ``x = (1 - t) x0 + t n``, else the noise of a DDPM
        with linear betas; between its 1,000 timesteps noise over signal is linear.
    largest : float
        With a velocity, what the network is told at t = 1.
    """

    num_classes = 1

    def __init__(
        self, images: Tensor, bandwidth: float, *, velocity: bool, largest: float = 1000.0
    ) -> None:
        self.images, self.bandwidth = images, bandwidth
        self.velocity, self.largest = velocity, largest
        self.sample_shape = (images.shape[1],)
        self._squares = images.square().sum(1)
        abar = np.cumprod(1.0 - np.linspace(1e-4, 2e-2, 1000))
        self._levels = np.sqrt(1.0 / abar - 1.0)

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        """Predict at states ``x [R, D]`` and times ``t [R]``; there is one label."""
        signal, noise = self._relation(t)
        variance = (signal * self.bandwidth).square() + noise.square()
        # log-densities of x around each image, but for what all have in common
        logits = signal * (x @ self.images.T) - signal.square() * self._squares / 2
        mean = (logits / variance).softmax(1) @ self.images
        x0 = mean + signal * self.bandwidth**2 / variance * (x - signal * mean)
        eps = (x - signal * x0) / noise
        return TeacherOutput(eps - x0 if self.velocity else eps)

    def _relation(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise of states at times ``t [R]``, [R, 1] each."""
        if self.velocity:
            time = (t.double() / self.largest).float()[:, None]
            return 1.0 - time, time
        level = torch.from_numpy(np.interp(t.double().numpy(), np.arange(1000), self._levels))
        signal = (1.0 + level.square()).rsqrt()
        return signal.float()[:, None], (signal * level).float()[:, None]

    def off(self, x: Tensor) -> Tensor:
        """How far samples ``x [B, D]`` are from the nearest image, in bandwidths, by root mean
        square: close to 1 for samples of the law in many dimensions.
        """
        distances = torch.cdist(x, self.images).amin(1)
        return distances / (self.bandwidth * x.shape[1] ** 0.5)


def folder(path: Path, size: int) -> Tensor:
    """The images of a folder as ``free train-teacher --data`` takes it, [M, 3 * size^2] in -1 .. 1.

    Resized as for training; those that are equal then count once.
    """
    from free.training.dataset.listing import list_images
    from free.training.dataset.pixels import read_image

    listing = list_images(path, None)
    rows = [read_image(listing.folder / name, size, 3, True) for name in listing.files]
    pixels = np.unique(np.stack(rows).transpose(0, 3, 1, 2).reshape(len(rows), -1), axis=0)
    return torch.from_numpy(pixels).float() / 127.5 - 1.0


def emoji(font: Path, size: int) -> Tensor:
    """Bitmaps of a font such as NotoColorEmoji.ttf, on white, [M, 3 * size^2] in -1 .. 1."""
    from fontTools.ttLib import TTFont
    from PIL import Image

    rows = []
    for strike in TTFont(font)["CBDT"].strikeData:
        for glyph in strike.values():
            picture = Image.open(io.BytesIO(glyph.imageData)).convert("RGBA")
            side = max(picture.size)
            square = Image.new("RGBA", (side, side), "white")
            corner = ((side - picture.width) // 2, (side - picture.height) // 2)
            square.alpha_composite(picture, corner)
            rows.append(_row(square.convert("RGB"), size))
    return torch.from_numpy(np.unique(np.stack(rows), axis=0)).float()


def digits(size: int) -> Tensor:
    """The 5,000 digits of MNIST that an extra of the package has, in three equal channels."""
    from PIL import Image

    from free.images.mnist import load_mnist

    pixels, _ = load_mnist()
    pictures = ((pixels + 1) * 127.5).round().byte().view(-1, 28, 28).numpy()
    rows = [_row(Image.fromarray(picture).convert("RGB"), size) for picture in pictures]
    return torch.from_numpy(np.stack(rows)).float()


def _row(picture, size: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    from PIL import Image

    small = picture.resize((size, size), Image.Resampling.BOX)
    return (np.asarray(small, dtype=np.float32) / 127.5 - 1.0).transpose(2, 0, 1).ravel()
