"""Hub ids: what is asked of the hub, and what is said where there is none."""

import shutil
import sys
from pathlib import Path

import pytest

from free import DiT, DrafterNet, load_pretrained
from tests.models.checkpoints.files import CONFIG, fake_hub, same_weights
from tests.networks import randomized

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a repository ``someone/model``, from another working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fake_hub(monkeypatch, tmp_path / "there")
    return tmp_path / "there"


def _fetched(remote: Path) -> set[str]:
    cache = remote.parent / "cache"
    return {str(file.relative_to(cache)) for file in cache.rglob("*") if file.is_file()}


def test_a_bundle(remote: Path) -> None:
    network = randomized(DiT(CONFIG))
    network.save_pretrained(remote / "teacher")
    DrafterNet(CONFIG).save_pretrained(remote / "drafter")
    (remote / "samples.npz").write_bytes(b"x")
    teacher, drafter = load_pretrained("someone/model")
    assert same_weights(teacher, network)
    assert same_weights(DrafterNet.from_pretrained("someone/model"), drafter.network)
    files = ("config.json", "model.safetensors")
    assert _fetched(remote) == {
        f"{part}/{file}" for part in ("teacher", "drafter") for file in files
    }


@pytest.mark.parametrize(("part", "pickled"), [("transformer", False), (".", True)])
def test_diffusers(remote: Path, part: str, pickled: bool) -> None:
    """Pickles are fetched only where there is nothing better, and the VAE never."""
    network = randomized(DiT(CONFIG))
    network.save_pretrained(remote / part, "diffusers")
    weights = remote / part / "diffusion_pytorch_model.safetensors"
    if pickled:
        weights = weights.rename(weights.with_suffix(".bin"))
    else:
        shutil.copy(weights, weights.with_suffix(".bin"))
    (remote / "vae").mkdir()
    (remote / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"x")
    assert same_weights(DiT.from_pretrained("someone/model"), network)
    assert _fetched(remote) == {str(Path(part) / name) for name in ("config.json", weights.name)}


@pytest.mark.parametrize("end", ["safetensors", "bin"])
def test_a_repository_with_nothing_but_a_variant(remote: Path, end: str) -> None:
    network, name = randomized(DiT(CONFIG)), f"diffusion_pytorch_model.fp16.{end}"
    network.save_pretrained(remote, "diffusers")
    (remote / "diffusion_pytorch_model.safetensors").rename(remote / name)
    assert same_weights(DiT.from_pretrained("someone/model"), network)
    assert _fetched(remote) == {"config.json", name}


def test_a_folder_of_that_name_comes_first(remote: Path) -> None:
    network = randomized(DiT(CONFIG))
    network.save_pretrained(Path("someone/model"))  # in the working directory
    assert same_weights(DiT.from_pretrained("someone/model"), network)
    assert not (remote.parent / "cache").exists()


def test_no_way_to_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # nothing of another's is beside it

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        raise ConnectionError("Network is unreachable\nand more")

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    message = "hub id that can be reached, got 'runs/mnst': ConnectionError: Network is unreach.*e$"
    with pytest.raises(ValueError, match=message):
        DiT.from_pretrained("runs/mnst")
    with pytest.raises(ValueError, match="drafter must be a file or folder, or a hub id that"):
        load_pretrained("mnist", "runs/mnst")
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: pytest.fail("it was asked"))
    for name in ("model", "a/b/c", "./x/y", "../x", "~/x", "/x/y", "C:x/y z"):
        with pytest.raises(ValueError, match="which does not exist"):
            DiT.from_pretrained(name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"no file or folder here.*pip install 'free-dit\[diff"):
        DiT.from_pretrained("someone/model")
