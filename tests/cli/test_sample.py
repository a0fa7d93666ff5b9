"""``free sample`` of models other than the embedded one."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from free import DiT, DiTConfig, DrafterNet
from free.cli import app
from free.cli.options import parse_labels
from free.images.labels import imagenet_names, label_table
from tests.networks import randomized
from tests.pipelines import CONFIG, tiny_dit, tiny_vae


def _sample(folder: Path, *arguments: object) -> tuple[int, str]:
    common = ["sample", "--steps", "4", "--out", str(folder / "x.png"), "--json",
              str(folder / "x.json")]  # fmt: skip
    result = CliRunner().invoke(app, [*common, *map(str, arguments)])
    return result.exit_code, " ".join(result.output.split())


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
    code, text = _sample(
        tmp_path, "--model", latents / "bundle", "--vae", latents / "coder", "--labels",
        "goldfish,3", "--cfg-channels", 3, "--dtype", "bfloat16", "--compare",
    )  # fmt: skip
    assert code == 0, text
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (2 * (64 + 8) + 8, 2 * (24 + 64 + 16 + 8) + 8)
        tiles = [picture.crop((8 + 72 * i, 32, 72 + 72 * i, 96)) for i in range(2)]
        assert all(len(tile.getcolors(4096)) > 64 for tile in tiles)
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["labels"] == [1, 3]
    assert record["window"] == 16  # a frozen drafter's own settings


def test_latents_need_a_vae(latents: Path, tmp_path: Path) -> None:
    code, text = _sample(tmp_path, "--model", latents / "bundle")
    assert code == 2
    assert "--vae must be given for a model of latents (4 x 8 x 8), such as" in text


def test_a_folders_own_vae(latents: Path, tmp_path: Path) -> None:
    tiny_dit().save_pretrained(tmp_path / "pipeline" / "transformer", "diffusers")
    tiny_vae().save_pretrained(tmp_path / "pipeline" / "vae")
    code, text = _sample(tmp_path, "--model", tmp_path / "pipeline", "--labels", "1")
    assert code == 0, text
    code, text = _sample(tmp_path, "--model", tmp_path / "pipeline", "--vae", tmp_path)
    assert code == 2
    assert "vae must be a diffusers folder" in text


def test_constants_are_passed_on(latents: Path, tmp_path: Path) -> None:
    pictures = []
    for constants in (["--constants", "original"], ["--constants", "diffusers"], []):
        code, text = _sample(
            tmp_path, "--model", latents / "bundle", "--vae", latents / "coder", *constants
        )
        assert code == 0, text
        pictures.append((tmp_path / "x.png").read_bytes())
    assert pictures[0] != pictures[1] == pictures[2]  # the bundle's own are diffusers'
    code, text = _sample(tmp_path, "--model", latents / "bundle", "--constants", "x")
    assert code == 2
    assert "constants must be 'original', 'diffusers' or None, got 'x'" in text


def test_a_drafter_from_elsewhere(tmp_path: Path) -> None:
    config = DiTConfig(8, 4, 1, 16, 1, 2, num_classes=3, learn_sigma=False)
    randomized(DiT(config)).save_pretrained(tmp_path / "teacher", "original")
    randomized(DrafterNet(config), 7).save_pretrained(tmp_path / "drafter", sampling={"window": 3})
    DrafterNet(CONFIG).save_pretrained(tmp_path / "other")
    model = ["--model", tmp_path / "teacher" / "model.pt", "--labels", "0-2"]
    code, text = _sample(tmp_path, *model)
    assert code == 2
    assert "heads must be given" in text
    randomized(DiT(config)).save_pretrained(tmp_path / "own")
    model[1] = tmp_path / "own"
    code, text = _sample(tmp_path, *model, "--drafter", tmp_path / "drafter")
    assert code == 0, text
    assert "window 3, autoregression" in text
    code, text = _sample(tmp_path, *model, "--drafter", tmp_path / "other")
    assert code == 2
    assert "network must be made for the teacher's config, got patch_size 2, not 4" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dtype", "int8"], "--dtype must be one of float32, bfloat16, float16, got 'int8'"),
        (["--labels", "tench"], "labels must look like 0-9 or 1,4-6, got 'tench'"),
        (["--cfg-channels", 2], "cfg_channels must be"),
    ],
)
def test_bad_options(tmp_path: Path, arguments: list[object], message: str) -> None:
    code, text = _sample(tmp_path, *arguments)
    assert code == 2, text
    assert message in text


def test_names() -> None:
    names = label_table(imagenet_names())
    assert parse_labels("tench, 5-6,golden retriever", names) == [0, 5, 6, 207]
    with pytest.raises(ValueError, match=r"labels must be ids or names .* did you mean 'tench'"):
        parse_labels("tenhc", names)
    with pytest.raises(ValueError, match="labels must look like"):
        parse_labels("1,,2", names)
