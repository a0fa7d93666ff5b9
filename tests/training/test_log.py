"""The log: means of losses, what a killed run leaves, TensorBoard's events, the picture."""

import math
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from free.training.log import LossMeans, RunLog, draw_losses, read_log
from free.training.parallel import Ranks
from tests.training.runs import losses, run

#: Length of a step's gradients, of no matter here.
ONE = torch.tensor(1.0)


def _values(*numbers: float) -> list[dict[str, torch.Tensor]]:
    return [{"loss": torch.tensor(x), "noise": torch.tensor(2 * x)} for x in numbers]


def test_a_line_is_the_mean_of_its_steps_and_passes() -> None:
    """Also where a checkpoint comes in the middle of it."""
    means = LossMeans(Ranks())
    means.add(_values(1.0, 3.0), ONE)  # two passes of one step
    means.add(_values(5.0, 5.0), ONE)
    assert means.take(2) == {"loss": 3.5, "noise": 7.0}
    means.add(_values(1.0), ONE)
    again = LossMeans(Ranks(), means.state(3))
    for each in (means, again):
        each.add(_values(4.0), ONE)
        assert each.take(4) == {"loss": 2.5, "noise": 5.0}


def test_the_first_bad_step_is_named() -> None:
    for loss, length, message in (
        (math.inf, 1.0, "the loss is inf at batch 8"),
        # Gradients are named before the loss that they lead to.
        (2.0, math.inf, r"the gradients' length is inf at batch 8, where the loss is 2\.0"),
        (2.0, math.nan, r"the gradients' length is nan at batch 8, where the loss is 2\.0"),
    ):
        means = LossMeans(Ranks())
        for value, norm in ((1.0, 1.0), (loss, length), (math.nan, 1.0)):
            means.add(_values(value), torch.tensor(norm))
        with pytest.raises(FloatingPointError, match=message):
            means.gather(10)  # steps 7, 8 and 9


def test_lines_behind_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, False)
    for step in (3, 6, 9):
        log.write(step, {"loss": step / 3})
    with (tmp_path / "log.csv").open("a") as file:
        file.write("12,0.")  # killed while it wrote
    RunLog(tmp_path, 12, False)
    assert [line["step"] for line in read_log(tmp_path)] == [3, 6, 9]
    RunLog(tmp_path, 7, False)
    assert read_log(tmp_path) == [{"step": 3.0, "loss": 1.0}, {"step": 6.0, "loss": 2.0}]
    RunLog(tmp_path, 0, False)
    assert read_log(tmp_path) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_the_same(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, 6, log_every=2, save_every=2, tensorboard=True)
    run(tmp_path, 8, log_every=2, save_every=2, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = events.Scalars("train/loss")
    assert [event.step for event in found] == [2, 4, 6, 8]
    lines = read_log(tmp_path)
    assert [event.value for event in found] == pytest.approx([line["loss"] for line in lines])


def test_tensorboard_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"tensorboard: pip install 'free-dit\[train\]'"):
        run(tmp_path, 2, tensorboard=True)


@pytest.mark.usefixtures("picture")
def test_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn of two lines at least, where matplotlib is installed."""
    pytest.importorskip("matplotlib")
    picture = tmp_path / "loss.png"
    run(tmp_path, 2, log_every=2)
    assert len(losses(tmp_path)) == 1
    assert not picture.exists()
    run(tmp_path, 6, log_every=2)
    with Image.open(picture) as image:
        assert image.width > 2 * image.height  # two parts beside each other
    picture.unlink()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not draw_losses(tmp_path)
    assert not picture.exists()
