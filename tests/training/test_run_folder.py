"""A run survives being killed and a full disk, and refuses to go on as another one."""

import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from free import DiTConfig, DrafterNet
from free.training.run_folder import misfit
from free.training.trainer import TrainConfig, train
from tests.training.runs import images, loss, losses, network, run

ROOT = Path(__file__).parents[2]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("decay", ["constant", "cosine"])
def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path: Path, decay: str) -> None:
    settings = {"warmup": 3, "decay": decay, "save_every": 5, "log_every": 3}
    whole, _ = run(tmp_path / "whole", 20, **settings)
    calls = 0

    def fragile(*arguments):
        nonlocal calls
        calls += 1
        if calls == 13:
            raise KilledError
        return loss(*arguments)

    config = TrainConfig(20, 8, 1e-2, ema_decay=0.9, **settings)
    folder = tmp_path / "killed"
    with pytest.raises(KilledError):
        train(network(), fragile, images(), config, folder, progress=False)
    resumed, _ = train(network(), fragile, images(), config, folder, progress=False)
    assert calls == 13 + 10  # batches 11 and 12 were lost, nothing else
    for one, two in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, two)
    assert losses(folder) == losses(tmp_path / "whole")


def _program(folder: Path, *victim: str) -> list[str]:
    return [sys.executable, "-m", "tests.training.runs", str(folder), "30", "8", "0", *victim]


def test_kill_9_at_any_moment(tmp_path: Path) -> None:
    """The same command again gives the uninterrupted run, bit for bit: weights, moments, losses."""
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    run(whole, 30, save_every=5, log_every=3)
    process = subprocess.Popen(_program(folder, "victim"), cwd=ROOT)
    deadline = time.monotonic() + 60
    while not (folder / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random.Random().uniform(0, 0.5))  # whatever it is doing then
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = torch.load(folder / "state.pt", weights_only=True)["step"]
    assert 5 <= reached < 30
    subprocess.run(_program(folder), cwd=ROOT, check=True)
    one, two = (torch.load(x / "state.pt", weights_only=True) for x in (folder, whole))
    assert one["step"] == two["step"] == 30
    for part in ("model", "average"):
        for name, value in two["weights"][part].items():
            assert torch.equal(one["weights"][part][name], value)
    for index, moments in two["weights"]["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(one["weights"]["optimizer"]["state"][index][name], value)
    assert losses(folder) == losses(whole)


def test_the_comparison_would_see_another_run(tmp_path: Path) -> None:
    """A resumed run that repeats a batch is not the same: what is compared above can differ."""
    run(tmp_path / "a", 10, save_every=5)
    run(tmp_path / "b", 5, save_every=5)
    state = torch.load(tmp_path / "b" / "state.pt", weights_only=True)
    state["step"] = 4
    torch.save(state, tmp_path / "b" / "state.pt")
    run(tmp_path / "b", 10, save_every=5)
    a, b = (torch.load(tmp_path / x / "state.pt", weights_only=True) for x in "ab")
    weights = [state["weights"]["model"]["0.weight"] for state in (a, b)]
    assert not torch.equal(*weights)
    assert losses(tmp_path / "a") != losses(tmp_path / "b")


def test_a_constant_rate_can_go_on_for_longer(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", 12)
    run(tmp_path / "more", 7)
    more, _ = run(tmp_path / "more", 12)
    assert torch.equal(more[0].weight, whole[0].weight)
    with pytest.raises(ValueError, match="steps must be at least the 12 made in .*, got 9"):
        run(tmp_path / "more", 9)
    run(tmp_path / "cosine", 7, decay="cosine")
    with pytest.raises(ValueError, match=r"state\.pt with steps 7 \(now 12\)$"):
        run(tmp_path / "cosine", 12, decay="cosine")


def test_a_finished_run_is_read_again(tmp_path: Path) -> None:
    first, record = run(tmp_path, 5)
    again, same = run(tmp_path, 5)
    assert torch.equal(first[0].weight, again[0].weight)
    assert same["loss"] == record["loss"]


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path, 2, extra={"teacher": "abc", "objective": "mse"})
    with pytest.raises(
        ValueError,
        match="folder must be empty or hold a run of the same settings, "
        r"got .*state\.pt with seed 0 \(now 1\), teacher 'abc' \(now 'abd'\)$",
    ):
        run(tmp_path, 2, seed=1, extra={"teacher": "abd", "objective": "mse"})  # fmt: skip
    assert misfit({"a": 1, "b": 2}, {"b": 2, "c": 3}) == "a 'unset' (now 1), c 3 (now 'unset')"
    stored = {"data": {"source": "folder", "digest": "ab", "names": ["x" * 99]}, "init": {}}
    now = {"data": {"source": "folder", "digest": "cd", "names": []}, "init": None}
    assert misfit(now, stored) == (
        f"data.digest 'ab' (now 'cd'), data.names ['{'x' * 55}... (now []), init {{}} (now None)"
    )
    assert misfit(stored, stored) == ""


def test_another_model_is_refused(tmp_path: Path) -> None:
    run(tmp_path, 2)
    torch.manual_seed(0)
    config = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)
    settings = TrainConfig(2, 8, 1e-2, ema_decay=0.9)
    with pytest.raises(ValueError, match="got .* with the weights of another model: x_embedder"):
        train(DrafterNet(config), loss, images(), settings, tmp_path, progress=False)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    def loss_that_starts_another(*arguments):
        with pytest.raises(
            ValueError, match=r"folder must not be in use by another run, got .*run, which is lock"
        ):
            run(tmp_path / "run", 2)
        return loss(*arguments)

    settings = TrainConfig(1, 8, 1e-2, ema_decay=0.9)
    train(network(), loss_that_starts_another, images(), settings, tmp_path / "run", progress=False)
    run(tmp_path / "run", 2)  # it is free again
    with pytest.raises(ValueError, match="seed"):
        run(tmp_path / "run", 2, seed=1)
    run(tmp_path / "run", 2)  # after an error too


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint(tmp_path: Path, content: bytes | None) -> None:
    run(tmp_path, 2)
    path = tmp_path / "state.pt"
    if content is None:
        torch.save({"step": 2}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"folder must hold a checkpoint that loads, got .*state"):
        run(tmp_path, 4)


def test_a_checkpoint_that_would_run_code_does_not(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harm",))

    torch.save({"settings": Harm()}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="folder must hold a checkpoint that loads"):
        run(tmp_path, 2)
    assert not (tmp_path / "harm").exists()


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """A limit on the size of files: writing fails in the middle, as it does on a full disk."""
    run(tmp_path, 5, save_every=5, log_every=5)
    before = (tmp_path / "state.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"checkpoint of step 10 could not be written to .*state"
                           r"\.pt \(the one before it is whole\): "):  # fmt: skip
            run(tmp_path, 10, save_every=5, log_every=5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "state.pt").read_bytes() == before
    assert not list(tmp_path.glob(".state*"))
    resumed, _ = run(tmp_path, 10, save_every=5, log_every=5)
    whole, _ = run(tmp_path / "whole", 10, save_every=5, log_every=5)
    assert torch.equal(resumed[0].weight, whole[0].weight)
    assert losses(tmp_path) == losses(tmp_path / "whole")


def test_no_room_for_the_first_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(state, file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"\(there is none before\): .*No space left on device"):
        run(tmp_path, 2)
    assert not list(tmp_path.glob("*state*"))


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".state-abc.pt").write_bytes(b"half")
    run(tmp_path, 2)
    assert not list(tmp_path.glob(".state*"))
