"""Words of diffusers: they work, or an error says what does."""

import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch

diffusers = pytest.importorskip("diffusers")

from free import DrafterNet, FreePipeline  # noqa: E402
from tests.pipelines import CONFIG, latents, pipeline, tiny_dit_pipeline  # noqa: E402


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with plain weights and, in float16, a variant of all of them."""
    theirs = tiny_dit_pipeline(tmp_path / "parts")
    theirs.save_pretrained(tmp_path / "root")
    theirs.to(torch.float16).save_pretrained(tmp_path / "root", variant="fp16")
    return tmp_path / "root"


def _latents(pipe: FreePipeline) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    return latents(pipe).images


def test_a_variant(root: Path) -> None:
    half, full = (
        FreePipeline.from_pretrained(root, variant="fp16"),
        FreePipeline.from_pretrained(root),
    )
    for pipe, rounded in ((half, True), (full, False)):
        for network in (pipe.transformer, pipe.vae):
            weight = next(network.parameters())
            assert weight.dtype is torch.float32
            assert torch.equal(weight, weight.half().float()) == rounded
    for path in root.rglob("*.safetensors"):
        if "fp16" not in path.name:
            path.unlink()
    assert torch.equal(_latents(FreePipeline.from_pretrained(root)), _latents(half))
    with pytest.raises(
        ValueError, match=r"source must have weights, got .* without diffusion_.*bf16"
    ):
        FreePipeline.from_pretrained(root, variant="bf16")
    (root / "model.pt").touch()
    with pytest.raises(ValueError, match="variant must be None for .*model.pt, which has none"):
        FreePipeline.from_pretrained(root / "model.pt", variant="fp16")


def test_words_that_change_nothing_here(root: Path) -> None:
    words = {"revision": "main", "token": False, "local_files_only": True, "device_map": None}
    pipe = FreePipeline.from_pretrained(
        root, use_safetensors=True, low_cpu_mem_usage=False, dtype=torch.bfloat16, **words
    )
    assert pipe.dtype is torch.bfloat16


def test_what_is_not_safetensors(root: Path) -> None:
    weights = root / "transformer" / "diffusion_pytorch_model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    assert FreePipeline.from_pretrained(root).transformer.config == CONFIG
    with pytest.raises(ValueError, match="use_safetensors must be left out for .*model.bin, which"):
        FreePipeline.from_pretrained(root, use_safetensors=True)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"device_map": "auto"}, ValueError, r"device_map must be left out .* pipe.to\(device\)"),
        ({"quantization_config": {}}, ValueError, "quantization_config must be left out here"),
        ({"custom_pipeline": "x"}, ValueError, "custom_pipeline must be left out .* no code of a"),
        ({"transformer": 5}, ValueError, "transformer must be left out .* pass it to FreePipeline"),
        (
            {"use_auth_token": "x"},
            ValueError,
            "use_auth_token must be left out .* pass it as token",
        ),
        ({"output_loading_info": True}, ValueError, "output_loading_info must be .* are an error"),
        ({"subfolder": "x"}, ValueError, "subfolder must be .* pass the folder itself"),
        ({"use_safetensors": False}, ValueError, "use_safetensors must be True or left out"),
        ({"variant": 16}, ValueError, "variant must be a string or None, got 16"),
        (
            {"dtype": torch.float16, "torch_dtype": torch.float16},
            ValueError,
            "dtype must be given once",
        ),
        ({"guidance": 4}, TypeError, "from_pretrained got unexpected arguments guidance"),
    ],
)
def test_words_that_are_refused(words: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        FreePipeline.from_pretrained("mnist", **words)


def test_words_of_the_hub(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source's own revision and variant, and the access that other repositories need too."""
    DrafterNet(CONFIG).save_pretrained(tmp_path / "drafter")
    places = {
        "someone/dit": root,
        "someone/vae": root / "vae",
        "someone/drafter": tmp_path / "drafter",
    }
    asked: list[tuple[str, dict[str, Any]]] = []

    def snapshot_download(name: str, allow_patterns: list[str], **access: Any) -> str:
        asked.append((name, access))
        cache = tmp_path / "cache" / name
        for file in places[name].rglob("*"):
            path = file.relative_to(places[name])
            if file.is_file() and any(fnmatch(str(path), pattern) for pattern in allow_patterns):
                (cache / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, cache / path)
        return str(cache)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    access = {"token": "secret", "cache_dir": "c", "local_files_only": True}
    words = {**access, "revision": "v1", "variant": "fp16", "use_safetensors": True}
    pipe = FreePipeline.from_pretrained("someone/dit", drafter="someone/drafter", **words)
    of_source = {**access, "revision": "v1"}
    assert asked == [
        ("someone/dit", of_source),
        ("someone/drafter", access),
        ("someone/dit", of_source),
    ]
    fetched = {
        path.name for path in (tmp_path / "cache" / "someone" / "dit").rglob("*.safetensors")
    }
    assert fetched == {"diffusion_pytorch_model.fp16.safetensors"}
    assert type(pipe.drafter).__name__ == "FeatureDrafter"
    asked.clear()
    FreePipeline.from_pretrained("someone/dit", vae="someone/vae", **words)
    assert asked == [("someone/dit", of_source), ("someone/vae", access)]


@pytest.mark.parametrize(
    ("call", "way"),
    [
        ("enable_model_cpu_offload", r"move them with pipe.to\(device\)"),
        ("enable_sequential_cpu_offload", r"move them with pipe.to\(device\)"),
        ("enable_attention_slicing", "leave it out: attention is torch.nn.functional.scaled"),
        ("enable_xformers_memory_efficient_attention", "leave it out: attention is"),
        ("enable_vae_tiling", r"call pipe.vae.enable_tiling\(\)"),
        ("load_lora_weights", "fuse the weights into the transformer before"),
        ("fuse_qkv_projections", "leave it out: queries, keys and values are one product"),
        ("remove_all_hooks", "leave it out: there are no hooks"),
        ("nothing_of_the_kind", "'nothing_of_the_kind'$"),
    ],
)
def test_calls_that_are_not_there(call: str, way: str) -> None:
    with pytest.raises(
        AttributeError, match=f"FreePipeline has no attribute '{call}'.*{way}|{way}"
    ):
        getattr(pipeline(), call)()
