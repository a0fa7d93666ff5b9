"""TensorRT on a GPU: what engines compute, and samplers that run on them."""

from pathlib import Path

import pytest
import torch

from free import Schedule, SequentialSampler, SpeculativeSampler
from free.engines.networks import EngineDrafter, on_engine
from free.engines.tensorrt import FLAVOURS, TensorRTSession, load_tensorrt
from free.engines.tensorrt_file import this_gpu
from free.export.tensorrt import TARGETS, build_engine
from tests.exports import Export, agree_at_corners, close

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SCHEDULE = Schedule.ddpm(40, beta_end=4e-3)
LABELS = [0, 7, 14]


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    try:
        load_tensorrt(request.param)
    except ImportError as error:
        pytest.skip(str(error))
    if request.param == "tensorrt-rtx" and this_gpu()[0] not in TARGETS:
        pytest.skip(f"tensorrt-rtx does not build for {this_gpu()[0]}")
    return str(request.param)


def opened(export: Export, flavour: str, folder: Path) -> dict[str, TensorRTSession]:
    sessions = {}
    for name, entry in export.manifest.graphs.items():
        path = folder / f"{name}.engine"
        build_engine(export.folder / entry.file, entry.contract, flavour=flavour, path=path)
        sessions[name] = TensorRTSession(path, entry.contract)
    return sessions


@pytest.mark.parametrize("exported", ["guided", "plain"])
@pytest.mark.parametrize("stream", ["default", "own"])
def test_engines_compute_what_onnx_runtime_does(
    request, tmp_path, flavour, exported, stream
) -> None:
    export: Export = request.getfixturevalue(f"{exported}_export")
    chosen = torch.cuda.Stream() if stream == "own" else torch.cuda.default_stream()
    for name, session in opened(export, flavour, tmp_path).items():
        with torch.cuda.stream(chosen):
            agree_at_corners(session, export.session(name))


def test_samplers_decide_as_on_onnx_runtime(guided_export, tmp_path, flavour) -> None:
    manifest = guided_export.manifest
    config = guided_export.teacher.config
    on_cpu = {name: guided_export.session(name) for name in manifest.graphs}
    results = []
    for sessions in (on_cpu, opened(guided_export, flavour, tmp_path)):
        teacher, drafter = on_engine(
            dict(sessions), config, manifest.window, manifest.sweeps, manifest.sampling
        )
        assert isinstance(drafter, EngineDrafter)
        for sampler in (
            SpeculativeSampler(
                teacher, drafter, SCHEDULE, 3, sweeps=2, recycle="response", cfg_scale=1.8
            ),
            SequentialSampler(teacher, SCHEDULE, 1.8),
        ):
            results.append(sampler.sample(LABELS, 3))
    for cpu, gpu in zip(results[:2], results[2:], strict=True):
        assert gpu.samples.is_cuda
        assert gpu.report.rounds == cpu.report.rounds
        close(gpu.samples.cpu(), cpu.samples, 1e-3)
