"""A run survives being killed and a full disk, and refuses to go on as another one."""

import json
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from free import DrafterNet
from free.training.run_folder import misfit
from tests.disks import full_disk
from tests.models.checkpoints.files import Planted
from tests.training.runs import (
    PROCESSES,
    SHAPE,
    loss,
    require_same_run,
    run,
    run_in_process,
    state,
)


def test_kill_9_at_any_moment(tmp_path: Path) -> None:
    """A run that is begun again gives, bit for bit, the one that was not killed."""
    folder = tmp_path / "killed"
    settings = {"save_every": 5, "log_every": 3, "warmup": 3, "decay": "cosine"}
    process = PROCESSES.Process(target=run_in_process, args=(folder, 30, True), kwargs=settings)
    process.start()
    run(tmp_path / "whole", 30, **settings)
    deadline = time.monotonic() + 60
    while not (folder / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random.Random().uniform(0, 0.5))  # whatever it is doing then
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    reached = state(folder)["step"]
    assert 5 <= reached < 30
    run(folder, 30, **settings)
    starts = json.loads((folder / "config.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, reached]  # nothing else was lost
    require_same_run(folder, tmp_path / "whole")


def test_a_run_can_go_on_for_longer(tmp_path: Path) -> None:
    """At a constant rate; a finished one is only read again."""
    whole, _ = run(tmp_path / "whole", 12)
    run(tmp_path / "more", 7)
    more, record = run(tmp_path / "more", 12)
    again, same = run(tmp_path / "more", 12)
    for network in (more, again):
        assert torch.equal(network[0].weight, whole[0].weight)
    assert same["loss"] == record["loss"]
    with pytest.raises(ValueError, match="steps must be at least the 12 made in .*, got 9"):
        run(tmp_path / "more", 9)
    run(tmp_path / "cosine", 7, decay="cosine")
    with pytest.raises(ValueError, match=r"state\.pt with steps 7 \(now 12\)$"):
        run(tmp_path / "cosine", 12, decay="cosine")


def test_another_run_is_refused_by_what_differs(tmp_path: Path) -> None:
    run(tmp_path, 2, extra={"teacher": "abc", "objective": "mse"})
    differs = r"state\.pt with seed 0 \(now 1\), teacher 'abc' \(now 'abd'\)$"
    message = f"folder must be empty or hold a run of the same settings, got .*{differs}"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, 2, seed=1, extra={"teacher": "abd", "objective": "mse"})
    with pytest.raises(ValueError, match="got .* with the weights of another model: x_embedder"):
        run(tmp_path, 2, DrafterNet(SHAPE), extra={"teacher": "abc", "objective": "mse"})


def test_settings_are_compared_name_by_name() -> None:
    assert misfit({"a": 1, "b": 2}, {"b": 2, "c": 3}) == "a 'unset' (now 1), c 3 (now 'unset')"
    stored = {"data": {"source": "folder", "digest": "ab", "names": ["x" * 99]}, "init": {}}
    now = {"data": {"source": "folder", "digest": "cd", "names": []}, "init": None}
    assert misfit(now, stored) == (
        f"data.digest 'ab' (now 'cd'), data.names ['{'x' * 55}... (now []), init {{}} (now None)"
    )
    assert misfit(stored, stored) == ""


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    def loss_that_starts_another(*arguments):
        message = "folder must not be in use by another run, got .*run, which is lock"
        with pytest.raises(ValueError, match=message):
            run(tmp_path / "run", 2)
        return loss(*arguments)

    run(tmp_path / "run", 1, loss=loss_that_starts_another)
    run(tmp_path / "run", 2)  # it is free again
    with pytest.raises(ValueError, match="seed"):
        run(tmp_path / "run", 2, seed=1)
    run(tmp_path / "run", 2)  # after an error too


def _with(*place: Any, value: Any) -> Callable[[dict[str, Any]], object]:
    """Puts a value into a part of a checkpoint."""

    def change(stored: Any) -> None:
        for key in place[:-1]:
            stored = stored[key]
        stored[place[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with("settings", value=[1]), r"settings must be dict, got \[1\]"),
        (_with("settings", "seed", value=torch.zeros(2)), "TypeError.*not JSON serializable"),
        (_with("step", value="2"), "step must be int, got '2'"),
        (_with("step", value=-1), "step must be at least 0, got -1"),
        (_with("weights", value={}), "KeyError"),
        (_with("weights", "model", "0.weight", value=3), "AttributeError"),
        (_with("weights", "average", value={"x": 1}), "RuntimeError"),
        (_with("weights", "optimizer", value={"state": {}}), "KeyError"),
        (_with("weights", "optimizer", "state", 1, "exp_avg", value=torch.zeros(9)), "of weight 1"),
        (_with("journal", value={}), "KeyError"),
        (_with("journal", "losses", "names", value=[1, 2, 3]), "losses must have a column"),
        (_with("journal", "losses", "values", value=torch.ones(2, 2)), "losses must have a column"),
        (_with("journal", "evaluations", value=[{"step": "1"}]), "KeyError|must have step"),
        (_with("journal", "seconds", value="long" * 99), "seconds must be a number, got 'long"),
    ],
)
def test_parts_of_a_checkpoint_that_are_something_else(tmp_path, change, message) -> None:
    run(tmp_path, 2)
    stored = state(tmp_path)
    change(stored)
    torch.save(stored, tmp_path / "state.pt")
    loads = r"folder must hold a checkpoint that loads, got .*state\.pt: "
    with pytest.raises(ValueError, match=f"{loads}.*({message})") as caught:
        run(tmp_path, 4)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "[" * 100_000, "record .*config.json is missing or malformed: .*64 deep"),
        ("config.json", "[]", "record .*config.json is missing or malformed: got list"),
        ("config.json", '{"starts": 3}', "starts in .*config.json must be a list, got 3"),
        ("skipped.json", "{}", "record .*skipped.json is missing or malformed: got dict"),
        ("skipped.json", '["a"]', "skipped.json must be a list of files with reasons, got"),
        ("log.csv", "step\nmany\n", "must hold the log of a run, got .*log.csv, damaged: could"),
        ("log.csv", "step,loss\n1,low\n", "must hold the log of a run, got .*damaged: could not"),
    ],
)
def test_damaged_records_are_named(tmp_path, name, content, message) -> None:
    run(tmp_path, 2)
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        run(tmp_path, 4, log_every=1)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", {"step": 2}, Planted])
def test_a_damaged_checkpoint(tmp_path: Path, content: object) -> None:
    """One that would run code does not, nor is there torch's advice how to have it run."""
    path, harm = tmp_path / "state.pt", tmp_path / "harm"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"settings": Planted(harm)} if content is Planted else content, path)
    wish = "pickle asks for .* nothing in it" if content is Planted else ""
    with pytest.raises(ValueError, match=f"a checkpoint that loads, got .*state.*{wish}") as caught:
        run(tmp_path, 4)
    assert "weights_only" not in str(caught.value)
    assert not harm.exists()


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """Writing fails in the middle."""
    settings = {"save_every": 5, "log_every": 5}
    run(tmp_path, 5, **settings)
    before = (tmp_path / "state.pt").read_bytes()
    message = r"of step 10 could not be written to .*state\.pt \(the one before it is whole\): "
    with full_disk(len(before) // 2), pytest.raises(OSError, match=message):
        run(tmp_path, 10, **settings)
    assert (tmp_path / "state.pt").read_bytes() == before
    assert not list(tmp_path.glob(".state*"))
    run(tmp_path, 10, **settings)
    run(tmp_path / "whole", 10, **settings)
    require_same_run(tmp_path, tmp_path / "whole")


def test_no_room_for_the_first_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a writer that was killed has left is removed."""
    tmp_path.joinpath(".state-abc.pt").write_bytes(b"half")

    def full(state, file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"\(there is none before\): .*No space left on device"):
        run(tmp_path, 2)
    assert not list(tmp_path.glob("*state*"))
    assert not list(tmp_path.glob(".state*"))
