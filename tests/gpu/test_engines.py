"""Engines on a GPU: CUDA graphs, and ONNX Runtime's CUDA provider."""

import pytest
import torch
from typer.testing import CliRunner

from free import Schedule, SpeculativeSampler
from free.cli import app
from free.engines.load import load_engine
from free.engines.networks import EngineDrafter
from free.engines.onnx import PROVIDERS, OnnxSession
from free.engines.torch import TorchSession
from free.export.package import graphs_of, torch_engine
from tests.exports import Export, agree_at_corners, close, small_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SCHEDULE = Schedule.ddpm(40, beta_end=4e-3)
LABELS = [0, 7, 15]


@pytest.fixture(autouse=True)
def _full_precision() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture
def cuda_provider() -> None:
    """The session's own test is that this raises where it cannot start; here it must."""
    ort = pytest.importorskip("onnxruntime")
    if PROVIDERS["cuda"] not in ort.get_available_providers():
        pytest.skip("this build of onnxruntime has no CUDA provider")


@pytest.mark.parametrize("sweeps", [None, 2])
def test_graphed_graphs_replay_what_eager_computes(sweeps: int | None) -> None:
    teacher, drafter = small_model()
    for graph, contract in graphs_of(teacher, drafter, 3, sweeps, 2):
        graphed = TorchSession(graph, contract, "graphed", "cuda")
        agree_at_corners(graphed, TorchSession(graph, contract), seeds=2)  # then replayed


def test_graphed_engines_sample_as_eager_ones() -> None:
    results = []
    for mode in ("eager", "graphed"):
        engine = torch_engine(*small_model(), 3, 2, max_batch=3, mode=mode, device="cuda")
        sampler = SpeculativeSampler(*engine, SCHEDULE, 3, sweeps=2, recycle=True, cfg_scale=1.8)
        results.append(sampler.sample(LABELS, 3))
    eager, graphed = results
    assert graphed.samples.is_cuda
    assert graphed.report.accepted_by_step == eager.report.accepted_by_step
    close(graphed.samples, eager.samples, 1e-4)


@pytest.mark.usefixtures("cuda_provider")
def test_the_cuda_provider_works_on_torchs_memory(guided_export: Export) -> None:
    for graph in guided_export.manifest.graphs.values():
        path = guided_export.folder / graph.file
        session = OnnxSession(path, graph.contract, "cuda")
        assert session.device.type == "cuda"
        on_cpu = guided_export.session(graph.contract.graph)
        for sizes in graph.contract.corners():
            inputs = graph.contract.sample_inputs(sizes)
            got = session.run({name: value.cuda() for name, value in inputs.items()})
            for name, expected in on_cpu.run(inputs).items():
                assert got[name].is_cuda
                # Its matrix products may be rounded to TensorFloat-32.
                close(got[name].cpu(), expected, 1e-2)
    with pytest.raises(ValueError, match=r"x of \w+ must be on cuda, got cpu"):
        session.run(inputs)


@pytest.mark.usefixtures("cuda_provider")
def test_a_folder_samples_on_the_gpu(plain_export: Export) -> None:
    teacher, drafter = load_engine(plain_export.folder, device="cuda")
    assert isinstance(drafter, EngineDrafter)
    result = SpeculativeSampler(teacher, drafter, SCHEDULE, 3).sample(LABELS, 3)
    assert result.samples.is_cuda
    assert result.samples.isfinite().all()
    assert result.report.accepted > 0


@pytest.mark.usefixtures("cuda_provider")
def test_a_command_exports_what_it_has_loaded_on_the_gpu(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FREE_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "x.png"
    options = ["--steps", "20", "--labels", "1", "--engine", "onnxruntime", "--device", "cuda"]
    result = CliRunner().invoke(app, ["sample", *options, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.is_file()
