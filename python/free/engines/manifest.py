"""What a folder of exported graphs holds, in its ``manifest.json``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from free.engines.interface import Contract
from free.files import digest, read_json, shown, write_json
from free.models.config import DiTConfig

MANIFEST = "manifest.json"

#: Format of the records that this room writes.
_FORMAT = 1

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")

Record = TypeVar("Record")


@dataclasses.dataclass(frozen=True)
class Graph:
    """One graph: its contract and its file, with the file's digest."""

    contract: Contract
    file: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Which graphs were exported, from which model and with which settings.

    Attributes
    ----------
    graphs : dict of str to Graph
    weights : tuple of str
        File that the graphs share their weights in, and its digest.
    teacher : dict
        Arguments of the teacher's :class:`free.DiTConfig`.
    precision, drafter_precision : str
        Of the large matrix products of teacher and drafter.
    window, max_batch : int
    sweeps : int or None
    sampling : dict
        What the drafter is made with: settings recommended for :class:`free.SpeculativeSampler`,
        and its ``acceptance`` if that is on record.
    schedule : dict
        Arguments of :meth:`free.Schedule.ddpm` that the export was checked with, none for a
        network that predicts a velocity. The graphs work with any schedule of the network's
        timesteps.
    versions : dict of str to str
        Of the package, torch, ONNX's operator set.
    """

    graphs: dict[str, Graph]
    weights: tuple[str, str]
    teacher: dict[str, Any]
    precision: str
    drafter_precision: str
    window: int
    sweeps: int | None
    max_batch: int
    sampling: dict[str, Any]
    schedule: dict[str, Any]
    versions: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write ``manifest.json``, atomically; last of all, so that its presence means success."""
        record = dataclasses.asdict(self)
        record["graphs"] = {
            name: {
                "file": graph.file,
                "sha256": graph.sha256,
                "contract": graph.contract.to_record(),
            }
            for name, graph in self.graphs.items()
        }
        write_record(folder / MANIFEST, record)

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Read a folder's manifest.

        Raises
        ------
        ValueError
            If it is missing, malformed, or of another format.
        """
        path = Path(folder) / MANIFEST
        if not path.exists():
            raise ValueError(
                f"engine folder must hold {MANIFEST}, as free export writes it, got {folder}"
            )
        return read_record(path, "manifest", cls._build)

    @classmethod
    def _build(cls, record: dict[str, Any]) -> Manifest:
        graphs = {
            name: Graph(
                Contract.from_record(entry["contract"]), _plain(entry["file"]), str(entry["sha256"])
            )
            for name, entry in record.pop("graphs").items()
        }
        if not any(name.startswith("teacher") for name in graphs):
            raise ValueError(f"graphs must have a teacher, got {list(graphs)}")
        DiTConfig(**record["teacher"])  # says what is wrong with it
        name, sha256 = record.pop("weights")
        return cls(graphs, (_plain(name), str(sha256)), **record)

    def check_files(self, folder: str | Path) -> None:
        """Raise a ValueError if a file is missing or is not the one that was exported."""
        entries = [(graph.file, graph.sha256) for graph in self.graphs.values()]
        for name, sha256 in [*entries, self.weights]:
            path = Path(folder) / name
            if not path.is_file():
                raise ValueError(f"engine folder must hold {name}, got none in {folder}")
            if digest(path) != sha256:
                raise ValueError(
                    f"{path} must be the file that was exported (sha256 {sha256[:12]}...), got "
                    "another or a truncated one: export the model again"
                )


def _plain(name: Any) -> str:
    """Check a file's name, which must not lead out of its folder."""
    if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name):
        raise ValueError(f"it must name plain files, got {name!r}")
    return name


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write what :func:`read_record` reads, atomically."""
    write_json(path, {"format": _FORMAT, **record})


def read_record(path: Path, name: str, build: Callable[[dict[str, Any]], Record]) -> Record:
    """Read a file of this package's engines.

    Parameters
    ----------
    path : Path
    name : str
        What the file is, for errors.
    build : callable
        Makes the record from the file's object; it may raise what missing or wrong fields raise.

    Raises
    ------
    ValueError
        If the file is missing, malformed, incomplete, or of another format.
    """
    content = read_json(path, name)
    if content.pop("format", None) != _FORMAT:
        raise ValueError(f"{path} must have format {_FORMAT}: export the model again")
    try:
        return build(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} must be a complete {name}, got {shown(error)}") from error
