"""The example's commands, end to end, in the small."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.examples.policy.conftest import SMALL

pytest.importorskip("Box2D")

from examples.policy import evaluate, expert, latency, law, train
from examples.policy.demonstrations import record
from examples.policy.networks import load


def test_the_pilot_is_shown_as_it_wanted() -> None:
    calm, shaken = (record(2, history=3, horizon=5, noise=noise) for noise in (0.0, 0.2))
    assert len(calm.observations) == len(calm.actions) > 200
    assert calm.observations.shape[1:] == (3, 8)
    assert calm.actions.shape[1:] == (5, 2)
    # A window ends at its step and a chunk begins there; at both ends something is repeated.
    assert bool((calm.observations[0] == calm.observations[0, -1]).all())
    np.testing.assert_array_equal(calm.observations[5, 0], calm.observations[3, -1])
    np.testing.assert_array_equal(calm.actions[3, 2], calm.actions[5, 0])
    lander = expert.make_lander()
    for step in (0, 50, 120):  # what is learnt is the pilot's answer to what was seen
        seen = shaken.observations[step, -1].numpy()
        np.testing.assert_allclose(shaken.actions[step, 0], expert.pilot(lander, seen), atol=1e-6)
    lander.close()


def test_training_writes_both_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "CONFIGS", SMALL)
    # The two have one history and one horizon, which the command takes from the first.
    train.main(["--out", str(tmp_path / "new"), "--episodes", "1", "--steps", "4", "--batch", "8"])
    assert "1 of 1 demonstrations kept" in capsys.readouterr().out
    assert load(tmp_path / "new/mlp.safetensors").config == SMALL["mlp"]
    assert load(tmp_path / "new/transformer.safetensors").config == SMALL["transformer"]


@pytest.mark.usefixtures("folder")
def test_evaluation_writes_figures_and_draws_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    arms = {
        "DDPM 12": evaluate.Arm("ddpm", 12),
        "DDPM 12, FREE": evaluate.Arm("ddpm", 12, 6),
        "DDIM 6": evaluate.Arm("ddim", 6),
    }
    monkeypatch.setattr(evaluate, "ARMS", arms)
    samplers = {
        "DDPM 12": {},
        "DDPM 12, FREE auto": {"window": "auto"},
        "DDIM 6": {"steps": 6, "law": "ddim"},
    }
    monkeypatch.setattr(latency, "SAMPLERS", samplers)
    monkeypatch.setenv("FREE_CACHE", str(folder / "cache"))
    command = ["--networks", str(folder), "--only", "mlp", "--episodes", "2", "--requests", "2"]
    command += ["--engine", "torch"]
    evaluate.main(command)
    found = json.loads((folder / "evaluation.json").read_text())
    assert found["command"].endswith(" ".join(command))
    mlp = found["policies"]["mlp"]
    assert mlp["flown"]["DDPM 12"]["success_difference"] == [0, 0, 0]
    assert mlp["flown"]["DDPM 12, FREE"]["steps_a_round"] > 1.2
    assert len(mlp["flown"]["DDIM 6"]["returns"]) == 2
    assert mlp["timed"]["samplers"]["DDPM 12"]["speed_up"] == 1
    assert mlp["timed"]["samplers"]["DDPM 12"]["steps_a_round"] == 1
    assert (folder / "policy.png").read_bytes().startswith(b"\x89PNG")


def test_latency_and_law_write_what_they_find(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "SAMPLERS", {"plain": {}, "FREE": {"window": 6}})
    where = str(folder / "found.json")
    arguments = ["--networks", str(folder), "--only", "mlp", "--json", where]
    latency.main([*arguments, "--requests", "2", "--engine", "torch"])
    found = json.loads(Path(where).read_text())["found"]["mlp, torch"]
    assert found["rows"]["1"] > 0
    assert found["samplers"]["FREE"]["rows_a_round"] > 2
    assert set(found["samplers"]["FREE"]["parts"]) >= {"teacher", "draft", "verify", "all"}
    assert set(found["samplers"]["FREE"]["predicted"]) == {
        "1 cores", "8 cores", "16 cores", "rows free",
    }  # fmt: skip
    law.main([*arguments, "--samples", "60", "--places", "2", "--engine", "torch"])
    found = json.loads(Path(where).read_text())["p"]["mlp"]
    assert min(found["speculated"]) > 1e-4
    assert len(found["a quarter of the steps"]) == 2


def test_predictions() -> None:
    plain = {"parts": {"all": 1.5, "teacher": 1.0}}
    record = {
        "steps_a_round": 6.0,
        "rows_a_round": 16.0,
        "parts": {"all": 10.0, "teacher": 9.0},
    }
    found = latency.predicted(record, plain, {"1": 1.0, "2": 1.5, "16": 8.5})
    assert found == pytest.approx(
        {"1 cores": 6 * 1.5 / 9.5, "8 cores": 6 * 1.5 / 2.5, "16 cores": 4.5, "rows free": 4.5}
    )
