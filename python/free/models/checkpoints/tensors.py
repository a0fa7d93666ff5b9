"""Files of tensors, opened without reading them and without executing anything in them.

Both formats are mapped into memory. What has been copied out is given back to the kernel, so that a
checkpoint is never resident twice.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from free.files import check_regular, cut, read_json

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_LARGEST_HEADER = 100_000_000  # of a safetensors file, by its specification
#: Where training codes keep a network's weights; averaged ones count where there are any.
_WEIGHTS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "params")
_AVERAGED = re.compile(r"(^|_)ema(_|$)")
_NESTED = 4
_madvise = ctypes.CDLL(None).madvise


class StoredTensor(NamedTuple):
    """One tensor of a checkpoint.

    ``view()`` returns it as it lies in the file, or in memory; not to be written to. ``mapped``:
    whether it lies in a file that is mapped into memory.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    view: Callable[[], Tensor]
    mapped: bool = True

    def copy_into(self, destination: Tensor) -> None:
        """Read the tensor into ``destination``, in its dtype and on its device."""
        tensor = self.view()
        destination.copy_(tensor)
        self._release(tensor)

    def equals(self, other: StoredTensor) -> bool:
        """Whether two stored tensors have the same values."""
        one, two = self.view(), other.view()
        same = one.dtype == two.dtype and torch.equal(one, two)
        self._release(one)
        other._release(two)
        return same

    def _release(self, tensor: Tensor) -> None:
        """Tell the kernel that the pages of ``tensor`` need not stay in memory.

        They are private and never written to, so a later access reads them from the file again.
        """
        if not self.mapped:
            return
        page = mmap.PAGESIZE
        first = -(-tensor.data_ptr() // page) * page
        length = (tensor.data_ptr() + tensor.nbytes) // page * page - first
        if length > 0:
            _madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


class Contents(NamedTuple):
    """What a file holds: its tensors, whether they are averaged, and the run's ``arguments``."""

    tensors: dict[str, StoredTensor]
    averaged: bool
    arguments: dict[str, Any]


def open_file(path: Path) -> Contents:
    """Open a checkpoint file; its format is told from its first bytes.

    Of a training checkpoint the averaged weights are taken, if it has them. Raises ValueError if
    the file is missing, empty, truncated, no checkpoint, does not tell which of its weights are
    meant, or would run code.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ValueError(f"source must be a file that can be read, got {path}: {error}") from error
    if head.startswith(b"PK\x03\x04"):
        return _open_torch(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_HEADER:
        return Contents(_open_safetensors(path), False, {})
    raise ValueError(
        f"source must be a checkpoint (safetensors, or torch.save's zip format), "
        f"got {path}: {_describe(head)}"
    )


def open_index(path: Path) -> dict[str, StoredTensor]:
    """Open all shards of an index, ``{"weight_map": {tensor: file}}``.

    Raises ValueError if the index is malformed, or a shard is missing, damaged or lacks a tensor.
    """
    index = read_json(path, "index").get("weight_map")
    files = list(index.values()) if isinstance(index, dict) else [index]
    # A shard lies beside its index: a path that leads elsewhere is not followed.
    if not all(isinstance(file, str) and file == Path(file).name for file in files):
        raise ValueError(
            f"index {path} is missing or malformed: weight_map must name files beside it"
        )
    shards = sorted(set(files))
    absent = [name for name in shards if not (path.parent / name).is_file()]
    if absent:
        raise ValueError(f"source must have all shards of {path}, got none of {', '.join(absent)}")
    contents = {name: open_file(path.parent / name).tensors for name in shards}
    lacking = [name for name, file in index.items() if name not in contents[file]]
    if lacking:
        raise ValueError(
            f"shards must have the tensors that {path} says, "
            f"got {index[lacking[0]]} without {lacking[0]}"
        )
    return {name: tensor for tensors in contents.values() for name, tensor in tensors.items()}


def _open_safetensors(path: Path) -> dict[str, StoredTensor]:
    try:
        file = safe_open(path, framework="pt")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"source must be whole, got {path}, truncated or damaged: {error}"
        ) from error

    def stored(name: str) -> StoredTensor:
        dtype = slices[name].get_dtype()
        if dtype not in _DTYPES:
            raise ValueError(f"weights must be of a torch dtype, got {name} of {dtype} in {path}")
        shape = tuple(slices[name].get_shape())
        return StoredTensor(shape, _DTYPES[dtype], lambda: file.get_tensor(name))

    return {name: stored(name) for name in slices}


def _open_torch(path: Path) -> Contents:
    # The arguments of DiT's training script are the one class that is not of torch.
    value = load_plain(path, "source", classes=[argparse.Namespace], mapped=True)
    args = value.get("args") if isinstance(value, dict) else None
    arguments = vars(args) if isinstance(args, argparse.Namespace) else args
    value, averaged = _weights(value, path)
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f"source must hold a dict of tensors, got {path} with a {type(value).__name__}"
        )
    foreign = [key for key, entry in value.items() if not isinstance(entry, Tensor)]
    if foreign:
        raise ValueError(
            f"source must hold a dict of tensors, or one with such a dict as 'ema', 'state_dict' "
            f"or 'model', got {path} with keys "
            f"{', '.join(cut(str(key), 60) for key in list(value)[:8])}"
        )
    tensors = {str(name): _stored_by_torch(str(name), value[name], path) for name in value}
    return Contents(tensors, averaged, dict(arguments) if isinstance(arguments, dict) else {})


def _weights(value: Any, path: Path) -> tuple[Any, bool]:
    """The weights in what a training code saved, and whether they are averaged."""
    averaged = False
    for _ in range(_NESTED):
        inner = value.items() if isinstance(value, dict) else ()
        names = [name for name, entry in inner if isinstance(entry, dict) and isinstance(name, str)]
        means = [name for name in names if _AVERAGED.search(name)]
        found = means or [name for name in names if name in _WEIGHTS]
        if len(found) > 1:
            raise ValueError(
                f"source must tell which weights are meant, got {path} with {', '.join(found)}: "
                "save those by themselves"
            )
        if not found:
            break
        value, averaged = value[found[0]], averaged or bool(means)
    return value, averaged


def load_plain(
    path: Path, argument: str, *, classes: Sequence[type] = (), mapped: bool = False
) -> Any:
    """What ``torch.save`` wrote, on the CPU: tensors, plain values and the ``classes`` alone.

    Whoever reads such a file does it here: nothing in it is run, and nothing is inflated.
    ``mapped`` is for files in torch's present format, whose tensors then lie in the file.

    Raises OSError if it is no file, ValueError naming ``argument`` if it is damaged, compressed, a
    program, or holds anything else.
    """
    check_regular(path)
    _check_members(path, argument)
    try:
        with path.open("rb") as file, torch.serialization.safe_globals(list(classes)):
            # By another name: torch itself would go by the suffix.
            name = f"/dev/fd/{file.fileno()}"
            return torch.load(name, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # damaged pickles raise anything
        raise ValueError(f"{argument} must be {_what_torch_refused(path, error)}") from error


def _check_members(path: Path, argument: str) -> None:
    """Refuse zip files that are not what ``torch.save`` writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, zipfile.BadZipFile):
        return  # torch.load says what is wrong with it
    if any(member.filename.endswith("/constants.pkl") for member in members):
        # torch.load would hand it on to torch.jit.
        raise ValueError(f"{argument} must be weights only, got {path}, a TorchScript program")
    packed = [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]
    if packed:
        # Mapped, compressed bytes would be taken for weights.
        raise ValueError(
            f"{argument} must be stored as torch.save writes it, got {path}, packed anew, "
            f"with {packed[0]} compressed"
        )


