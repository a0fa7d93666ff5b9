"""Networks of published sizes with random weights: what they cost does not depend on these."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from free import DiT, DiTConfig, DrafterNet
from free.drafters import FeatureDrafter
from free.models.guidance import Guidance, GuidedTeacher
from free.models.output import TeacherOutput

#: Of the published sizes: what 3 of 4 channels are guided by.
CFG_SCALE, CFG_CHANNELS = 4.0, 3
LATENT = {256: 32, 512: 64}
#: Stands in for all of them in a trial.
TINY = "tiny"


def teacher_and_drafter(name: str, image: int, device: torch.device) -> tuple[DiT, FeatureDrafter]:
    """A model in bf16."""
    if name == TINY:
        config = DiTConfig(8, 4, 4, 16, 2, 2, num_classes=3)
    else:
        config = DiTConfig.named(name, LATENT[image])
    torch.manual_seed(0)
    with device:
        teacher, network = DiT(config), DrafterNet(config)
    for part in (teacher, network):
        _ready(part).to(torch.bfloat16)
    return teacher, FeatureDrafter(network, teacher)


def guided(
    teacher: DiT, scale: float, channels: int | None
) -> tuple[Callable[..., TeacherOutput], Guidance | None]:
    """The teacher, and its guidance; a scale of 1 is none."""
    if scale == 1.0:
        return teacher, None
    guidance = Guidance(scale, channels, teacher.null_label)
    return GuidedTeacher(teacher, guidance), guidance


@torch.no_grad()
def _ready(network: nn.Module) -> nn.Module:
    """Without zeros: adaLN-Zero starts with blocks that do nothing."""
    for weight in network.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.02)
    return network.eval().requires_grad_(False)
