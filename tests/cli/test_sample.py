"""``free sample`` as users run it."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from free import DiT, DiTConfig, DrafterNet
from tests.cli.commands import refuse, succeed
from tests.networks import randomized
from tests.pipelines import CONFIG, tiny_dit, tiny_vae


def _arguments(folder: Path, *more: object) -> list[object]:
    return ["sample", "--steps", 4, "--out", folder / "x.png", "--json", folder / "x.json", *more]


def _record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "x.json").read_text())


def test_a_picture_a_report_and_a_comparison(digits: Path, tmp_path: Path) -> None:
    """In files of folders that are made, with the model's own settings."""
    folder = tmp_path / "new"
    text = succeed(
        *_arguments(folder, "--model", digits, "--labels", "3,5", "--per-label", 2, "--compare"),
        *("--steps", 20, "--batch-size", 3),
    )
    assert "4 images, 20 steps, guidance 1.5, batches of 3, window 4, 1 sweep, recycled" in text
    assert "teacher rounds" in text
    assert "times fewer rounds" in text
    assert "the law of the images is the same, and so, nearly, are the draws" in text
    with Image.open(folder / "x.png") as picture:
        assert picture.size[0] > 4 * 3 * 28
    record = _record(folder)
    assert record["labels"] == [3, 3, 5, 5]
    assert record["relaxation"] is None
    assert record["plain"]["rounds"] == 2 * 20
    assert record["free"]["seeds"] == [0, 1, 2, 3]
    assert record["free"]["rounds"] < 40


@pytest.mark.parametrize(
    ("options", "expected", "words"),
    [
        (["--paper"], {"window": 8, "sweeps": None, "recycle": False}, "autoregression, nothing"),
        (["--sweeps", 2, "--recycle", "best"], {"window": 4, "sweeps": 2, "recycle": "response"},
         "window 4, 2 sweeps, recycled: response"),
        (["--window", 1], {"window": 1}, "window 1: the plain sampler"),
        (["--verifier", "block"], {"sweeps": 1, "recycle": False, "verifier": "block"},
         "nothing recycled, verified as a block"),
    ],
)  # fmt: skip
def test_settings_are_used_and_reported(digits, tmp_path, options, expected, words) -> None:
    text = succeed(*_arguments(tmp_path, "--model", digits, "--labels", 3, *options))
    assert words in text
    record = _record(tmp_path)
    assert {name: record[name] for name in expected} == expected


def test_within_a_tolerance_the_law_is_without_noise(digits: Path, tmp_path: Path) -> None:
    text = succeed(*_arguments(tmp_path, "--model", digits, "--labels", "0-2", "--steps", 20),
                   *("--verifier", "tolerance", "--tolerance", 0.01, "--compare"))  # fmt: skip
    record = _record(tmp_path)
    assert (record["verifier"], record["tolerance"]) == ("tolerance", 0.01)
    assert record["free"]["rounds"] < record["plain"]["rounds"] == 3 * 20
    assert record["deviation"]["psnr"] > 30
    assert record["free"]["deviation"] > 0
    for words in ("within 0.01", "not exact: images about", "the images are nearly the same",
                  "from the deterministic images of the same initial noise"):  # fmt: skip
        assert words in text
    refuse("tolerance must be None unless verifier", *_arguments(tmp_path, "--tolerance", 0.01))


