"""The log: means of windows, what a killed run leaves, TensorBoard's events, the picture."""

import builtins
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from free.training.log import LossWindow, RunLog, draw_losses, read_log
from free.training.parallel import Ranks
from tests.training.runs import losses, run

#: Length of a step's gradients, of no matter here.
ONE = torch.tensor(1.0)


def _values(*numbers: float) -> list[dict[str, torch.Tensor]]:
    return [{"loss": torch.tensor(x), "noise": torch.tensor(2 * x)} for x in numbers]


def test_a_line_is_the_mean_of_its_steps_and_passes() -> None:
    window = LossWindow(Ranks())
    window.add(_values(1.0, 3.0), ONE)  # two passes of one step
    window.add(_values(5.0, 5.0), ONE)
    assert window.take(2) == {"loss": 3.5, "noise": 7.0}
    window.add(_values(1.0), ONE)
    assert window.take(3) == {"loss": 1.0, "noise": 2.0}


def test_an_open_window_survives_a_checkpoint() -> None:
    window = LossWindow(Ranks())
    window.add(_values(1.0), ONE)
    again = LossWindow(Ranks(), window.state(1))
    for each in (window, again):
        each.add(_values(4.0), ONE)
    assert window.take(2) == again.take(2) == {"loss": 2.5, "noise": 5.0}


def test_the_first_bad_step_is_named() -> None:
    window = LossWindow(Ranks())
    for value in (1.0, float("inf"), float("nan")):
        window.add(_values(value), ONE)
    with pytest.raises(FloatingPointError, match="the loss is inf at batch 8"):
        window.gather(10)  # steps 7, 8 and 9


@pytest.mark.parametrize("length", [float("inf"), float("nan")])
def test_gradients_that_are_not_finite_are_named_before_the_loss_is(length: float) -> None:
    window = LossWindow(Ranks())
    window.add(_values(1.0), ONE)
    window.add(_values(2.0), torch.tensor(length))
    window.add(_values(float("nan")), ONE)
    message = rf"the gradients' length is {length} at batch 8, where the loss is 2\.0"
    with pytest.raises(FloatingPointError, match=message):
        window.gather(10)


def test_lines_behind_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, False) as log:
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


def test_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    run(tmp_path, 6, log_every=2)
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.width > 2 * picture.height  # two parts beside each other
    (tmp_path / "loss.png").unlink()
    real = builtins.__import__

    def without(name, *arguments):
        if name.startswith("matplotlib"):
            raise ImportError
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    assert not draw_losses(tmp_path)
    assert not (tmp_path / "loss.png").exists()


def test_one_line_makes_no_picture(tmp_path: Path) -> None:
    run(tmp_path, 2)
    assert len(losses(tmp_path)) == 2
    assert not (tmp_path / "loss.png").exists()
