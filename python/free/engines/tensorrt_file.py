"""What a TensorRT engine file was built from and for, in the JSON beside it.

Nothing here needs TensorRT.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import torch

from free.engines.interface import Contract
from free.engines.manifest import read_record, write_record
from free.files import digest

#: Target of an engine of TensorRT-RTX for every GPU from compute capability 8.0 on.
ANY = "any"


@dataclasses.dataclass(frozen=True)
class BuiltEngine:
    """An engine file and what it depends on.

    Attributes
    ----------
    contract : Contract
        Its profile is the engine's.
    flavour : {"tensorrt", "tensorrt-rtx"}
    version : str
        Of the library that built it; others do not read it.
    target : str
        ``"any"``, or the GPUs' compute capability, as ``"sm89"``.
    gpu : str or None
        Model of the GPU it was tuned on, the only one that may run it; None for ``tensorrt-rtx``.
    sources : dict of str to str
        SHA-256 of the ``.onnx`` file and the weights beside it, by name.
    sha256 : str
        Of the engine file.
    size : int
        Its bytes.
    seconds : float
        That building took.
    """

    contract: Contract
    flavour: str
    version: str
    target: str
    gpu: str | None
    sources: dict[str, str]
    sha256: str
    size: int
    seconds: float

    def __str__(self) -> str:
        gpu = f" ({self.gpu})" if self.gpu else ""
        return (
            f"{self.contract.graph} for {self.flavour} {self.version} on {self.target}{gpu}: "
            f"{self.size / 1e6:.1f} MB, built in {self.seconds:.1f} s"
        )

    def write(self, engine: Path) -> None:
        """Write it beside the engine, atomically; after the engine, so that it vouches for it."""
        record = {**dataclasses.asdict(self), "contract": self.contract.to_record()}
        write_record(engine.with_suffix(".json"), record)

    @classmethod
    def read(cls, engine: Path) -> BuiltEngine:
        """Read what lies beside an engine file.

        Raises
        ------
        ValueError
            If it is missing, malformed or of another format.
        """
        return read_record(engine.with_suffix(".json"), "engine record", cls._build)

    @classmethod
    def _build(cls, record: dict[str, Any]) -> BuiltEngine:
        built = cls(contract=Contract.from_record(record.pop("contract")), **record)
        if not isinstance(built.sources, dict) or not isinstance(built.sha256, str):
            raise TypeError("sources and sha256 must be an object and a string")
        return built

    def unfit(self, engine: Path, contract: Contract, version: str) -> str | None:
        """Why this machine's GPU cannot run the file as the wanted engine, or None."""
        return self.stale(engine, contract, version) or self._misfit()

    def stale(self, engine: Path, contract: Contract, version: str) -> str | None:
        """Why the file is not the wanted engine, or None.

        Parameters
        ----------
        engine : Path
            Sources that lie beside it must be those it was built from.
        contract : Contract
        version : str
            Of the library in use.
        """
        if self.version != version:
            return f"it was built by {self.flavour} {self.version}, and {version} is installed"
        if self.contract != contract:
            return "it was built for other shapes or another graph"
        for name, sha256 in self.sources.items():
            path = engine.parent / name
            if path.is_file() and file_digest(path) != sha256:
                return f"it was built from another {name}"
        if not engine.is_file() or file_digest(engine) != self.sha256:
            return "the file is missing, truncated or another one"
        return None

    def _misfit(self) -> str | None:
        target, gpu = this_gpu()
        if self.target == ANY:
            too_old = torch.cuda.get_device_capability() < (8, 0)
            return f"it needs sm80 or newer, and this GPU is {target}" if too_old else None
        if self.target != target:
            return f"it was built for {self.target}, and this GPU is {target}"
        if self.gpu is not None and self.gpu != gpu:
            return f"it was built for {self.gpu}, and this GPU is {gpu}"
        return None


def engine_path(onnx: Path, flavour: str, target: str) -> Path:
    """Where the engine of a graph is kept: beside it, one for each flavour and target."""
    return onnx.with_name(f"{onnx.stem}.{flavour}-{target}.engine")


def this_gpu() -> tuple[str, str]:
    """Compute capability and model of torch's current GPU, as ``("sm89", "NVIDIA ...")``.

    Raises
    ------
    RuntimeError
        If torch sees none.
    """
    if not torch.cuda.is_available():
        raise RuntimeError(
            "TensorRT engines run on an NVIDIA GPU, and torch sees none here: "
            "torch.cuda.is_available() is False"
        )
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}", torch.cuda.get_device_name()


def file_digest(path: Path) -> str:
    """SHA-256 of a file; read again only if it has changed, as graphs share their weights."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _digest(path: Path, size: int, modified: int) -> str:
    return digest(path)
