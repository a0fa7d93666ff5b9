"""FREE: lossless, faster sampling for Diffusion Transformers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from free.drafters import Drafter, FeatureDrafter, FrozenDrafter
from free.models.config import DiTConfig
from free.models.dit import DiT
from free.models.drafter import DrafterNet
from free.models.output import TeacherOutput
from free.pretrained import load_pretrained
from free.rounds.relaxation import Relaxation
from free.rounds.report import Report
from free.rounds.trajectory import Trajectory, committed_transitions, log_density
from free.sampling.request import SamplingResult
from free.sampling.sequential import SequentialSampler
from free.sampling.speculative import SpeculativeSampler
from free.schedule.schedule import Schedule
from free.version import __version__
from free.window import AutoWindow

if TYPE_CHECKING:
    from free.pipeline.enable import disable as disable
    from free.pipeline.enable import enable as enable
    from free.pipeline.enable import enabled as enabled
    from free.pipeline.enable import summary as summary
    from free.pipeline.pipeline import FreePipeline as FreePipeline

#: What needs diffusers, which takes longer to import than all the rest; by where it is.
_OF_DIFFUSERS = {
    "FreePipeline": "free.pipeline",
    "disable": "free.pipeline.enable",
    "enable": "free.pipeline.enable",
    "enabled": "free.pipeline.enable",
    "summary": "free.pipeline.enable",
}

__all__ = [
    "AutoWindow",
    "DiT",
    "DiTConfig",
    "Drafter",
    "DrafterNet",
    "FeatureDrafter",
    "FrozenDrafter",
    "Relaxation",
    "Report",
    "SamplingResult",
    "Schedule",
    "SequentialSampler",
    "SpeculativeSampler",
    "TeacherOutput",
    "Trajectory",
    "__version__",
    "committed_transitions",
    "load_pretrained",
    "log_density",
]


def __getattr__(name: str) -> Any:
    if name not in _OF_DIFFUSERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_OF_DIFFUSERS[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "diffusers":
            raise
        raise ImportError(
            f"free.{name} needs diffusers: pip install 'free-dit[diffusers]'"
        ) from error