def test_a_relaxed_law_is_bounded_in_the_report(digits: Path, tmp_path: Path) -> None:
    text = succeed(*_arguments(tmp_path, "--model", digits, "--labels", "0-2", "--steps", 20,
                               "--relax", "allow:1:0.2", "--compare"))  # fmt: skip
    record = _record(tmp_path)
    assert record["relaxation"] == {
        "rule": "allow", "strength": 1.0, "tv_budget": 0.2, "uncertainty": "discrepancy"
    }  # fmt: skip
    free = record["free"]
    assert 0 < free["tv_bound"] <= max(free["tv_bound_by_sample"]) <= 0.2
    assert f"at most {free['tv_bound']:.2g}, no image above" in text
    assert f"about {free['tv_estimate']:.2g}, from 3 images" in text
    assert "the law of the images is within that distance" in text
    assert record["plain"]["tv_bound"] == 0.0


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of latents, and a VAE apart from it."""
    pytest.importorskip("diffusers")
    folder = tmp_path_factory.mktemp("latents")
    tiny_dit().save_pretrained(folder / "bundle" / "teacher")
    tiny_vae().save_pretrained(folder / "coder")
    return folder


def test_latents_are_decoded(latents: Path, tmp_path: Path) -> None:
    """By name and by id; each image of 64 x 64 is shown as it is."""
    succeed(*_arguments(tmp_path, "--model", latents / "bundle", "--vae", latents / "coder",
                        "--labels", "goldfish,3", "--cfg-channels", 3, "--dtype", "bfloat16",
                        "--compare"))  # fmt: skip
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (2 * (64 + 8) + 8, 2 * (24 + 64 + 16 + 8) + 8)
        tiles = [picture.crop((8 + 72 * i, 32, 72 + 72 * i, 96)) for i in range(2)]
        assert all(len(tile.getcolors(4096)) > 64 for tile in tiles)
    record = _record(tmp_path)
    assert record["labels"] == [1, 3]
    assert record["window"] == 16  # a frozen drafter's own settings
    refuse("--vae must be given for a model of latents (4 x 8 x 8), such as",
           *_arguments(tmp_path, "--model", latents / "bundle"))  # fmt: skip


def test_a_folders_own_vae(latents: Path, tmp_path: Path) -> None:
    tiny_dit().save_pretrained(tmp_path / "pipeline" / "transformer", "diffusers")
    tiny_vae().save_pretrained(tmp_path / "pipeline" / "vae")
    model = ["--model", tmp_path / "pipeline"]
    succeed(*_arguments(tmp_path, *model, "--labels", 1))
    refuse("vae must be a diffusers folder", *_arguments(tmp_path, *model, "--vae", tmp_path))


def test_constants_are_passed_on(latents: Path, tmp_path: Path) -> None:
    pictures = []
    model = ["--model", latents / "bundle", "--vae", latents / "coder", "--labels", 1]
    for constants in (["--constants", "original"], ["--constants", "diffusers"], []):
        succeed(*_arguments(tmp_path, *model, *constants))
        pictures.append((tmp_path / "x.png").read_bytes())
    assert pictures[0] != pictures[1] == pictures[2]  # the bundle's own are diffusers'


def test_a_drafter_from_elsewhere(tmp_path: Path) -> None:
    config = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)
    randomized(DiT(config)).save_pretrained(tmp_path / "teacher", "original")
    randomized(DrafterNet(config), 7).save_pretrained(tmp_path / "drafter", sampling={"window": 3})
    DrafterNet(CONFIG).save_pretrained(tmp_path / "other")
    randomized(DiT(config)).save_pretrained(tmp_path / "own")
    refuse("heads must be given",
           *_arguments(tmp_path, "--model", tmp_path / "teacher" / "model.pt"))  # fmt: skip
    model = ["--model", tmp_path / "own", "--labels", "0-2", "--drafter"]
    text = succeed(*_arguments(tmp_path, *model, tmp_path / "drafter"))
    assert "window 3, autoregression" in text
    refuse("network must be made for the teacher's config, got patch_size 2, not 4",
           *_arguments(tmp_path, *model, tmp_path / "other"))  # fmt: skip


def test_unwritable_paths_are_found_before_sampling(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("free.cli.sample.load_models", lambda *_: pytest.fail("work came first"))
    (tmp_path / "file").write_text("")
    for option in ("--out", "--json"):
        refuse(f"{option} must be a file that can be written",
               *_arguments(tmp_path, option, tmp_path / "file" / "x.png"))  # fmt: skip


def test_a_little_noise_beside_a_deterministic_scheduler(digits: Path, tmp_path: Path) -> None:
    """Of the same initial noise: the less noise, the nearer."""
    config = {"_class_name": "DDIMScheduler", "clip_sample": False}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    options = ("--model", digits, "--labels", "3,5", "--scheduler", tmp_path, "--steps", 12)
    psnr = []
    for amount in (0.1, 0.01):
        text = succeed(*_arguments(tmp_path, *options, "--stochasticity", amount, "--compare"))
        record = _record(tmp_path)
        far = record["deviation"]
        assert f"deterministic images of the same initial noise: {far['psnr']:.1f} dB" in text
        assert record["still"]["rounds"] == 2 * 12
        psnr.append(far["psnr"])
    assert 15 < psnr[1] - psnr[0] < 25
    text = succeed(*_arguments(tmp_path, *options, "--stochasticity", 0.5, "--compare"))
    assert "deterministic" not in text
    assert _record(tmp_path)["deviation"] is None
