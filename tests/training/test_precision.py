"""Precision: what a machine is fast in is taken, said and kept; and what each one does."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from free.training import precision
from free.training.parallel import Ranks
from free.training.precision import choose_precision, has_bf16
from tests.training.runs import loss, run, state

NONE = "the CPU has no AMX-BF16 or AVX512-BF16"


def _cpu(patch: pytest.MonkeyPatch, amx: bool = False, avx512: bool = False) -> None:
    """A CPU as torch sees it."""
    patch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)


def test_a_cpu(monkeypatch) -> None:
    for amx, avx512, expected in (
        (False, False, ("fp32", NONE)),
        (True, False, ("bf16", "the CPU has AMX-BF16")),
        (False, True, ("bf16", "the CPU has AVX512-BF16")),
        (True, True, ("bf16", "the CPU has AMX-BF16")),
    ):
        _cpu(monkeypatch, amx, avx512)
        assert choose_precision("auto", Ranks()) == expected
        assert choose_precision("tf32", Ranks()) == ("tf32", "as asked for")


def test_a_cpu_that_torch_does_not_tell_of(monkeypatch, tmp_path) -> None:
    for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, probe, raising=False)
    told = tmp_path / "cpuinfo"
    monkeypatch.setattr(precision, "_CPUINFO", told)
    assert choose_precision("auto", Ranks()) == ("fp32", NONE)  # another system
    for flags, name in (("fpu avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("avx2 bf16", "fp32")):
        told.write_text(f"model name\t: avx512_bf16\nflags\t\t: {flags}\n")
        assert choose_precision("auto", Ranks()).name == name


@pytest.mark.parametrize("able", [False, True])
def test_a_gpu(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    """Whatever the CPU beside it; bfloat16 that is emulated does not count."""
    _cpu(monkeypatch, not able, not able)

    def supported(including_emulation: bool = True) -> bool:
        return able or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    reason = f"the GPU has {'' if able else 'no '}bfloat16 instructions"
    assert has_bf16(torch.device("cuda")) == (able, reason)


def test_ranks_take_what_all_of_them_have(monkeypatch: pytest.MonkeyPatch) -> None:
    _cpu(monkeypatch, amx=True)

    class Unequal(Ranks):
        def collect(self, values: list[bool]) -> list[bool]:
            return [*values, False]

    choice = choose_precision("auto", Unequal(0, 2))
    assert choice == ("fp32", "another process has no bfloat16 instructions")


def test_a_run_stays_in_its_precision(tmp_path, monkeypatch, capsys) -> None:
    """Also on another machine, and where it was given by name before."""
    _cpu(monkeypatch, amx=True)
    _, record = run(tmp_path, 2, precision="auto", progress=True)
    assert record["precision"] == state(tmp_path)["settings"]["precision"] == "bf16"
    assert "precision bf16: the CPU has AMX-BF16\n" in capsys.readouterr().err
    _cpu(monkeypatch)
    _, record = run(tmp_path, 3, precision="auto", progress=True)
    kept = f"as the run began; a new one would take fp32 here: {NONE}"
    assert record["precision"] == "bf16"
    assert f"precision bf16: {kept}\n" in capsys.readouterr().err
    starts = json.loads((tmp_path / "config.json").read_text())["starts"]
    expected = ["bf16: the CPU has AMX-BF16", f"bf16: {kept}"]
    assert [start["precision"] for start in starts] == expected
    with pytest.raises(ValueError, match=r"state\.pt with precision 'bf16' \(now 'fp32'\)$"):
        run(tmp_path, 3, precision="fp32")
    run(tmp_path / "named", 2, precision="fp32")
    _, record = run(tmp_path / "named", 3, precision="auto", progress=True)
    assert record["precision"] == "fp32"
    assert "precision fp32: as the run began\n" in capsys.readouterr().err


def test_bfloat16_is_of_the_forward_pass_alone(tmp_path: Path) -> None:
    kinds = set()

    def spy(model, x0, labels, random):
        parts = loss(model, x0, labels, random)
        kinds.add(model(torch.zeros(1, 5)).dtype)
        return parts

    def evaluate(model, ranks):
        kinds.add(torch.is_autocast_enabled("cpu"))
        raise KeyboardInterrupt

    average, _ = run(tmp_path, 2, loss=spy, precision="bf16")
    assert kinds == {torch.bfloat16}
    assert {weight.dtype for weight in average.parameters()} == {torch.float32}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 3, precision="bf16", evaluate_every=3, evaluate=evaluate)
    assert kinds == {torch.bfloat16, False}
    with pytest.raises(ValueError, match="precision 'tf32' needs a GPU, got device cpu"):
        run(tmp_path / "tf32", 3, precision="tf32")
