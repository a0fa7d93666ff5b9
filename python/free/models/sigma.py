"""The auxiliary variance network: one number a state (supplement, section C)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from free.files import check_regular, read_json, shown, write_atomic, write_json
from free.models.config import check_size
from free.models.layers import TimestepEmbedder


class SigmaNet(nn.Module):
    """Where the variance of a transition lies between the posterior's and beta, from its state.

    Two strided convolutions, averaged over the image, and the timestep; for
    ``Schedule.ddpm(variance=network)``. It knows neither the generative model nor the label, and
    draft and target share its answer because both start from the same state.

    The states have ``channels`` channels, the first convolution has ``width``, the second twice as
    many. Raises ValueError if either is not an integer in 1..4096.
    """

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__()
        channels, width = check_size("channels", channels, 4096), check_size("width", width, 4096)
        self.channels, self.width = channels, width
        self.time = TimestepEmbedder(2 * width)
        self.first = nn.Conv2d(channels, width, 3, stride=2, padding=1, dtype=torch.float32)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, dtype=torch.float32)
        self.hidden = nn.Linear(4 * width, 2 * width, dtype=torch.float32)
        self.out = nn.Linear(2 * width, 1, dtype=torch.float32)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Weights in (0, 1), [R], of states ``x [R, channels, H, W]`` at timesteps ``t [R]``."""
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(
                f"x must have shape [R, {self.channels}, H, W] for this variance network, "
                f"got {list(x.shape)}"
            )
        h = F.silu(self.second(F.silu(self.first(x)))).mean((2, 3))
        h = F.silu(self.hidden(torch.cat([h, self.time(t)], dim=1)))
        return self.out(h).squeeze(1).sigmoid()

    def save_pretrained(self, folder: str | Path, training: dict[str, Any] | None = None) -> None:
        """Write ``model.safetensors`` and ``config.json``, with a record of the training."""
        folder = Path(folder)
        weights = {name: value.detach().cpu() for name, value in self.state_dict().items()}
        write_atomic(folder / "model.safetensors", lambda path: save_file(weights, path))
        config = {"kind": "sigma", "channels": self.channels, "width": self.width}
        write_json(folder / "config.json", {**config, "training": training or {}})

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: torch.device | str = "cpu") -> SigmaNet:
        """Read what :meth:`save_pretrained` wrote, for inference.

        Raises ValueError if a file is missing, damaged, or of something else.
        """
        folder = Path(folder)
        try:
            config = read_json(folder / "config.json", "configuration")
            if config.get("kind") != "sigma":
                raise ValueError(f"config.json is of kind {shown(config.get('kind'))}")
            check_regular(folder / "model.safetensors")
            with torch.device("meta"):  # no memory for more than the file holds
                network = cls(config["channels"], config["width"])
            network.load_state_dict(load_file(folder / "model.safetensors"), assign=True)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as e:
            raise ValueError(
                f"variance must be a folder of free train-variance, got {folder}: "
                f"{' '.join(str(e).split()):.300}"
            ) from e
        network.time.reset_frequencies("cpu")
        return network.to(device, torch.float32).eval().requires_grad_(False)
