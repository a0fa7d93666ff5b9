"""Traced graphs: what the files are, and that ONNX Runtime computes what torch does."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from free.engines.onnx import OnnxSession
from free.engines.torch import TorchSession
from free.export.onnx import WeightsFile, export_graph
from free.export.package import graphs_of
from tests.disks import full_disk
from tests.exports import Export, close, small_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")


@pytest.fixture(params=["plain", "guided"])
def exported(request: pytest.FixtureRequest) -> Export:
    return request.getfixturevalue(f"{request.param}_export")


def models(exported: Export) -> dict[str, Any]:
    return {
        name: onnx.load(exported.folder / graph.file, load_external_data=False)
        for name, graph in exported.manifest.graphs.items()
    }


def test_graphs_pass_the_checker_and_are_the_contracts(exported: Export) -> None:
    for name, model in models(exported).items():
        graph = exported.manifest.graphs[name]
        onnx.checker.check_model(str(exported.folder / graph.file), full_check=True)
        assert {entry.domain: entry.version for entry in model.opset_import} == {"": 20}
        assert not model.functions
        specs = (graph.contract.inputs, graph.contract.outputs)  # sessions check types and shapes
        for values, side in zip((model.graph.input, model.graph.output), specs, strict=True):
            assert [value.name for value in values] == [spec.name for spec in side]


def test_weights_are_in_one_file_once(exported: Export) -> None:
    places: dict[tuple[int, int], set[str]] = {}
    for name, model in models(exported).items():
        for tensor in model.graph.initializer:
            where = {entry.key: entry.value for entry in tensor.external_data}
            if not where:
                assert len(tensor.raw_data) < 1024
                continue
            assert where["location"] == "weights.bin"
            place = int(where["offset"]), int(where["length"])
            assert place[0] % 64 == 0
            places.setdefault(place, set()).add(name)
    content = (exported.folder / "weights.bin").read_bytes()
    blocks = Counter(content[offset : offset + length] for offset, length in places)
    assert set(blocks.values()) == {1}
    assert len(content) < sum(length for _, length in places) + 64 * len(places)
    # The label table, which the drafter takes from the teacher, belongs to all of them.
    table = exported.teacher.y_embedder.embedding_table.weight.numpy().tobytes()
    of_table = next(p for p in places if content[p[0] : sum(p)] == table)
    assert places[of_table] == set(exported.manifest.graphs)
    # Every large weight is there; a matrix may have been turned over.
    for network in (exported.teacher, exported.drafter.network):
        for weight in network.parameters():
            if weight.nbytes >= 1024:
                forms = (weight, weight.T if weight.dim() == 2 else weight)
                assert any(f.contiguous().numpy().tobytes() in blocks for f in forms)


def test_neither_autocast_nor_a_default_dtype_is_traced(tmp_path: Path) -> None:
    """Drawn before they are set, and run after: they are not the graph's, nor torch's as engine."""
    ((graph, contract),) = graphs_of(small_model()[0], None, 1, None, 1, (True,))
    reference, path = TorchSession(graph, contract), tmp_path / "teacher.onnx"
    inputs = contract.sample_inputs(contract.corners()[-1])
    expected = reference.run(inputs)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            with WeightsFile(tmp_path / "weights.bin") as weights:
                export_graph(graph, contract, path, weights)
            same = reference.run(inputs)
    finally:
        torch.set_default_dtype(torch.float32)
    outputs = OnnxSession(path, contract).run(inputs)
    for name, value in expected.items():
        assert torch.equal(same[name], value)
        close(outputs[name], value, 1e-4)


def test_weights_are_aligned_and_never_repeated(tmp_path: Path) -> None:
    """Same bytes of another type are another tensor."""
    with WeightsFile(tmp_path / "weights.bin") as weights:
        spans = [weights._span(*entry) for entry in (("A", b"abc"), ("A", b"abc"), ("B", b"abc"))]
    assert spans == [(0, 3), (0, 3), (64, 3)]
    assert (tmp_path / "weights.bin").read_bytes() == b"abc" + b"\0" * 61 + b"abc"


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    error = pytest.raises(OSError, match=f"File too large: '{path}'")
    with error, full_disk(), WeightsFile(path) as weights:
        weights._span("float32", b"w" * 4096)
