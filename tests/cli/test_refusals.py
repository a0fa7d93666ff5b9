"""What commands refuse: one line, exit code 2, and nothing is written.

Messages of the commands themselves, and for each command one of the library's that it passes on.
"""

import numpy as np
import pytest

from tests.cli.commands import refuse
from tests.evaluation.networks import noise

#: Options that each command gets besides; an option given twice counts the second time.
FIXED: dict[str, list[object]] = {
    "sample": ["--steps", 4, "--out", "x.png"],
    "generate": ["--num", 2, "--steps", 4, "--out", "x.npz"],
    "sweep": ["--steps", 5, "--per-label", 1],
    "bench": ["--steps", 8, "--images", 2],
    "profile": ["--steps", 8],
    "tune": ["--steps", 4],
    "export": ["--out", "e"],
    "evaluate": ["few.npz", "few.npz"],
    **{f"train-{what}": ["--out", "t"] for what in ("teacher", "variance", "drafter")},
}


#: Commands that take a number of threads.
THREADED = ("generate", "sweep", "evaluate", "train-teacher", "train-variance", "train-drafter")


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("sample", "--verifier block --recycle reuse", "recycle must be False with verifier 'blo"),
        ("sample", "--drafter none", "drafter must be a checkpoint's file or folder"),
        ("sample", "--labels 11", "labels must be in 0..9 or 10 (the null class), got 11"),
        ("sample", "--model nowhere", "model must be a checkpoint's file or folder"),
        *((name, "--threads 100000", "Invalid value for '--threads'") for name in THREADED),
        *((name, f"--seed {2**64}", "seed must have 64 bits, got") for name in THREADED[3:]),
        ("sample", "--device tpu", "--device must be one that this machine has, got 'tpu'"),
        ("sample", "--dtype int8", "--dtype must be one of float32, bfloat16, float16, got 'int8'"),
        ("sample", "--out digits", "--out must end like a picture"),
        ("sample", "--variance learned", "--variance must be posterior, upper, a number, or a t"),
        ("sample", "--variance 1.5", "variance must be a weight in [0, 1], got 1.5"),
        ("sample", "--sde --variance upper", "--sde must come without --variance"),
        ("sample", "--stochasticity -1", "stochasticity must be finite and >= 0, got -1.0"),
        ("sample", "--sde --stochasticity nan", "stochasticity must be finite and >= 0, got nan"),
        ("sample", "--stochasticity 0", "sigma = 0 at step 0: without noise nothing couples draf"),
        (
            "sample",
            "--law heun",
            "--law must be one of ddpm, ddim, euler-ancestral, sde-dpmsolver++",
        ),
        (
            "sample",
            "--law repa",
            "--law must be one of ddpm, ddim, euler-ancestral, sde-dpmsolver++ w",
        ),
        ("sample", "--law ddpm --sde", "--law and --scheduler must come without --variance and --"),
        (
            "sample",
            "--law cps --stochasticity 2",
            "stochasticity must be finite and >= 0, at most 1",
        ),
        ("sample", "--law repa --stochasticity 2", "--law repa must come without --scheduler and "),
        ("generate", "--scheduler nowhere", "--scheduler nowhere is missing or malformed"),
        ("sweep", "--law ddpm,heun", "--law must be one of ddpm, ddim, euler-ancestral, sde-dpmso"),
        ("generate", "--sampler ddim", "--sampler must be free or plain, got 'ddim'"),
        ("generate", "--sampler plain --verifier block", "--sampler plain must come without --pap"),
        ("generate", "--sampler plain --window 3", "--sampler plain must come without --paper"),
        ("generate", "--window auto", "--window must be a number here, got auto: the images"),
        ("sweep", "--steps x", "--steps must be integers with commas between them, got 'x'"),
        ("sweep", "--stochasticity 1;2", "--stochasticity must be numbers with commas between"),
        ("sweep", "--stochasticity 0", "schedule must have sigma > 0 before its last transition"),
        ("sweep", "--window ,", "--window must be values with commas between them, got ','"),
        ("sweep", "--variance posterior,wide", "--variance must be posterior, upper, a number"),
        ("sweep", "--relax temper:1 --verifier block", "relaxation must be None unless verifier"),
        ("sweep", "--model mnist --per-label 12", "--per-label must make more than 128 images"),
        ("sweep", "--per-label 20 --reference none.npz", "--reference must be an .npz of arrays"),
        ("sweep", "--resume", "--resume must come with --json"),
        ("sweep", "--plot x.txt", "--plot must end like a picture"),
        ("sweep", "--verifier tolerance", "--verifier must be reflection or block here"),
        ("sweep", "--tolerance 0.01", "come without --tolerance: benchmarks/deterministic.py"),
        ("train-teacher", "--upscale", "--channels and --upscale must come with a folder, got mni"),
        ("bench", "--rows fastest", "--rows must be of plain, ddim, eps"),
        ("bench", "--plot x.what", "--plot must end like a picture"),
        ("bench", "--reference nowhere", "--reference must be a folder of images"),
        ("bench", "--steps 1", "steps must be an integer in 2..train_steps (1000), got 1"),
        ("profile", "--trace x.txt", "--trace must end in .json or .json.gz, got 'x.txt'"),
        ("profile", "--trace x.json --json x.json", "--json must be another file than --trace"),
        ("tune", "--drafter frozen --save", "--save needs a trained drafter in a folder, got 'fr"),
        ("export", "--to coreml", "--to must be onnx, tensorrt or tensorrt-rtx, got 'coreml'"),
        ("export", "--guidance maybe", "--guidance must be both, only or none, got 'maybe'"),
        ("export", "--target sm89", "--target must come with --to tensorrt-rtx, got --to onnx"),
        ("export", "--window 2 --sweeps 2", "sweeps must be None or an integer in 1..window - 1"),
        ("evaluate", "", "samples must be more than 128 images for a covariance of 128"),
        ("evaluate", "--features inception:x", "Download pt_inception-2015-12-05-67268"),
    ],
)
def test_refusals(command, arguments, message, digits, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("few.npz", arr_0=noise(128, 28, 28, 1))
    model = [] if command in ("evaluate", "train-teacher") else ["--model", digits]
    refuse(message, command, *model, *FIXED[command], *arguments.split())
    assert [path.name for path in tmp_path.iterdir()] == ["few.npz"]


def test_times_between_whole_ones_on_an_engine_are_refused(digits, tmp_path) -> None:
    pytest.importorskip("diffusers")
    law = ("--law", "euler-ancestral", "--steps", 25, "--out", tmp_path / "x.png")
    message = "--law must have whole timesteps on an engine"
    refuse(message, "sample", "--model", digits, *law, "--engine", "onnxruntime")
