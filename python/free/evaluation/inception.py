"""Inception v3 as FID is defined by it: the graph of 2015-12-05 and its weights.

Szegedy et al. 2015, with the peculiarities of that graph: averages at the border leave the padding
out, the last block takes a maximum instead of an average, images are resized as TensorFlow 1 did,
and the class scores are taken without their bias. Features are those that ADM's evaluator reads.

Our own because torch-fidelity, which torchmetrics' FID is built on, pytorch-fid and clean-fid
import torchvision, whose wheels in the registry do not load beside a CPU build of torch (operator
torchvision::nms does not exist). None of them gives the spatial features of sFID.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from free.evaluation.features import ColourFeatures
from free.files import digest

#: The usual file, as pytorch-fid and torch-fidelity publish it.
WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
_DIGEST = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

#: Branches of the blocks: layers one after the other, as channels@kernel; /2 is a stride, + a fork.
_A = "1x1 64@1; 5x5 48@1 64@5; 3x3dbl 64@1 96@3 96@3; _pool {}@1"
_B = "3x3 384@3/2; 3x3dbl 64@1 96@3 96@3/2; _pool"
_C = (
    "1x1 192@1; 7x7 {0}@1 {0}@1x7 192@7x1; 7x7dbl {0}@1 {0}@7x1 {0}@1x7 {0}@7x1 192@1x7; "
    "_pool 192@1"
)
_D = "3x3 192@1 320@3/2; 7x7x3 192@1 192@1x7 192@7x1 192@3/2; _pool"
_FORK = "384@1x3+384@3x1"
_E = f"1x1 320@1; 3x3 384@1 {_FORK}; 3x3dbl 448@1 384@3 {_FORK}; _pool 192@1"
#: Name, branches and pooling of each block.
_BLOCKS = (
    ("5b", _A.format(32), "average"),
    ("5c", _A.format(64), "average"),
    ("5d", _A.format(64), "average"),
    ("6a", _B, "strided"),
    ("6b", _C.format(128), "average"),
    ("6c", _C.format(160), "average"),
    ("6d", _C.format(160), "average"),
    ("6e", _C.format(192), "average"),
    ("7a", _D, "strided"),
    ("7b", _E, "average"),
    ("7c", _E, "maximum"),
)


class _Conv(nn.Module):
    """A layer such as ``96@3``, ``192@1x7`` or ``384@3/2``, padded by default unless it strides."""

    def __init__(self, inputs: int, layer: str, padded: bool | None = None) -> None:
        super().__init__()
        channels, _, shape = layer.partition("@")
        kernel, _, stride = shape.partition("/")
        height, _, width = kernel.partition("x")
        size = int(height), int(width or height)
        padded = not stride if padded is None else padded
        padding = (size[0] // 2, size[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(
            inputs, int(channels), size, int(stride or 1), padding, bias=False, dtype=torch.float32
        )
        self.bn = nn.BatchNorm2d(int(channels), eps=0.001, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Branches beside each other, joined along the channels; layers go by their branch's name."""

    def __init__(self, inputs: int, branches: str, pool: str) -> None:
        super().__init__()
        self._pool, self.outputs = pool, 0
        #: For each branch, the names of its layers, step by step.
        self._branches: dict[str, list[list[str]]] = {}
        for text in branches.split("; "):
            branch, *path = text.split()
            channels = inputs
            steps = self._branches[branch] = []
            for index, step in enumerate(path, 1):
                name = f"branch{branch}" if len(path) == 1 else f"branch{branch}_{index}"
                fork = step.split("+")
                steps.append([name] if len(fork) == 1 else [name + "a", name + "b"])
                for layer_name, layer in zip(steps[-1], fork, strict=True):
                    self.add_module(layer_name, _Conv(channels, layer))
                channels = sum(int(layer.partition("@")[0]) for layer in fork)
            self.outputs += channels

    def forward(self, x: Tensor) -> Tensor:
        joined = []
        for branch, steps in self._branches.items():
            y = self._pooled(x) if branch == "_pool" else x
            for names in steps:
                y = torch.cat([self.get_submodule(name)(y) for name in names], 1)
            joined.append(y)
        return torch.cat(joined, 1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self._pool == "average":
            return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return F.max_pool2d(x, 3, 1, 1) if self._pool == "maximum" else F.max_pool2d(x, 3, 2)


class InceptionV3(nn.Module):
    """The network; its weights have the names of the usual file."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, "32@3/2")
        self.Conv2d_2a_3x3 = _Conv(32, "32@3", padded=False)
        self.Conv2d_2b_3x3 = _Conv(32, "64@3")
        self.Conv2d_3b_1x1 = _Conv(64, "80@1")
        self.Conv2d_4a_3x3 = _Conv(80, "192@3", padded=False)
        channels = 192
        for name, branches, pool in _BLOCKS:
            block = _Mixed(channels, branches, pool)
            self.add_module(f"Mixed_{name}", block)
            channels = block.outputs
        self.fc = nn.Linear(channels, 1008, dtype=torch.float32)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look at images x [R, 3, 299, 299], float32 in [-1, 1).

        Returns
        -------
        pooled : Tensor, shape [R, 2048]
            ``pool_3`` of the graph.
        spatial : Tensor, shape [R, 7, 17, 17]
            The first channels of ``mixed_6/conv`` (Nash et al. 2021).
        scores : Tensor, shape [R, 1008]
            Without the bias.
        """
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        spatial = x
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                if name == "Mixed_6d":
                    spatial = block.get_submodule("branch1x1")(x)[:, :7]
                x = block(x)
        pooled = x.mean((2, 3))
        return pooled, spatial, pooled @ self.fc.weight.T


class InceptionFeatures(ColourFeatures):
    """Features of FID, sFID and the Inception Score.

    The path is that of the usual file, or of one of the same tensors. Only the usual one, told by
    its SHA-256, makes the figures FID.
    """

    dims = 2048
    classes: int | None = None  # 1008 of them, in an order of their own

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        super().__init__(InceptionV3, path, device)
        sha256 = digest(path)
        self.is_inception = sha256 == _DIGEST
        self.name = "Inception v3"
        if not self.is_inception:
            self.name += f" ({path.name}, SHA-256 {sha256[:8]}...)"

    def prepare(self, x: Tensor) -> Tensor:
        """Resize bytes ``[R, 3, H, W] float32`` to 299 x 299, in [-1, 1)."""
        return (resize_like_tensorflow(x, 299) - 128) / 128


def resize_like_tensorflow(x: Tensor, size: int) -> Tensor:
    """Bilinear, pixel ``i`` of the result at ``i * old / new`` of x [R, C, H, W].

    PyTorch's own puts it half a pixel further on, which moves FID by tenths.
    """

    def weights(extent: int) -> Tensor:
        # Float32, as there: 64 bits would round some pixels to their neighbours.
        place = torch.arange(size, dtype=torch.float32, device="cpu") * (
            torch.tensor(extent, dtype=torch.float32, device="cpu") / size
        )
        low = place.floor().long()
        share = place - low
        matrix = torch.zeros(size, extent, dtype=torch.float32, device="cpu")
        rows = torch.arange(size, device="cpu")
        matrix[rows, low] += 1 - share
        matrix[rows, (low + 1).clamp(max=extent - 1)] += share
        return matrix.to(x.device)

    return weights(x.shape[2]) @ x @ weights(x.shape[3]).T


def inception_path(text: str | None) -> Path:
    """Where the weights are: the path given, or where pytorch-fid keeps its download.

    A ValueError says what to download, and where to put it.
    """
    home = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
    path = home if text is None else Path(os.path.expanduser(text))  # noqa: PTH111
    if not path.is_file():
        raise ValueError(
            f"features must be inception:PATH with the weights of FID, got no file {path}. "
            f"Download {WEIGHTS} (96 MB) from the release 'fid_weights' of mseitzer/pytorch-fid on "
            f"GitHub and give its path, or put it at {home} for --features inception"
        )
    return path
