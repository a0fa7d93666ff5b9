"""Every tiny pipeline, enabled: works, with few calls of its network, or is refused with a reason.

All are called with 16 steps, some with 50; the figures of all with 50 are in
``benchmarks/results/compatibility.json``, which ``python -m free.pipeline.compatibility`` writes.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from free.pipeline import compatibility
from free.pipeline.compatibility import Result, examine, main, table
from free.pipeline.tiny import REFUSED, TINY

ROOT = Path(__file__).parents[2]
#: What refusals name, and what they say instead.
REASONS = {
    "StableAudioPipeline": "got EDMDPMSolverMultistepScheduler",
    "StableDiffusionControlNetPipeline": "without controlnet .* call it without free.enable",
    "StableDiffusionInpaintPipeline": "StableDiffusionInpaintPipeline must loop over",
    "WanPipeline, two experts": "without transformer_2 .* call it without free.enable",
}


@pytest.mark.parametrize("name", TINY)
def test_pipelines_work_or_are_refused(name: str) -> None:
    found = examine(name, steps=16)
    assert found.expected, found
    if name in REFUSED:
        assert found.result == "refused"
        assert re.search(REASONS[name], found.why)
        return
    assert found.result == "works"
    # The first call asks twice more in each branch: the first step again, and one state alone.
    branches = found.calls // found.rounds
    assert found.plain in (16 * branches, 16 * branches + 1)  # PNDM takes a step twice
    assert found.rounds <= 9
    assert found.first <= branches * (9 + 2)


@pytest.mark.parametrize(
    "name", ["FluxPipeline, true guidance", "AuraFlowPipeline", "DDPMPipeline"]
)
def test_fifty_steps_take_at_most_twenty_calls(name: str) -> None:
    _few(examine(name))


@pytest.mark.parametrize(("name", "lowest"), [("AuraFlowPipeline", 40), ("DDPMPipeline", 20)])
def test_little_noise_beside_a_deterministic_scheduler(name: str, lowest: float) -> None:
    """The second one's own is stochastic: it is given DDIM."""
    found = examine(name, steps=16, stochasticity=0.01)
    assert found.result == "works", found
    assert found.psnr is not None
    assert lowest < found.psnr < 80
    assert found.rounds <= 10
    assert f"its own, {found.psnr:.0f} dB" in table([found])


def _few(found: Result) -> None:
    """At most 20 rounds, those that checks and measurements take included."""
    assert found.result == "works", found
    branches = found.calls // found.rounds
    assert found.rounds <= 16
    assert found.first <= 20 * branches
    assert found.plain >= 50 * branches


def _record() -> dict[str, Any]:
    text = (ROOT / "benchmarks" / "results" / "compatibility.json").read_text()
    record: dict[str, Any] = json.loads(text)
    return record


def test_the_figures_that_are_kept_are_of_all_pipelines() -> None:
    record = _record()
    assert (record["steps"], record["window"]) == (50, 8)
    results = [Result(**each) for each in record["pipelines"]]
    assert [each.pipeline for each in results] == list(TINY)
    for each in results:
        if each.pipeline in REFUSED:
            assert each.result == "refused"
        else:
            _few(each)


def test_the_page_has_the_table_of_these_figures() -> None:
    text = (ROOT / "docs" / "enable.md").read_text()
    results = [Result(**each) for each in _record()["pipelines"]]
    for line in table(results).splitlines():
        assert line in text, line


def test_what_should_not_be_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "DDPMPipeline"
    assert main(["--only", name, "--steps", "6", "--window", "4"]) == 0
    monkeypatch.setattr(compatibility, "REFUSED", {name})
    assert main(["--only", name, "--steps", "6", "--window", "4"]) == 1
    assert "works (it should not be so)" in capsys.readouterr().out
    monkeypatch.undo()

    def broken(prompts: int) -> Any:
        tiny = TINY["StableDiffusion3Pipeline"](prompts)
        tiny.pipe.transformer.train().pos_embed.register_forward_hook(
            lambda module, given, output: output + output.mean(0, keepdim=True)
        )
        return tiny

    def infinite(prompts: int) -> Any:
        tiny = TINY["StableDiffusion3Pipeline"](prompts)
        tiny.pipe.transformer.proj_out.bias.fill_(torch.inf)
        return tiny

    def old(prompts: int) -> Any:
        raise ImportError("free.pipeline.tiny needs diffusers' XPipeline")

    cases = {"refused": broken, "fails": infinite, "absent": old}
    monkeypatch.setattr(compatibility, "TINY", cases)
    found = {name: examine(name, 6, 4) for name in cases}
    assert {name: each.result for name, each in found.items()} == {name: name for name in cases}
    assert [each.expected for each in found.values()] == [False, False, True]


def test_figures_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--only", "DiTPipeline", "--steps", "4", "--json"]
    assert main([*asked, "-"]) == 0
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert "1/1 DiTPipeline" in printed.err
    assert [each["pipeline"] for each in record["pipelines"]] == ["DiTPipeline"]
    assert main([*asked, str(tmp_path / "figures.json")]) == 0
    kept = json.loads((tmp_path / "figures.json").read_text())
    assert kept["pipelines"] == record["pipelines"]
    assert "| DiTPipeline | ddpm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--only", "NoPipeline"], "--only must be one of DiTPipeline; .* got NoPipeline"),
        (["--steps", "1"], "--steps must be an integer in 2..1000, got 1"),
        (["--window", "0"], "--window must be an integer in 1..64, got 0"),
        (["--json", "/dev/null/x"], "--json must be a file that can be written"),
    ],
)
def test_options_are_checked(
    asked: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(asked)
    assert re.search(said, capsys.readouterr().err)
