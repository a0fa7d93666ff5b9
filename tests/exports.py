"""Small models to export, and what their exports are."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock

from free import DiT, DiTConfig, DrafterNet, FeatureDrafter
from free.engines.manifest import Manifest
from free.engines.onnx import OnnxSession
from free.export.package import export_model
from tests.networks import randomized


def small_model(
    learn_sigma: bool = True, seed: int = 0, depth: int = 2, **fields: Any
) -> tuple[DiT, FeatureDrafter]:
    """A teacher, and a drafter near enough that some of its drafts stand: gated and of ``depth``
    blocks for a teacher with a learned variance, else a plain one; ``fields`` are further ones of
    its configuration.

    The label table has 1024 bytes, the least that goes into the file of weights.
    """
    config = DiTConfig(4, 2, 2, 16, 2, 2, num_classes=15, learn_sigma=learn_sigma, **fields)
    depth = depth if learn_sigma else 1
    teacher, network = DiT(config), DrafterNet(config, depth, gate=learn_sigma)
    randomized(teacher, seed)
    randomized(network, seed + 1)
    for head in (network.final_layer.linear, network.feature_head):
        for weight in head.parameters():
            weight.data *= 0.1
    return teacher, FeatureDrafter(network, teacher)


class Export(NamedTuple):
    """A folder of graphs, and the model in it."""

    folder: Path
    manifest: Manifest
    teacher: DiT
    drafter: FeatureDrafter

    def session(self, graph: str) -> OnnxSession:
        """One of the graphs on the CPU."""
        entry = self.manifest.graphs[graph]
        return OnnxSession(self.folder / entry.file, entry.contract)


def export(folder: Path, guided: bool) -> Export:
    """Export a model, or take the export that another of pytest's processes has made.

    Two exports hold between them what graphs can have, at the least tracing: guidance, sweeps, the
    variance and a gated drafter, or none of them.
    """
    teacher, drafter = small_model(learn_sigma=guided, depth=1)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            sweeps, kinds = 2 if guided else None, (guided,)
            export_model(teacher, drafter, folder, 3, sweeps, max_batch=3, guidance=kinds)
    return Export(folder, Manifest.read(folder), teacher, drafter)


class Spied:
    """A session that keeps its calls' inputs."""

    def __init__(self, session: Any) -> None:
        self.contract, self.device, self.session = session.contract, session.device, session
        self.calls: list[dict[str, torch.Tensor]] = []

    def run(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.calls.append(inputs)
        return self.session.run(inputs)


def close(got: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Agreement to ``tolerance``, absolute and relative."""
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def agree_at_corners(session: Any, reference: Any, seeds: int = 1) -> None:
    """A session on the GPU computes what another does on the CPU; sizes come back with each seed.

    A later call does not write into what an earlier one returned.
    """
    kept = []
    for seed in range(seeds):
        for sizes in session.contract.corners():
            inputs = session.contract.sample_inputs(sizes, seed)
            got = session.run({name: value.cuda() for name, value in inputs.items()})
            kept.append((got, reference.run(inputs)))
    torch.cuda.synchronize()
    for got, expected in kept:
        for name, value in expected.items():
            close(got[name].cpu(), value, 1e-4)
