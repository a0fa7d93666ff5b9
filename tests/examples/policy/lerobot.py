"""LeRobot's own ``DiffusionModel``, out of the installed package, with random weights.

The package's wheel is installed without what it depends on, which is another torch, another
diffusers and torchvision: of all of that the model's module needs names to import, and its denoiser
and its sampling loop nothing.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from torch import nn

#: Modules that the model's imports, and what it takes from them.
IMPORTED: dict[str, dict[str, Any]] = {
    "torchvision": {},  # for encoders of images
    "lerobot.policies.diffusion.configuration_diffusion": {"DiffusionConfig": SimpleNamespace},
    "lerobot.policies.pretrained": {"PreTrainedPolicy": nn.Module},
    "lerobot.policies.utils": {
        "get_device_from_parameters": lambda module: next(module.parameters()).device,
        "get_dtype_from_parameters": lambda module: next(module.parameters()).dtype,
        "get_output_shape": None,
        "populate_queues": None,
    },
    "lerobot.utils.constants": {
        "ACTION": "action",
        "OBS_ENV_STATE": "observation.environment_state",
        "OBS_IMAGES": "observation.images",
        "OBS_STATE": "observation.state",
    },
}


def diffusion_model(**settings: Any) -> Any:
    """A small ``DiffusionModel`` with the defaults of its configuration but for sizes."""
    pytest.importorskip("einops")
    try:
        files = importlib.metadata.distribution("lerobot")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("lerobot is not installed")
    modules = {}
    for name, contents in IMPORTED.items():
        modules[name] = ModuleType(name)
        vars(modules[name]).update(contents)
    path = files.locate_file("lerobot/policies/diffusion/modeling_diffusion.py")
    spec = importlib.util.spec_from_file_location("modeling_diffusion", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, modules):
        spec.loader.exec_module(module)
    config = {
        "n_obs_steps": 2,
        "horizon": 8,
        "n_action_steps": 4,
        "robot_state_feature": SimpleNamespace(shape=(3,)),
        "env_state_feature": SimpleNamespace(shape=(2,)),
        "action_feature": SimpleNamespace(shape=(2,)),
        "image_features": {},
        "down_dims": (8, 16),
        "kernel_size": 3,
        "n_groups": 4,
        "diffusion_step_embed_dim": 8,
        "use_film_scale_modulation": True,
        "noise_scheduler_type": "DDPM",
        "num_train_timesteps": 100,
        "beta_schedule": "squaredcos_cap_v2",
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "prediction_type": "epsilon",
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "num_inference_steps": None,
        "compile_model": False,
    }
    return module.DiffusionModel(SimpleNamespace(**config | settings)).eval()
