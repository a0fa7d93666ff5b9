"""A GPU whose memory is full: the error says what was asked for, and what would need less."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from free import Schedule, SequentialSampler, SpeculativeSampler, TeacherOutput
from free.cli import app
from free.devices import held
from tests.networks import CallableDrafter, MixtureTeacher
from tests.training import runs

SAID = "CUDA out of memory. Tried to allocate 2.00 GiB."


class Full(MixtureTeacher):
    """Has no room for more than some rows."""

    room = 0

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
        if len(x) > self.room:
            raise torch.OutOfMemoryError(SAID)
        return super().__call__(x, t, y)


@pytest.mark.parametrize("cfg_scale", [1.0, 1.5])
def test_a_speculative_run(cfg_scale: float) -> None:
    teacher = Full(4)
    teacher.room = 6  # the first transition is a plain one
    drafter = CallableDrafter(MixtureTeacher(4))
    sampler = SpeculativeSampler(teacher, drafter, Schedule.ddpm(10), 8, cfg_scale)
    with pytest.raises(torch.OutOfMemoryError, match="batch of 3 with window 8: ") as caught:
        sampler.sample(labels=[0, 1, 0])
    text = str(caught.value)
    rows = "48 rows (3 samples x 8 rows x 2 for guidance)" if cfg_scale > 1 else "24 rows (3"
    assert f"teacher calls of up to {rows}" in text
    assert "0.00 GiB allocated" in text
    assert "a smaller window" in text
    assert text.endswith(SAID)
    assert str(caught.value.__cause__) == SAID


def test_a_plain_run_and_a_short_one() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="batch of 2 with window 1: .* 2 rows"):
        SequentialSampler(Full(4), Schedule.ddpm(10)).sample([0, 1])
    sampler = SpeculativeSampler(Full(4), "frozen", Schedule.ddpm(4), 300)
    with pytest.raises(torch.OutOfMemoryError, match="batch of 1 with window 4: .* 4 rows"):
        sampler.sample([0])


def test_other_errors_are_left_alone() -> None:
    class Broken(MixtureTeacher):
        def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> TeacherOutput:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="^CUDA error: an illegal"):
        SequentialSampler(Broken(4), Schedule.ddpm(10)).sample([0, 1])


def test_a_step_of_training(tmp_path: Path) -> None:
    def full(*_: object) -> dict[str, Tensor]:
        raise torch.OutOfMemoryError(SAID)

    with pytest.raises(torch.OutOfMemoryError) as caught:
        runs.run(tmp_path, 2, loss=full, micro_batch=4)
    assert str(caught.value) == (
        "out of memory in a training step of 8 images in 1 process, 4 a pass, 0.00 GiB allocated. "
        f"A smaller micro_batch or gradient_checkpointing or precision bf16 needs less. {SAID}"
    )


def test_what_is_held_is_the_devices_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(
        torch.cuda, "memory_allocated", lambda device: asked.append(device) or 3 * 2**29
    )
    assert held(torch.device("cuda", 1)) == "1.50 GiB allocated"
    held(torch.device("cpu"))
    held(None)
    assert asked == [torch.device("cuda", 1), None, None]


def test_a_command_says_it_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> TeacherOutput:
        raise torch.OutOfMemoryError(SAID)

    monkeypatch.setattr("free.models.dit.DiT.forward", full)
    out = tmp_path / "x.png"
    result = CliRunner().invoke(
        app, ["sample", "--labels", "1", "--engine", "torch", "--out", str(out)]
    )
    assert result.exit_code == 1, result.output
    assert result.output.strip().splitlines()[-1].startswith("error: out of memory in sampling")
    assert "Traceback" not in result.output
    assert not out.exists()
