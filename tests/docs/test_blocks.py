"""Every block of Python of README and docs/ runs: page by page, a block after those before it.

They are run as they stand but for sizes and devices.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import free
from free import Schedule
from tests.docs import pages
from tests.examples.policy.lerobot import diffusion_model
from tests.exports import Export

BLOCKS = pages.blocks()

#: What makes blocks short, and lets them run on a CPU.
CHANGED = {
    '"cuda"': '"cpu"',
    "250": "6",
    "Schedule.ddpm()": "Schedule.ddpm(6)",
    "guidance_scale=4.0": "guidance_scale=4.0, num_inference_steps=4",
    'pipe("tench", ': 'pipe("tench", num_inference_steps=4, ',
    '"samples.npz", 1000': '"drawn.npz", 2',
}

#: Pages whose blocks are not run.
NOT_RUN = {
    "docs/tensorrt.md": "TensorRT and a GPU; tests/gpu/test_tensorrt.py",
}


def _digits() -> dict[str, Any]:
    teacher, drafter = free.load_pretrained("digits")
    return {"teacher": teacher, "drafter": drafter, "schedule": Schedule.ddpm(6), "labels": [3, 7]}


def _evaluated() -> dict[str, Any]:
    samples = torch.rand(130, 1, 28, 28) * 2 - 1
    return {"result": SimpleNamespace(samples=samples), "labels": [i % 10 for i in range(130)]}


def _flow() -> dict[str, Any]:
    return {"sit": lambda x, t, y: torch.zeros_like(x)}


def _nothing_saved() -> dict[str, Any]:
    shutil.rmtree("my-dit")
    return {}


def _deterministic() -> dict[str, Any]:
    return {**_digits(), **_pipeline()}


def _pipeline() -> dict[str, Any]:
    pytest.importorskip("transformers")
    from free.pipeline.tiny import TINY

    return {"pipe": TINY["DiTPipeline"](2).pipe}


def _policies() -> dict[str, Any]:
    model = diffusion_model(num_inference_steps=6)
    batch = {
        "observation.state": torch.zeros(1, 2, 3),
        "observation.environment_state": torch.zeros(1, 2, 2),
    }
    theirs = SimpleNamespace(
        model=lambda x, t, cond: x + cond.mean(),
        noise_scheduler=model.noise_scheduler,
        num_inference_steps=6,
        horizon=4,
        action_dim=2,
        obs_as_cond=True,
    )
    own = SimpleNamespace(diffusion=model)
    return {"policy_of_lerobot": own, "batch": batch, "theirs": theirs}


def _published() -> dict[str, Any]:
    shutil.rmtree("facebook")  # links to files that other pages read; these would be written to
    _pipeline()["pipe"].save_pretrained("facebook/DiT-XL-2-256")  # found before a hub is asked
    return {}


#: What a page takes as given: names that its text speaks of. ``free`` and ``torch`` always.
GIVEN = {
    "README.md": _published,
    "docs/checkpoints.md": _nothing_saved,
    "docs/deterministic.md": _deterministic,
    "docs/drafting.md": _digits,
    "docs/enable.md": _pipeline,
    "docs/relaxation.md": _digits,
    "docs/evaluate.md": _evaluated,
    "docs/family.md": _flow,
    "docs/policies.md": _policies,
}


@pytest.mark.parametrize("page", [page for page in BLOCKS if page not in NOT_RUN])
def test_the_blocks_of_a_page(page: str, place: Path, request: pytest.FixtureRequest) -> None:
    if page == "docs/engines.md":
        export: Export = request.getfixturevalue("guided_export")
        shutil.copytree(export.folder, place / "engine")
    scope: dict[str, Any] = {"free": free, "torch": torch, **GIVEN.get(page, dict)()}
    for block in BLOCKS[page]:
        for written, meant in CHANGED.items():
            block = block.replace(written, meant)
        exec(compile(block, page, "exec"), scope)
    if page in CHECKED:
        CHECKED[page](scope)


def _same_law(scope: dict[str, Any]) -> None:
    assert scope["result"].samples.shape == scope["reference"].samples.shape == (4, 1, 28, 28)


def _as_the_sampler_draws(scope: dict[str, Any]) -> None:
    drawn = scope["sampler"].sample([3, 7], 0).samples
    torch.testing.assert_close(scope["images"], drawn, rtol=1e-3, atol=1e-3)


def _chunks_of_lerobot(scope: dict[str, Any]) -> None:
    assert scope["chunk"].shape == (16, 2)
    assert scope["chunks"].shape == (1, 8, 2)
    assert scope["teacher"].conditions is scope["seen"]


def _can_be_read(scope: dict[str, Any]) -> None:
    for name in ("my-dit", "my-dit.pt", "my-dit-diffusers"):
        free.DiT.from_pretrained(name)
    assert free.load_pretrained("my-dit", "my-drafter")[1].sampling["window"] == 16


#: What blocks must have made, where running to the end says little. Those of docs/drafting.md are
#: compared with the drafter that they rebuild in tests/sampling/test_speculative.py.
CHECKED = {
    "README.md": _same_law,
    "docs/how-it-works.md": _as_the_sampler_draws,
    "docs/checkpoints.md": _can_be_read,
    "docs/policies.md": _chunks_of_lerobot,
}


def test_reasons_are_of_pages() -> None:
    assert {*NOT_RUN, *GIVEN, *CHECKED} <= BLOCKS.keys()
