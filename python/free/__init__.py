"""FREE: lossless, faster sampling for Diffusion Transformers."""

from free.drafters import Drafter, FeatureDrafter, FrozenDrafter
from free.models.dit import DiT, DiTConfig
from free.models.drafter import DrafterNet
from free.models.output import TeacherOutput
from free.pretrained import load_pretrained
from free.report import Report
from free.sampler import SamplingResult, SequentialSampler, SpeculativeSampler
from free.schedule import Schedule
from free.version import __version__

__all__ = [
    "DiT",
    "DiTConfig",
    "Drafter",
    "DrafterNet",
    "FeatureDrafter",
    "FrozenDrafter",
    "Report",
    "SamplingResult",
    "Schedule",
    "SequentialSampler",
    "SpeculativeSampler",
    "TeacherOutput",
    "__version__",
    "load_pretrained",
]
