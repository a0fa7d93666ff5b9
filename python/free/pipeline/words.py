"""Words of diffusers' pipelines: those that work here, and what to do instead of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

#: Arguments of the hub's client; the others belong to one repository, or to its files.
_ACCESS = ("token", "cache_dir", "local_files_only", "force_download")

_MOVE = "the networks stay in one place: move them with pipe.to(device)"
_ATTENTION = (
    "leave it out: attention is torch.nn.functional.scaled_dot_product_attention, which keeps no "
    "matrix of scores"
)
_QKV = "leave it out: queries, keys and values are one product already"
_HOOKS = "leave it out: there are no hooks"
_PARTS = "load it and pass it to FreePipeline(transformer, vae, scheduler, drafter)"
_OTHER_CODE = "leave it out: no code of a repository is run"
#: Words of ``from_pretrained`` that do not work here, and the way out.
_INSTEAD_OF_WORDS = {
    "device_map": _MOVE,
    "max_memory": _MOVE,
    "offload_folder": _MOVE,
    "offload_state_dict": _MOVE,
    "quantization_config": "quantise pipe.transformer once it is loaded",
    "transformer": _PARTS,
    "id2label": "pass it to FreePipeline(...), or set pipe.labels, the ids by name",
    "custom_pipeline": _OTHER_CODE,
    "custom_revision": _OTHER_CODE,
    "trust_remote_code": _OTHER_CODE,
    "use_onnx": "see free export",
    "proxies": "set the variable HTTPS_PROXY",
    "use_auth_token": "pass it as token",
    "output_loading_info": "leave it out: weights that are missing or left over are an error",
    "subfolder": "pass the folder itself as source; that of a hub id must be downloaded before",
}
#: Calls that pipelines of diffusers know and this one does not, and the way out.
_INSTEAD_OF_CALLS = {
    "enable_model_cpu_offload": _MOVE,
    "enable_sequential_cpu_offload": _MOVE,
    "enable_group_offload": _MOVE,
    "reset_device_map": _MOVE,
    "enable_attention_slicing": _ATTENTION,
    "disable_attention_slicing": _ATTENTION,
    "set_attention_slice": _ATTENTION,
    "set_use_memory_efficient_attention_xformers": _ATTENTION,
    "enable_xformers_memory_efficient_attention": _ATTENTION,
    "disable_xformers_memory_efficient_attention": _ATTENTION,
    "disable_vae_slicing": "set pipe.coder.slice_size, how many images are decoded together",
    "enable_vae_tiling": "call pipe.vae.enable_tiling()",
    "disable_vae_tiling": "call pipe.vae.disable_tiling()",
    "enable_freeu": "leave it out: it belongs to U-Nets",
    "fuse_qkv_projections": _QKV,
    "unfuse_qkv_projections": _QKV,
    "remove_all_hooks": _HOOKS,
    "maybe_free_model_hooks": _HOOKS,
    "load_lora_weights": "fuse the weights into the transformer before it is passed here",
    "fuse_lora": "fuse the weights into the transformer before it is passed here",
}


class Words(NamedTuple):
    """What ``from_pretrained`` was told besides the parts.

    ``access`` are arguments of the hub's client for any repository, ``revision`` is the source's.
    """

    torch_dtype: torch.dtype | None
    variant: str | None
    use_safetensors: bool | None
    revision: str | None
    access: dict[str, Any]

    @property
    def access_to_source(self) -> dict[str, Any]:
        """Arguments of the hub's client for the source itself."""
        return {**self.access, **({} if self.revision is None else {"revision": self.revision})}


def read_words(words: Mapping[str, Any], torch_dtype: torch.dtype | None) -> Words:
    """Take apart the words of diffusers that ``from_pretrained`` was given.

    Raises ValueError for those that do not work here, which says what does; TypeError for others.
    """
    rest = {name: value for name, value in words.items() if value is not None}
    for name, instead in _INSTEAD_OF_WORDS.items():
        if name in rest:
            raise ValueError(f"{name} must be left out here, got {rest[name]!r:.80}: {instead}")
    dtype = rest.pop("dtype", None)
    if dtype is not None and torch_dtype is not None:
        raise ValueError(f"dtype must be given once, got {dtype} and {torch_dtype} as torch_dtype")
    use_safetensors = rest.pop("use_safetensors", None)
    if use_safetensors not in (None, True):
        raise ValueError(
            "use_safetensors must be True or left out (they are taken where there are any), "
            f"got {use_safetensors!r}"
        )
    variant, revision = rest.pop("variant", None), rest.pop("revision", None)
    for name, value in (("variant", variant), ("revision", revision)):
        if not isinstance(value, str | None):
            raise ValueError(f"{name} must be a string or None, got {value!r}")
    rest.pop("low_cpu_mem_usage", None)  # it is low, whatever is asked for
    access = {name: rest.pop(name) for name in _ACCESS if name in rest}
    if rest:
        raise TypeError(f"from_pretrained got unexpected arguments {', '.join(rest)}")
    return Words(
        torch_dtype if dtype is None else dtype, variant, use_safetensors, revision, access
    )


def missing_call(name: str) -> str:
    """What to say of an attribute that a pipeline does not have."""
    way = _INSTEAD_OF_CALLS.get(name)
    return f"FreePipeline has no attribute {name!r}" + ("" if way is None else f": {way}")