def _stored_by_torch(name: str, tensor: Tensor, path: Path) -> StoredTensor:
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise ValueError(f"weights must be dense, got {name} of {tensor.layout} in {path}")
    tensor = tensor.detach()
    # Strides of 0 let a file of some bytes ask for any amount of memory.
    start = tensor.storage_offset() * tensor.itemsize
    if start + tensor.nbytes > tensor.untyped_storage().nbytes():
        raise ValueError(f"weights must be stored whole, got {name} repeated by strides in {path}")
    return StoredTensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def _what_torch_refused(path: Path, error: Exception) -> str:
    """What was expected and what came, without torch's advice to load unsafely."""
    text = str(error)
    if "Weights only load failed" not in text:
        reason = text.splitlines()[0] if text else repr(error)
        return f"whole, got {path}, truncated or damaged: {cut(reason)}"
    asked = re.search(r"GLOBAL ([\w.]+)", text)
    wish = f"asks for {asked[1]}" if asked else "holds more than tensors and plain values"
    return f"weights only, got {path}, whose pickle {wish}; nothing in it was run"


def _describe(head: bytes) -> str:
    """What a file that is no checkpoint seems to be."""
    text = head.lstrip().lower()
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, without the file it stands for (`git lfs pull` fetches it)"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "an HTML page, probably of a download that failed"
    if head.startswith(b"\x80"):
        return "a bare pickle, which could run code and is not opened"
    return f"something that starts with {head[:12]!r}"
